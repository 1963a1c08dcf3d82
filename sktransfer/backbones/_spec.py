"""What identifies a backbone: its name, weights, width and preprocessing."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from math import inf
from numbers import Integral
from typing import Any

from .._utils._sklearn import Interval, StrOptions, param_validation
from .._utils._threads import import_torch
from ..exceptions import UnknownBackboneError

#: Largest side of an image that a network sees, in pixels.
MAX_IMAGE_SIZE = 4096

#: Seed of networks with random weights.
RANDOM_SEED = 0

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_CONSTRAINTS = {
    "image_size": [Interval(Integral, 1, MAX_IMAGE_SIZE, closed="both")],
    "resize_size": [Interval(Integral, 1, 4 * MAX_IMAGE_SIZE, closed="both"), None],
    "interpolation": [StrOptions({"bilinear", "bicubic"})],
    "decoding": [StrOptions({"fast", "exact"})],
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image is prepared for a network.

    Parameters
    ----------
    image_size : int
        Side of the square that the network sees, in pixels, from 1 to 4096.
    resize_size : int or None
        Length of the shorter side before the center crop, in pixels, from 1 to 16384. None
        squashes the whole image into the square: nothing is cropped, but the aspect ratio changes.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        How the image is resized, always with antialiasing.
    mean, std : tuple of 3 floats, default=ImageNet's
        The RGB channels, on the scale from 0 to 1, are normalized to ``(x - mean) / std``.
    decoding : {"fast", "exact"}, default="fast"
        Whether a large JPEG is decoded at a fraction of its size, or all pixels are decoded.

    Raises
    ------
    ValueError
        A value is out of range.

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
    decoding: str = "fast"

    def __post_init__(self):
        param_validation.validate_parameter_constraints(_CONSTRAINTS, vars(self), "Preprocessing")
        for name, least, above in (("mean", -inf, ""), ("std", 0, " above 0")):
            given = getattr(self, name)
            try:
                values = tuple(map(float, given)) if len(given) == 3 else ()
            except (TypeError, ValueError, ArithmeticError):
                values = ()
            if not (values and all(least < value < inf for value in values)):
                raise ValueError(f"{name} must be three finite numbers{above}, got {given!r}.")

    def for_size(self, image_size: int) -> Preprocessing:
        """Return the same preprocessing for another image size.

        Parameters
        ----------
        image_size : int
            New side of the square, in pixels.

        Returns
        -------
        Preprocessing
            ``resize_size`` changes in proportion.
        """
        resized, resize_size = replace(self, image_size=image_size), self.resize_size
        if resize_size is not None:
            resize_size = max(1, round(resize_size * resized.image_size / self.image_size))
        return replace(resized, image_size=int(image_size), resize_size=resize_size)

    @property
    def min_decoded_side(self) -> int | None:
        """Shorter side that a decoded image must keep, in pixels; None if it is decoded exactly."""
        if self.decoding == "exact":
            return None
        return 2 * (self.resize_size or self.image_size)

    def key(self) -> str:
        """Identify the preprocessing.

        Returns
        -------
        str
            Equal only for equal preprocessing.
        """
        how = "squash" if self.resize_size is None else f"resize={self.resize_size}"
        mean, std = (",".join(repr(float(v)) for v in values) for values in (self.mean, self.std))
        size = f"size={self.image_size};{how};{self.interpolation};decoding={self.decoding}"
        return f"{size};mean={mean};std={std}"


@dataclass(frozen=True)
class BackboneSpec:
    """Everything that identifies a frozen backbone. It can be pickled.

    Parameters
    ----------
    name : str
        Name of the backbone, or the class of a custom module.
    weights : str or None
        Name of official weights, absolute path of a weights file, ``"bundled"``, ``"packaged"``
        (extra ``imagenet``), ``"pretrained"`` (timm), ``"custom"``, or None for random weights.
    fingerprint : str
        Identifies the architecture together with its weights.
    n_features : int
        Width of the embedding.
    preprocessing : Preprocessing
        How images are prepared.
    module : torch.nn.Module or None, default=None
        The custom module.
    pooling : {"auto", "cls", "mean", "cls+mean"}, default="auto"
        How tokens become an embedding. ``"auto"`` is what the network itself does.
    license : str or None, default=None
        License of the weights, such as ``"apache-2.0"``; None if it is unknown, and for files,
        random weights and custom modules.
    """

    name: str
    weights: str | None
    fingerprint: str
    n_features: int
    preprocessing: Preprocessing
    module: Any = field(default=None, repr=False, compare=False)
    pooling: str = "auto"
    license: str | None = None


# Pickles and error messages name both by their public home.
Preprocessing.__module__ = BackboneSpec.__module__ = "sktransfer.backbones"


def same_weights(fingerprint, other):
    """Tell whether two fingerprints stand for the same weights.

    What a custom module computes with its weights is not compared: its last digits differ between
    machines.
    """
    return fingerprint.partition(":code=")[0] == other.partition(":code=")[0]


def pooling_key(pooling):
    """Return what the sources append to the fingerprint."""
    return "" if pooling == "auto" else f":pooling={pooling}"


def random_fingerprint(family, name):
    """Return the fingerprint of random weights; the library versions decide what is drawn."""
    torch = import_torch()
    import torchvision

    versions = f"torch={torch.__version__}:torchvision={torchvision.__version__}"
    return f"{family}:{name}:random:seed={RANDOM_SEED}:{versions}"


def check_smallest(name, image_size, smallest):
    if image_size < smallest:
        raise ValueError(
            f"{name!r} needs images of at least {smallest} pixels, got image_size={image_size}."
        )


def check_patches(name, image_size, patch_size):
    """Refuse images that patches do not cover without a rest."""
    if image_size % patch_size:
        lower = image_size // patch_size * patch_size
        sizes = [str(size) for size in (lower, lower + patch_size) if size]
        raise ValueError(
            f"{name!r} cuts images into patches of {patch_size} pixels, got "
            f"image_size={image_size}.\nHint: pass a multiple: {' or '.join(sizes)}."
        )


def unknown_backbone(name, candidates):
    """Return the error for an unknown name, with the most similar names."""
    full_names = {}
    for candidate in candidates:
        full_names.setdefault(candidate.rpartition(":")[2], candidate)
    short = name.rpartition(":")[2].lower()
    similar = difflib.get_close_matches(short, full_names, n=3)
    if len(short) > 2:
        similar += sorted((known for known in full_names if short in known), key=len)
    similar = [repr(full_names[known]) for known in dict.fromkeys(similar)]
    suggestion = f"\nDid you mean {' or '.join(similar[:3])}?" if similar else ""
    return UnknownBackboneError(
        f"There is no backbone named {name!r}.{suggestion}\n"
        "Hint: sktransfer.list_backbones() lists all names. Networks of timm are named "
        "'timm:NAME'. You can also pass a torch.nn.Module."
    )
