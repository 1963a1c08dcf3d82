"""Building networks without their classifying layer and filling them with weights."""

import contextlib
from typing import NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .._utils._threads import own_generators
from .._utils._warnings import quiet
from ._spec import RANDOM_SEED
from ._weights import fit_state, read_state


class Headless(NamedTuple):
    network: nn.Module
    dropped: tuple  # prefixes of the tensors of the layers that were removed


class _SkipInitialization(TorchFunctionMode):
    """Skip ``torch.nn.init`` where a weights file is about to overwrite everything."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


class PooledTokens(nn.Module):
    """Embeds images by the class token, the first of n_prefix, or the mean of the patch tokens."""

    def __init__(self, encoder, pooling, n_prefix):
        super().__init__()
        self.encoder, self.pooling, self.n_prefix = encoder, pooling, n_prefix

    def forward(self, images):
        tokens = getattr(self.encoder, "forward_features", self.encoder)(images)
        norm = getattr(self.encoder, "fc_norm", nn.Identity())  # what timm applies after pooling
        parts = {"cls": tokens[:, 0], "mean": tokens[:, self.n_prefix :].mean(1)}
        return torch.cat([norm(parts[part]) for part in self.pooling.split("+")], 1)


@contextlib.contextmanager
def building(random):
    """Build with seeded random weights, or without any; the caller's random state is kept."""
    with own_generators(), quiet():  # libraries warn about their own constructors
        if random:
            torch.default_generator.manual_seed(RANDOM_SEED)  # a GPU's generators stay as they are
            yield
        else:
            with _SkipInitialization():
                yield


def behead(network, also_dropped=()):
    """Replace the last Linear layer by an identity, in place."""
    linear = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if linear:
        path, replacement = linear[-1], nn.Identity()
    else:  # SqueezeNet classifies with a convolution; its embedding is the pooled input of that
        path, replacement = "classifier", nn.AdaptiveAvgPool2d(1)
    network.set_submodule(path, replacement)
    return Headless(network, (f"{path}.", *also_dropped))


def fill(headless, weights, name, rename=lambda state: state):
    """Load a weights file, or keep the random weights if ``weights`` is None."""
    if weights is not None:
        what = f"{str(weights)!r} does not fit {name!r}"
        fit_state(headless.network, rename(read_state(weights)), headless.dropped, what)
    return headless.network
