"""Loading networks, once per process."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from .._utils._fork import IMPORTING
from .._utils._lru import LRU
from .._utils._threads import import_torch, usable_kernels
from .._utils._warnings import warn_user
from ..exceptions import FingerprintMismatchError, RandomWeightsWarning
from ._registry import source_of
from ._spec import BackboneSpec, same_weights
from ._weights import check_finite

if TYPE_CHECKING:
    import torch

#: Loaded networks and the state of their tensors at that time.
_networks = LRU(
    max_items=8,
    max_bytes=2 << 30,
    size_of=lambda loaded: sum(tensor.nbytes for tensor in loaded[0].state_dict().values()),
)


def load_backbone(spec: BackboneSpec) -> torch.nn.Module:
    """Return the frozen network of a specification.

    The file is read once per process.

    Parameters
    ----------
    spec : BackboneSpec
        As :func:`resolve_backbone` returns it.

    Returns
    -------
    torch.nn.Module
        A copy for you to change: on the CPU, float32, in evaluation mode, without gradients and
        without its classifying layer. It maps images (n, 3, size, size) to embeddings
        (n, ``spec.n_features``).

    Raises
    ------
    WeightsError
        The weights cannot be downloaded or read, contain NaN or infinity, or do not fit the
        network.
    FingerprintMismatchError
        The weights are not those of the specification.
    TypeError
        ``spec`` is something else.

    Warns
    -----
    RandomWeightsWarning
        The weights are random.

    Examples
    --------
    >>> import torch
    >>> from sktransfer.backbones import load_backbone, resolve_backbone
    >>> network = load_backbone(resolve_backbone("tiny_mobilenet"))
    >>> network(torch.zeros(2, 3, 160, 160)).shape
    torch.Size([2, 576])
    """
    if not isinstance(spec, BackboneSpec):
        raise TypeError(f"spec is {spec!r}; expected what resolve_backbone returns.")
    warn_if_random(spec)
    with usable_kernels():
        return copy.deepcopy(shared_network(spec))


def warn_if_random(spec):
    """Warn if the weights of a specification are random."""
    if spec.weights is None:
        warn_user(
            f"{spec.name!r} has random weights (weights=None); its embeddings say little about "
            'the images. Pass weights="DEFAULT" for pretrained weights.',
            RandomWeightsWarning,
        )


def shared_network(spec):
    """Return the network that the whole process shares; a changed one is refused."""
    with IMPORTING:
        from .._utils._changes import tensors_state
    _check_fingerprint(spec)
    network, state = _networks.get((spec.fingerprint, spec.name), lambda: _load(spec))
    if tensors_state(network) != state:
        _networks.clear()
        raise FingerprintMismatchError(
            f"The shared network of {spec.name!r} was changed after it was loaded, so its "
            "embeddings would be wrong.\nHint: change only the copies that "
            "sktransfer.backbones.load_backbone returns. Call again to reload it."
        )
    return network


def _load(spec):
    torch = import_torch()
    with IMPORTING:
        from .._utils._changes import tensors_state

    with torch.inference_mode(False), usable_kernels():
        network = source_of(spec).load(spec).float().eval().requires_grad_(False)
        check_finite(network, spec.name)
    _check_fingerprint(spec)  # it was not replaced while it was being read
    return network, tensors_state(network)


def _check_fingerprint(spec):
    expected, found = spec.fingerprint, source_of(spec).fingerprint(spec)
    if not same_weights(found, expected):
        raise FingerprintMismatchError(
            f"The weights of {spec.name!r} are not the expected ones.\n"
            f"  expected: {expected}\n  found:    {found}\n"
            "Hint: restore the expected weights or library versions, or fit again."
        )
