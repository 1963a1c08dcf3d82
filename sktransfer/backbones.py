"""Backbones: which networks there are, their weights, preprocessing and width; loading them."""

import copy
import difflib
import fnmatch
import hashlib
import os
import re
import threading
import warnings
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import safe_open
from torch import nn

from . import _networks
from ._backbone_widths import TORCHVISION_WIDTHS
from ._stages import backbone_stages, split_backbone
from ._weights import SUFFIXES, file_digest, official_digest, official_file
from .exceptions import (
    FingerprintMismatchError,
    RandomWeightsWarning,
    UnknownBackboneError,
    WeightsError,
)

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

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BUNDLED_FOLDER = Path(__file__).parent / "weights"
_BUNDLED_MIN_SIZE = 32
_TIMM = "timm:"
_LIBRARIES = ("torch", "torchvision", "timm")


# ------------------------------------------------------------------------------ specifications


@dataclass(frozen=True)
class Preprocessing:
    """How a picture is made ready for a network.

    Parameters
    ----------
    image_size : int
        Side of the square that the network sees, in pixels.
    resize_size : int or None
        Length of the shorter side before the centre crop, in pixels. None squashes the whole
        picture into the square, which crops nothing and changes the aspect ratio.
    interpolation : {"bilinear", "bicubic"}
        How the picture is resized; always with antialiasing.
    mean, std : tuple of 3 floats
        Subtracted from and divided into the RGB channels, on the scale from 0 to 1.

    Examples
    --------
    >>> from sktransfer.backbones import resolve_backbone
    >>> preprocessing = resolve_backbone("resnet50").preprocessing
    >>> preprocessing.resize_size, preprocessing.image_size
    (232, 224)
    >>> preprocessing.for_size(112).resize_size
    116
    """

    image_size: int
    resize_size: int | None
    interpolation: str = "bilinear"
    mean: tuple = _IMAGENET_MEAN
    std: tuple = _IMAGENET_STD

    def __post_init__(self):
        if self.image_size < 1 or (self.resize_size is not None and self.resize_size < 1):
            raise ValueError(
                "image_size and resize_size are numbers of pixels, at least 1; got "
                f"{self.image_size} and {self.resize_size}."
            )
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(
                f'interpolation is "bilinear" or "bicubic", got {self.interpolation!r}.'
            )

    def for_size(self, image_size):
        """Return the same preprocessing for another picture size.

        Parameters
        ----------
        image_size : int
            New side of the square, in pixels.

        Returns
        -------
        Preprocessing
            With ``resize_size`` changed in proportion and rounded.
        """
        resize_size = self.resize_size
        if resize_size is not None:
            resize_size = round(resize_size * image_size / self.image_size)
        return replace(self, image_size=int(image_size), resize_size=resize_size)

    def key(self):
        """Return a text that is equal exactly for equal preprocessing.

        Returns
        -------
        str
        """
        how = "squash" if self.resize_size is None else f"resize={self.resize_size}"
        mean, std = (",".join(repr(float(v)) for v in values) for values in (self.mean, self.std))
        return f"size={self.image_size};{how};{self.interpolation};mean={mean};std={std}"


@dataclass(frozen=True)
class BackboneSpec:
    """Everything that identifies a frozen backbone; small and picklable.

    Parameters
    ----------
    name : str
        Name of the backbone, or the class of a user's own module.
    weights : str or None
        Member name of official weights, absolute path of a weights file, ``"bundled"``, ``"own"``
        for a user's own module, or None for random weights.
    fingerprint : str
        Text that identifies the architecture together with its weights.
    n_features : int
        Width of the embedding.
    preprocessing : Preprocessing
        What is done to a picture first.
    module : torch.nn.Module or None, default=None
        A user's own module; it travels with the specification.
    """

    name: str
    weights: str | None
    fingerprint: str
    n_features: int
    preprocessing: Preprocessing
    module: Any = field(default=None, repr=False, compare=False)


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
        names += [_TIMM + name for name in _networks.import_timm().list_models()]
    if filter is None:
        return names
    if any(sign in filter for sign in "*?["):
        return fnmatch.filter(names, filter)
    return [name for name in names if filter in name]


def _unknown(name, candidates):
    close = difflib.get_close_matches(name, candidates, n=3)
    hint = "Hint: sktransfer.backbones.list_backbones() lists them all"
    if close:
        hint = "Did you mean " + " or ".join(repr(c) for c in close) + "?\n" + hint
    return UnknownBackboneError(
        f"There is no backbone named {name!r}.\n{hint}; timm's are written 'timm:NAME', and "
        "an own torch.nn.Module can be passed instead of a name."
    )


# ---------------------------------------------------------------------------------- resolving


def resolve_backbone(backbone, weights="DEFAULT", image_size=None):
    """Check a choice of backbone, weights and picture size, without loading anything.

    Parameters
    ----------
    backbone : str or torch.nn.Module
        A name of :func:`list_backbones`, or an own module that maps float32 pictures
        (n, 3, height, width) to embeddings (n, n_features). An own module may have an attribute
        ``preprocessing`` (:class:`Preprocessing`); otherwise its pictures are resized to 256 and
        cropped to 224 pixels and normalised with ImageNet's mean and standard deviation.
    weights : str, path or None, default="DEFAULT"
        ``"DEFAULT"`` for the best official weights, the name of other official ones
        (``"IMAGENET1K_V1"``; for timm the tag), the path of a ``.pth``, ``.pt`` or
        ``.safetensors`` file, or None for random ones.
    image_size : int or None, default=None
        Side of the pictures in pixels; None for the size that goes with the weights.

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
        The network cannot take pictures of ``image_size``.

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
        return _resolve_module(backbone, weights, image_size)
    if not isinstance(backbone, str):
        raise TypeError(
            "A backbone is a name or a torch.nn.Module, got "
            f"{backbone if isinstance(backbone, type) else type(backbone)}."
        )
    if backbone in _networks.BUNDLED_WIDTHS:
        return _resolve_bundled(backbone, _read_choice(weights), image_size)
    if backbone.startswith(_TIMM):
        return _resolve_timm(backbone, _read_choice(weights), image_size)
    if backbone in TORCHVISION_WIDTHS:
        return _resolve_torchvision(backbone, _read_choice(weights), image_size)
    raise _unknown(backbone, [*_networks.BUNDLED_WIDTHS, *_networks.torchvision_names()])


def _check_image_size(image_size):
    whole = isinstance(image_size, int) or hasattr(image_size, "__index__")
    if image_size is not None and (isinstance(image_size, bool) or not whole or image_size < 1):
        raise ValueError(
            f"image_size is a number of pixels (int >= 1) or None, got {image_size!r}."
        )


def _read_choice(weights):
    """Read `weights` as None, a member name, or the absolute path of a file as a Path."""
    if weights is None:
        return None
    if isinstance(weights, torchvision.models.WeightsEnum):
        return weights.name
    if isinstance(weights, os.PathLike) or (
        isinstance(weights, str) and (weights.endswith(SUFFIXES) or os.sep in weights)
    ):
        path = Path(os.path.abspath(os.path.expanduser(weights)))
        if path.suffix not in SUFFIXES:
            raise WeightsError(
                f"A weights file ends in {', '.join(SUFFIXES)}; got {str(weights)!r}."
            )
        return path
    if isinstance(weights, str):
        return weights
    raise TypeError(
        'weights is "DEFAULT", the name of official weights, the path of a weights file or None; '
        f"got {type(weights)}."
    )


def _random_fingerprint(family, name):
    versions = f"torch={torch.__version__}:torchvision={torchvision.__version__}"
    return f"{family}:{name}:random:seed={_networks.RANDOM_SEED}:{versions}"


def _check_smallest(name, image_size, smallest):
    if image_size < smallest:
        raise ValueError(
            f"{name!r} needs pictures of at least {smallest} pixels; got image_size={image_size}."
        )


# -------------------------------------------------------------------------------- torchvision


def _resolve_torchvision(name, weights, image_size):
    member = _torchvision_member(name, "DEFAULT" if isinstance(weights, Path) else weights)
    preprocessing = _torchvision_preprocessing(member)
    official = isinstance(weights, str)
    if image_size is not None and image_size != preprocessing.image_size:
        _check_torchvision_size(name, image_size, member, official)
        preprocessing = preprocessing.for_size(image_size)
    return BackboneSpec(
        name,
        member.name if official else weights and str(weights),
        _torchvision_fingerprint(name, weights, preprocessing.image_size),
        TORCHVISION_WIDTHS[name],
        preprocessing,
    )


def _torchvision_member(name, weights):
    members = torchvision.models.get_model_weights(name)
    if weights is None or weights == "DEFAULT":
        return members.DEFAULT
    offered = [member.name for member in members]
    if weights == "IMAGENET1K_FEATURES":
        raise WeightsError(
            f"The weights {weights!r} of {name!r} have no classifier layers, which the embedding "
            f"needs.\nHint: choose one of {[n for n in offered if n != weights]}."
        )
    if weights not in offered:
        raise WeightsError(
            f"There are no official weights {weights!r} for {name!r}; there are {offered}.\n"
            f"Hint: a weights file of your own ends in {', '.join(SUFFIXES)}."
        )
    return members[weights]


def _torchvision_preprocessing(member):
    preset = member.transforms()
    return Preprocessing(
        preset.crop_size[0],
        preset.resize_size[0],
        preset.interpolation.value,
        tuple(preset.mean),
        tuple(preset.std),
    )


def _check_torchvision_size(name, image_size, member, official):
    if name in _networks.FIXED_SIZE and (official or name == "maxvit_t"):
        raise ValueError(
            f"{name!r} with the weights {member.name} takes pictures of "
            f"{member.meta['min_size'][0]} pixels only; got image_size={image_size}.\n"
            "Hint: leave image_size at None, choose other official weights, or take a "
            "convolutional network."
        )
    if name not in _networks.FIXED_SIZE:
        _check_smallest(name, image_size, max(member.meta["min_size"]))


def _torchvision_fingerprint(name, weights, image_size):
    if isinstance(weights, str):
        member = _torchvision_member(name, weights)
        return f"torchvision:{name}:{member.name}:{official_digest(member.url)}"
    built_for = f":built_for={image_size}" if name in _networks.FIXED_SIZE else ""
    if weights is None:
        return _random_fingerprint("torchvision", name) + built_for
    return f"torchvision:{name}:sha256={file_digest(weights)}{built_for}"


def _load_torchvision(spec):
    weights = spec.weights
    if weights is not None and not os.path.isabs(weights):
        weights = official_file(_torchvision_member(spec.name, weights).url, repr(spec.name))
    return _networks.build_torchvision(spec.name, spec.preprocessing.image_size, weights)


# ------------------------------------------------------------------------------------ bundled


def _resolve_bundled(name, weights, image_size):
    if isinstance(weights, str) and weights != "DEFAULT":
        raise WeightsError(
            f'The bundled {name!r} has one set of weights, "DEFAULT"; got {weights!r}.'
        )
    preprocessing = _bundled_preprocessing(weights if isinstance(weights, Path) else _own(name))
    if image_size is not None:
        _check_smallest(name, image_size, _BUNDLED_MIN_SIZE)
        preprocessing = preprocessing.for_size(image_size)
    return BackboneSpec(
        name,
        "bundled" if weights == "DEFAULT" else weights and str(weights),
        _bundled_fingerprint(name, weights),
        _networks.BUNDLED_WIDTHS[name],
        preprocessing,
    )


def _own(name):
    return _BUNDLED_FOLDER / f"{name}.safetensors"


def _bundled_preprocessing(file):
    """Read the preprocessing from the header of the weights file; it belongs to the weights."""
    file_digest(file)  # a missing file is reported as such
    header = {}
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
    numbers = {
        key: tuple(float(v) for v in re.findall(r"[\d.]+", header[key]))
        for key in ("mean", "std")
        if key in header
    }
    return Preprocessing(
        int(header.get("image_size", 128)),
        int(header["resize_size"]) if header.get("resize_size") else None,
        header.get("interpolation", "bilinear"),
        **numbers,
    )


def _bundled_fingerprint(name, weights):
    family = f"sktransfer:{_networks.BUNDLED_WIDTHS[name]}"
    if weights is None:
        return _random_fingerprint(family, name)
    file = weights if isinstance(weights, Path) else _own(name)
    return f"{family}:{name}:sha256={file_digest(file)}"


def _load_bundled(spec):
    weights = _own(spec.name) if spec.weights == "bundled" else spec.weights
    return _networks.build_bundled(spec.name, weights)


# --------------------------------------------------------------------------------------- timm


def _resolve_timm(name, weights, image_size):
    architecture = _timm_architecture(name, weights)
    preprocessing = _timm_preprocessing(architecture, image_size)
    official = isinstance(weights, str)
    return BackboneSpec(
        _TIMM + architecture,
        "pretrained" if official else weights and str(weights),
        _timm_fingerprint(architecture, "pretrained" if official else weights),
        _networks.timm_width(architecture),
        preprocessing,
    )


def _timm_architecture(name, weights):
    """Check name and tag, and return ``architecture[.tag]`` as timm takes it."""
    timm = _networks.import_timm()
    base, _, tag = name.removeprefix(_TIMM).partition(".")
    if _networks.timm_configuration(base) is None:
        raise _unknown(name, [_TIMM + known for known in timm.list_models()])
    tags = [full.partition(".")[2] for full in timm.list_models(base, pretrained=True)]
    if isinstance(weights, str):
        tag = tag if weights == "DEFAULT" else weights
        if not tags or (tag and tag not in tags):
            raise WeightsError(
                f"timm has no pretrained weights {tag or 'DEFAULT'!r} for {base!r}; it has "
                f"{tags or 'none at all'}.\nHint: pass a weights file, or None for random weights."
            )
    return f"{base}.{tag}" if tag else base


def _timm_preprocessing(architecture, image_size):
    data = _networks.timm_data(architecture)
    channels, height, width = data["input_size"]
    if channels != 3 or height != width or data["crop_mode"] not in ("center", "squash"):
        raise ValueError(
            f"'timm:{architecture}' takes pictures of {data['input_size']} (channels, height, "
            f"width) with crop_mode={data['crop_mode']!r}; only square RGB ones with "
            "'center' or 'squash' are supported."
        )
    size = height if image_size is None else int(image_size)
    configuration = _networks.timm_configuration(architecture)
    if size != height and configuration.fixed_input_size:
        raise ValueError(
            f"'timm:{architecture}' takes pictures of {height} pixels only; got "
            f"image_size={image_size}.\nHint: leave image_size at None, or take a convolutional "
            "network."
        )
    if configuration.min_input_size:
        _check_smallest(_TIMM + architecture, size, max(configuration.min_input_size[1:]))
    squash = data["crop_mode"] == "squash"
    return Preprocessing(
        size,
        None if squash else _networks.timm_resize_size(size, data["crop_pct"]),
        data["interpolation"],
        tuple(data["mean"]),
        tuple(data["std"]),
    )


def _timm_fingerprint(architecture, weights):
    version = f"timm={_networks.import_timm().__version__}"
    if weights is None:
        return f"{_random_fingerprint('timm', architecture)}:{version}"
    if weights != "pretrained":
        return f"timm:{architecture}:sha256={file_digest(weights)}"
    configuration = _networks.timm_configuration(architecture)
    source = configuration.hf_hub_id or configuration.url
    return f"timm:{architecture}:{source}:{version}"


def _load_timm(spec):
    name = spec.name.removeprefix(_TIMM)
    if spec.weights == "pretrained":
        return _networks.build_pretrained_timm(name)
    return _networks.build_timm(name, spec.weights)


# --------------------------------------------------------------------------------- own modules


def _resolve_module(module, weights, image_size):
    if weights != "DEFAULT":
        raise ValueError(
            "weights belongs to backbones given by name; an own module brings its weights along. "
            f"Got weights={weights!r}.\nHint: leave it out, and load them into the module first."
        )
    preprocessing = getattr(module, "preprocessing", None) or Preprocessing(224, 256)
    if not isinstance(preprocessing, Preprocessing):
        raise TypeError(
            "The attribute `preprocessing` of an own module is a "
            f"sktransfer.backbones.Preprocessing; got {type(preprocessing)}."
        )
    if image_size is not None:
        preprocessing = preprocessing.for_size(image_size)
    return BackboneSpec(
        type(module).__qualname__,
        "own",
        _module_fingerprint(module),
        _probe_width(module, preprocessing.image_size),
        preprocessing,
        module,
    )


def _module_fingerprint(module):
    """Digest of the structure, the settings, the code and the tensors of an own module."""
    digest = hashlib.sha256(repr(module).encode())
    for path, part in module.named_modules():
        digest.update(f"\n{path} {type(part).__module__}.{type(part).__qualname__}".encode())
        digest.update(_settings(part).encode())
    for name, tensor in module.state_dict().items():
        if torch.is_tensor(tensor):
            digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy())
    return f"own:{type(module).__qualname__}:sha256={digest.hexdigest()}:code={_code(module)}"


def _code(module):
    """Digest of the compiled `forward` of every class that is not a library's."""
    digest = hashlib.sha256()
    for kind in dict.fromkeys(type(part) for part in module.modules()):
        code = getattr(kind.forward, "__code__", None)
        if code is not None and kind.__module__.partition(".")[0] not in _LIBRARIES:
            digest.update(code.co_code + repr((code.co_names, code.co_varnames)).encode())
            constants = [value for value in code.co_consts if not hasattr(value, "co_code")]
            digest.update(repr(constants).encode())
    return digest.hexdigest()[:16]


def _settings(part):
    """Plain attributes of one module (``self.scale = 2``), which its repr need not show."""
    plain = {
        name: value
        for name, value in vars(part).items()
        if not name.startswith("_")
        and name != "training"
        and isinstance(value, (bool, int, float, str, tuple))
    }
    return repr(sorted(plain.items()))


def _frozen_copy(module):
    """Copy a module to float32 on the CPU, frozen; the user's own stays as it is."""
    return _freeze(copy.deepcopy(module).cpu())


def _probe_width(module, image_size):
    """Run one black picture to learn the width of the embedding."""
    with torch.inference_mode():
        output = _frozen_copy(module)(torch.zeros(1, 3, image_size, image_size))
    if not torch.is_tensor(output) or output.ndim != 2 or len(output) != 1:
        got = tuple(output.shape) if torch.is_tensor(output) else type(output)
        raise ValueError(
            "An own module maps pictures (n, 3, height, width) to embeddings (n, n_features); for "
            f"one picture of {image_size} pixels {type(module).__qualname__} gave {got}.\n"
            "Hint: end it with torch.nn.Flatten(), or with a pooling layer and torch.nn.Flatten()."
        )
    return output.shape[1]


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


def _freeze(network):
    return network.float().eval().requires_grad_(False)


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
        warnings.warn(
            f"{spec.name!r} has random weights (weights=None); its embeddings say little about "
            'the pictures. Hint: weights="DEFAULT" takes pretrained ones.',
            RandomWeightsWarning,
            stacklevel=3,
        )


def load_backbone(spec):
    """Return the frozen network of a specification, loading it once per process.

    Parameters
    ----------
    spec : BackboneSpec
        As :func:`resolve_backbone` returns it.

    Returns
    -------
    torch.nn.Module
        On the CPU, float32, in evaluation mode, without gradients and without its classifying
        layer: pictures (n, 3, size, size) give embeddings (n, ``spec.n_features``). It is shared
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
    warn_if_random(spec)
    _check_fingerprint(spec)
    key = (spec.fingerprint, spec.name)
    return _shared.get(key, lambda: _freeze(_load(spec)))


def _load(spec):
    if spec.module is not None:
        return _frozen_copy(spec.module)
    if spec.name in _networks.BUNDLED_WIDTHS:
        return _load_bundled(spec)
    return _load_timm(spec) if spec.name.startswith(_TIMM) else _load_torchvision(spec)


def _check_fingerprint(spec):
    found, expected = _current_fingerprint(spec), spec.fingerprint
    if spec.module is not None:
        # Another Python compiles the same forward to other code; the weights are what must agree.
        found, expected = (text.partition(":code=")[0] for text in (found, expected))
    if found != expected:
        raise FingerprintMismatchError(
            f"The weights of {spec.name!r} are not those with which the estimator was fitted.\n"
            f"  expected: {expected}\n  found:    {found}\n"
            "Hint: bring back the expected weights or versions, or fit again."
        )


def _current_fingerprint(spec):
    """Compute the fingerprint of a specification anew, from what is there now."""
    if spec.module is not None:
        return _module_fingerprint(spec.module)
    weights = spec.weights
    if weights is not None and os.path.isabs(weights):
        weights = Path(weights)
    if spec.name in _networks.BUNDLED_WIDTHS:
        return _bundled_fingerprint(spec.name, weights)
    if spec.name.startswith(_TIMM):
        return _timm_fingerprint(spec.name.removeprefix(_TIMM), weights)
    return _torchvision_fingerprint(spec.name, weights, spec.preprocessing.image_size)
