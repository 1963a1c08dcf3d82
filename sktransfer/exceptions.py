"""Every error and warning that a user of sktransfer may want to catch."""

from typing import NamedTuple

__all__ = [
    "CacheWarning",
    "FingerprintMismatchError",
    "ImageProblem",
    "ImageReadError",
    "ImageReadWarning",
    "MissingExtraError",
    "RandomWeightsWarning",
    "SktransferError",
    "TrainingDivergedError",
    "UnknownBackboneError",
    "UnreadableImageError",
    "WeightsError",
]


class SktransferError(Exception):
    """Base of every error that sktransfer raises on its own account."""


class UnreadableImageError(SktransferError, ValueError):
    """One image cannot be read; the message is the reason."""


class ImageProblem(NamedTuple):
    """One image that could not be read.

    Parameters
    ----------
    position : int
        Row of the image in ``X``, counted from 0.
    path : str or None
        The path that was given, or None for an image that was given as bytes or pixels.
    reason : str
        Why it could not be read.
    """

    position: int
    path: str | None
    reason: str


class ImageReadError(SktransferError, ValueError):
    """Some images could not be read.

    Parameters
    ----------
    errors : list of ImageProblem
        Every image that failed, in the order of ``X``.
    hint : str, optional
        What became of the others and what to do next, for the end of the message. That of
        :class:`~sktransfer.ImageEmbedder` unless given.

    Attributes
    ----------
    errors : list of ImageProblem
        As given.
    hint : str
        As given.
    """

    #: How many images the message lists before it only counts the rest.
    LISTED = 20

    #: What an embedder has to say.
    HINT = (
        "mend or remove them: the `position` of each of this error's `errors` is its row in X. An "
        'ImageEmbedder(on_error="nan") that stands alone gives rows of NaN for them; classifiers '
        "refuse those. The others were embedded and, with a cache, stored."
    )

    def __init__(self, errors, hint=HINT):
        self.errors, self.hint = [ImageProblem(*error) for error in errors], hint
        super().__init__(self.errors)

    def __str__(self):
        lines = [
            f"  [{position}] {path or '(given in memory)'}: {reason}"
            for position, path, reason in self.errors[: self.LISTED]
        ]
        if len(self.errors) > self.LISTED:
            lines.append(
                f"  ... and {len(self.errors) - self.LISTED} more in the `errors` attribute"
            )
        heading = f"{len(self.errors)} image(s) could not be read:"
        return "\n".join([heading, *lines, f"Hint: {self.hint}"])


class ImageReadWarning(UserWarning):
    """Some images could not be read and their rows are NaN (``on_error="nan"``)."""


class UnknownBackboneError(SktransferError, ValueError):
    """No backbone has that name."""


class WeightsError(SktransferError, RuntimeError):
    """Pretrained weights could not be had, or do not fit the network."""


class FingerprintMismatchError(WeightsError):
    """The weights at hand are not those with which an estimator was fitted."""


class MissingExtraError(SktransferError, ImportError):
    """An optional dependency is needed and not installed; the message names the extra."""


class RandomWeightsWarning(UserWarning):
    """A network with random weights is being used, because ``weights=None`` asked for it."""


class CacheWarning(UserWarning):
    """The store of embeddings cannot be used as asked; results are right but slower."""


class TrainingDivergedError(SktransferError, ValueError):
    """The loss of a head is no longer a number; the message names the learning rate."""
