"""Networks and losses of heads, in plain torch."""

import inspect
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

__all__ = [
    "ACTIVATIONS",
    "OPTIMIZERS",
    "FeatureScaling",
    "Head",
    "HeadLoss",
    "accepts",
    "build_head",
    "has_batch_norm",
    "softmax",
]

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


class FeatureScaling(nn.Module):
    """Subtract a mean from each feature and divide by a scale.

    Parameters
    ----------
    mean : array-like of shape (n_features,)
        Subtracted from each row.
    scale : float or array-like of shape (n_features,)
        What is left is divided by it; positive.
    """

    def __init__(self, mean, scale):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("factor", 1.0 / torch.as_tensor(scale, dtype=torch.float32))

    def forward(self, X):
        return (X - self.mean) * self.factor


class HeadLoss(nn.Module):
    """Weighted mean of the cross entropy of logits.

    Parameters
    ----------
    multilabel : bool
        Whether each output is a yes or no of its own.
    label_smoothing : float in [0, 1)
        Share of the target that is spread evenly. Left out in evaluation, so that the loss on
        validation rows is comparable from one setting to another.
    """

    def __init__(self, multilabel, label_smoothing):
        super().__init__()
        self.multilabel = multilabel
        self.label_smoothing = label_smoothing

    def forward(self, logits, target, weight=None):
        smoothing = self.label_smoothing if self.training else 0.0
        reduction = "mean" if weight is None else "none"
        if not self.multilabel:
            losses = functional.cross_entropy(
                logits, target, reduction=reduction, label_smoothing=smoothing
            )
        else:
            target = target * (1.0 - smoothing) + 0.5 * smoothing
            losses = functional.binary_cross_entropy_with_logits(
                logits, target, reduction=reduction
            )
        if weight is None:
            return losses
        return (losses.reshape(len(weight), -1).mean(dim=1) * weight).mean()


class Head(nn.Module):
    """Scaling, if any, then the network that turns scaled features into logits.

    Parameters
    ----------
    n_features, n_outputs : int
        What the network takes and gives; a network that gives something else is refused.
    make : callable
        Builds the network, given ``n_features`` and ``n_outputs``.
    mean : array-like of shape (n_features,) or None
        As for :class:`FeatureScaling`; None for no scaling.
    scale : float, array-like of shape (n_features,) or None
        Likewise.
    """

    def __init__(self, n_features, n_outputs, make, mean=None, scale=None):
        super().__init__()
        self.scaling = nn.Identity() if mean is None else FeatureScaling(mean, scale)
        self.network = make(n_features=n_features, n_outputs=n_outputs)
        check_outputs(self.network, n_features, n_outputs)

    def forward(self, X):
        return self.network(self.scaling(X))

    def scale_(self, X):
        """Scale rows in place, as :meth:`forward` scales them."""
        if isinstance(self.scaling, FeatureScaling):
            X.sub_(self.scaling.mean.cpu()).mul_(self.scaling.factor.cpu())
        return X


def build_head(n_features, n_outputs, hidden_units, dropout, batch_norm, activation):
    """Return batch norm, dense layers, each with its activation and dropout, and a linear one."""
    layers = [nn.BatchNorm1d(n_features)] if batch_norm else []
    for n_in, n_out in pairwise((n_features, *hidden_units)):
        layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
        layers += [nn.Dropout(dropout)] if dropout else []
    if dropout and not hidden_units:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear((n_features, *hidden_units)[-1], n_outputs))


def check_outputs(network, n_features, n_outputs):
    """Check that a network gives one logit for each class and row."""
    training = network.training
    network.eval()
    with torch.inference_mode():
        logits = network(torch.zeros(2, n_features))
    network.train(training)
    shape = tuple(getattr(logits, "shape", ()))
    if shape != (2, n_outputs):
        raise ValueError(
            f"module must return logits of shape (n_rows, {n_outputs}), one for each class; for 2 "
            f"rows of {n_features} features {type(network).__name__} returned "
            f"{f'shape {shape}' if shape else type(logits).__name__}. End it with "
            f"nn.Linear(..., n_outputs) and no softmax."
        )


def has_batch_norm(network):
    """Whether a network needs two rows in every training batch."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())


def accepts(function, name):
    """Whether a class or function has a parameter of that name."""
    return name in inspect.signature(function).parameters


def softmax(logits):
    """Return the softmax over classes; a plain function, so that it can be pickled."""
    return torch.softmax(logits, dim=1)
