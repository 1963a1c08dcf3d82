"""What identifies a backbone: its name, weights, width and preprocessing."""

from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def same_weights(fingerprint, other):
    """Whether two fingerprints are of the same weights.

    Those of custom modules also say which code computes with the weights. Another Python compiles it
    to other code, and what cannot be digested is told apart by instance: neither is a mismatch.
    """
    return fingerprint.partition(":code=")[0] == other.partition(":code=")[0]


@dataclass(frozen=True)
class Preprocessing:
    """How an image is made ready for a network.

    Parameters
    ----------
    image_size : int
        Side of the square that the network sees, in pixels.
    resize_size : int or None
        Length of the shorter side before the centre crop, in pixels. None squashes the whole
        image into the square, which crops nothing and changes the aspect ratio.
    interpolation : {"bilinear", "bicubic"}
        How the image is resized; always with antialiasing.
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

        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(map(isfinite, values)):
                raise ValueError(f"{name} is three numbers, one for each channel; got {values}.")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std is divided by and must be positive; got {self.std}.")

    def for_size(self, image_size):
        """Return the same preprocessing for another image size.

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
        Name of the backbone, or the class of a user's custom module.
    weights : str or None
        Member name of official weights, absolute path of a weights file, ``"bundled"``, ``"custom"``
        for a user's custom module, or None for random weights.
    fingerprint : str
        Text that identifies the architecture together with its weights.
    n_features : int
        Width of the embedding.
    preprocessing : Preprocessing
        What is done to an image first.
    module : torch.nn.Module or None, default=None
        A user's custom module; it travels with the specification.
    """

    name: str
    weights: str | None
    fingerprint: str
    n_features: int
    preprocessing: Preprocessing
    module: Any = field(default=None, repr=False, compare=False)


# Both are public in `backbones`: pickles and messages name them there.
Preprocessing.__module__ = BackboneSpec.__module__ = "sktransfer.backbones"
