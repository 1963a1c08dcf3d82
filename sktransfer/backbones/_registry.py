"""Backbones: which networks there are, their weights, preprocessing and width; loading them."""

import fnmatch
import os
import threading
from collections import OrderedDict, defaultdict

from torch import nn

from .._utils._warnings import warn_user
from ..exceptions import FingerprintMismatchError, RandomWeightsWarning
from . import _networks
from ._custom import frozen_copy, module_fingerprint, resolve_module
from ._named import TIMM, load_named, named_fingerprint, resolve_named
from ._spec import BackboneSpec, Preprocessing, same_weights
from ._stages import backbone_stages, split_backbone

__all__ = [
    "BackboneSpec",
    "Preprocessing",
    "backbone_stages",
    "list_backbones",
    "load_backbone",
    "resolve_backbone",
    "split_backbone",
    "warn_if_random",
]


# ------------------------------------------------------------------------------------ listing


def list_backbones(filter=None):
    """List the names of the backbones that can be used here.

    Parameters
    ----------
    filter : str or None, default=None
        A part of the name, or a pattern with ``*`` and ``?``. None lists all.

    Returns
    -------
    list of str
        The bundled ones first, then torchvision's, then timm's (as ``"timm:NAME"``, only when
        timm is installed).

    Examples
    --------
    >>> from sktransfer.backbones import list_backbones
    >>> list_backbones("tiny_*")
    ['tiny_mobilenet', 'tiny_resnet']
    >>> list_backbones("vgg1?")
    ['vgg11', 'vgg13', 'vgg16', 'vgg19']
    """
    names = [*_networks.BUNDLED_WIDTHS, *_networks.torchvision_names()]
    if _networks.has_timm():
        names += [TIMM + name for name in _networks.import_timm().list_models()]
    if filter is None:
        return names
    if any(sign in filter for sign in "*?["):
        return fnmatch.filter(names, filter)
    return [name for name in names if filter in name]


# ---------------------------------------------------------------------------------- resolving


def resolve_backbone(backbone, weights="DEFAULT", image_size=None):
    """Check a choice of backbone, weights and image size, without loading anything.

    Parameters
    ----------
    backbone : str or torch.nn.Module
        A name of :func:`list_backbones`, or a custom module that maps float32 images
        (n, 3, height, width) to embeddings (n, n_features). A custom module may have an attribute
        ``preprocessing`` (:class:`Preprocessing`); otherwise its images are resized to 256 and
        cropped to 224 pixels and normalised with ImageNet's mean and standard deviation.
    weights : str, path or None, default="DEFAULT"
        ``"DEFAULT"`` for the best official weights, the name of other official ones
        (``"IMAGENET1K_V1"``; for timm the tag), the path of a ``.pth``, ``.pt`` or
        ``.safetensors`` file, or None for random ones.
    image_size : int or None, default=None
        Side of the images in pixels; None for the size that goes with the weights.

    Returns
    -------
    BackboneSpec

    Raises
    ------
    UnknownBackboneError
        No backbone has that name.
    MissingExtraError
        A timm name, and timm is not installed.
    WeightsError
        No such weights, or a weights file that cannot be read.
    ValueError
        The network cannot take images of ``image_size``.

    Examples
    --------
    >>> from sktransfer.backbones import resolve_backbone
    >>> spec = resolve_backbone("mobilenet_v2", weights="IMAGENET1K_V1")
    >>> spec.n_features
    1280
    >>> spec.fingerprint
    'torchvision:mobilenet_v2:IMAGENET1K_V1:b0353104'
    """
    _check_image_size(image_size)
    if isinstance(backbone, nn.Module):
        return resolve_module(backbone, weights, image_size)
    if not isinstance(backbone, str):
        raise TypeError(
            "A backbone is a name or a torch.nn.Module, got "
            f"{backbone if isinstance(backbone, type) else type(backbone)}."
        )
    return resolve_named(backbone, weights, image_size)


def _check_image_size(image_size):
    whole = isinstance(image_size, int) or hasattr(image_size, "__index__")
    if image_size is not None and (isinstance(image_size, bool) or not whole or image_size < 1):
        raise ValueError(
            f"image_size is a number of pixels (int >= 1) or None, got {image_size!r}."
        )


# ------------------------------------------------------------------------------------ loading


class _SharedNetworks:
    """Loaded networks, shared by all threads of a process; the least recently used goes first."""

    def __init__(self, most=8, most_bytes=2 << 30):
        self.most, self.most_bytes = most, most_bytes
        self.reset_locks()
        self._networks = OrderedDict()

    def reset_locks(self):
        """Start with free locks; a forked child may have copied them while they were held."""
        self._lock = threading.Lock()
        self._loading = defaultdict(threading.Lock)

    def get(self, key, load):
        """Return the network of ``key``; one thread loads it while the others wait."""
        with self._lock:
            loading = self._loading[key]
        with loading:
            with self._lock:
                if key in self._networks:
                    self._networks.move_to_end(key)
                    return self._networks[key][0]
            network = load()
            with self._lock:
                self._networks[key] = network, _n_bytes(network)
                self._evict()
            return network

    def _evict(self):
        while len(self._networks) > 1 and (
            len(self._networks) > self.most
            or sum(size for _, size in self._networks.values()) > self.most_bytes
        ):
            self._networks.popitem(last=False)

    def clear(self):
        """Forget all networks."""
        with self._lock:
            self._networks.clear()


_shared = _SharedNetworks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_shared.reset_locks)


def _n_bytes(network):
    tensors = [*network.parameters(), *network.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def warn_if_random(spec):
    """Warn when the weights of a specification are random.

    Parameters
    ----------
    spec : BackboneSpec
        As :func:`resolve_backbone` returns it.

    Warns
    -----
    RandomWeightsWarning
    """
    if spec.weights is None:
        warn_user(
            f"{spec.name!r} has random weights (weights=None); its embeddings say little about "
            'the images. Hint: weights="DEFAULT" takes pretrained ones.',
            RandomWeightsWarning,
        )


def load_backbone(spec, *, warn=True):
    """Return the frozen network of a specification, loading it once per process.

    Parameters
    ----------
    spec : BackboneSpec
        As :func:`resolve_backbone` returns it.
    warn : bool, default=True
        False for a caller that has warned of random weights already.

    Returns
    -------
    torch.nn.Module
        On the CPU, float32, in evaluation mode, without gradients and without its classifying
        layer: images (n, 3, size, size) give embeddings (n, ``spec.n_features``). It is shared
        by the whole process: copy it before changing it.

    Raises
    ------
    WeightsError
        The weights cannot be downloaded or read, or do not fit the network.
    FingerprintMismatchError
        The weights are not those of the specification.

    Warns
    -----
    RandomWeightsWarning
        The weights are random; every time, not only at the first load.
    """
    if warn:
        warn_if_random(spec)
    _check_fingerprint(spec)
    key = (spec.fingerprint, spec.name)
    return _shared.get(key, lambda: _load(spec).float().eval().requires_grad_(False))


def _load(spec):
    return load_named(spec) if spec.module is None else frozen_copy(spec.module)


def _check_fingerprint(spec):
    expected = spec.fingerprint
    own = spec.module is not None
    found = module_fingerprint(spec.module) if own else named_fingerprint(spec)
    if not same_weights(found, expected):
        raise FingerprintMismatchError(
            f"The weights of {spec.name!r} are not those with which the estimator was fitted.\n"
            f"  expected: {expected}\n  found:    {found}\n"
            "Hint: bring back the expected weights or versions, or fit again."
        )
