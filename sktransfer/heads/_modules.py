"""Networks of heads, in plain torch."""

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from .._utils._threads import usable_kernels

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class FeatureScaling(nn.Module):
    """Subtract a mean from each feature and divide by a scale."""

    def __init__(self, mean, scale):
        super().__init__()
        self.register_buffer("mean", torch.tensor(np.array(mean), dtype=torch.float32))
        self.register_buffer("factor", 1.0 / torch.tensor(np.array(scale), dtype=torch.float32))

    def forward(self, X):
        return (X - self.mean) * self.factor


class Head(nn.Module):
    """Optional scaling, then the network that ``make(n_features=..., n_outputs=...)`` returns."""

    def __init__(self, n_features, n_outputs, make, mean=None, scale=None):
        super().__init__()
        self.scaling = nn.Identity() if mean is None else FeatureScaling(mean, scale)
        self.network = network = make(n_features=n_features, n_outputs=n_outputs)
        logits = network
        if isinstance(network, nn.Module):
            training = network.training
            network.eval()
            with usable_kernels(), torch.inference_mode():
                logits = network(torch.zeros(2, n_features))
            network.train(training)
        shape = tuple(getattr(logits, "shape", ()))
        if shape != (2, n_outputs):
            raise ValueError(
                f"module must return logits of shape (n_samples, {n_outputs}), one for each class; "
                f"for 2 samples of {n_features} features {type(network).__name__} returned "
                f"{f'shape {shape}' if shape else type(logits).__name__}. End it with "
                "nn.Linear(..., n_outputs) and no softmax."
            )

    def forward(self, X, is_scaled=False):
        return self.network(X if is_scaled else self.scaling(X))

    def scale_(self, X):
        """Scale CPU rows in place, as :meth:`forward` scales them."""
        if isinstance(self.scaling, FeatureScaling):
            X.sub_(self.scaling.mean.cpu()).mul_(self.scaling.factor.cpu())
        return X


def build_head(n_features, n_outputs, hidden_units, dropout, batch_norm, activation):
    """Return batch norm, dense layers with activation and dropout, and a linear layer."""
    layers = [nn.BatchNorm1d(n_features)] if batch_norm else []
    for n_in, n_out in pairwise((n_features, *hidden_units)):
        layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
        layers += [nn.Dropout(dropout)] if dropout else []
    if dropout and not hidden_units:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear((n_features, *hidden_units)[-1], n_outputs))
