"""Every error and warning that a user may want to catch."""

from collections.abc import Iterable
from typing import NamedTuple

from ._utils._files import printable

__all__ = [
    "CacheWarning",
    "FingerprintMismatchError",
    "ImageProblem",
    "ImageReadError",
    "ImageReadWarning",
    "MissingExtraError",
    "RandomWeightsWarning",
    "SktransferError",
    "SmallValidationWarning",
    "TrainingDivergedError",
    "UnknownBackboneError",
    "UnreadableImageError",
    "WeightsError",
]


class SktransferError(Exception):
    """Base class of all errors that only this package raises."""


class UnreadableImageError(SktransferError, ValueError):
    """One image cannot be read; the message is the reason."""


class ImageProblem(NamedTuple):
    """One image that could not be read.

    Parameters
    ----------
    index : int
        Row of the image in ``X``, counted from 0.
    path : str or None
        The path as it was given, None for an image given as bytes or pixels.
    reason : str
        Why it could not be read.
    """

    index: int
    path: str | None
    reason: str


class ImageReadError(SktransferError, ValueError):
    """Some images could not be read.

    Parameters
    ----------
    errors : list of ImageProblem
        Every image that failed, in the order of ``X``.
    advice : str
        What to do next; ends the message. Both are attributes.
    """

    #: How many images the message lists; it only counts the others.
    LISTED = 20

    def __init__(self, errors: Iterable, advice: str) -> None:
        self.errors, self.advice = [ImageProblem(*error) for error in errors], advice
        super().__init__(self.errors, advice)

    def __str__(self):
        lines = [f"{len(self.errors)} image(s) could not be read:"]
        for index, path, reason in self.errors[: self.LISTED]:
            lines.append(f"  [{index}] {printable(path) or '(given in memory)'}: {reason}")
        if (n_others := len(self.errors) - self.LISTED) > 0:
            lines.append(f"  ... and {n_others} more in the `errors` attribute")
        return "\n".join([*lines, f"Hint: {self.advice}"])


class ImageReadWarning(UserWarning):
    """Some images could not be read and their rows are NaN (``on_error="nan"``)."""


class UnknownBackboneError(SktransferError, ValueError):
    """No backbone has the given name."""


class WeightsError(SktransferError, RuntimeError):
    """Pretrained weights are unavailable, damaged or do not fit the network."""


class FingerprintMismatchError(WeightsError):
    """The weights found are not those that an estimator was fitted with."""


class MissingExtraError(SktransferError, ImportError):
    """An optional dependency is not installed; the message names the extra that installs it."""


class RandomWeightsWarning(UserWarning):
    """A backbone has random weights because of ``weights=None``."""


class CacheWarning(UserWarning):
    """The cache of embeddings cannot be used as requested; results are correct but slower."""


class SmallValidationWarning(UserWarning):
    """Early stopping judges by so few validation samples that its choice depends on chance."""


class TrainingDivergedError(SktransferError, ValueError):
    """The training loss is NaN or infinite; the message names the learning rate."""
