"""Images with their predictions."""

from __future__ import annotations

from numbers import Integral
from textwrap import wrap
from typing import Any

import numpy as np
from PIL import Image
from sklearn.utils import check_consistent_length, check_scalar
from sklearn.utils.validation import column_or_1d

from .._utils._optional import import_optional
from .._utils._typing import ArrayLike, Images
from ..exceptions import UnreadableImageError
from ..images import check_images, decode_image

__all__ = ["PredictionGridDisplay"]

_THUMBNAIL = 192  # pixels of the longer side
_CELL = (2.3, 2.5)  # inches, with three lines of text
_LETTERS_PER_INCH = 13  # of the small font, with some room to the next cell
_RIGHT, _WRONG = "#1a7a3c", "#b3261e"


class PredictionGridDisplay:
    """Grid of images with their predicted and true classes.

    Create it with :meth:`from_estimator` or :meth:`from_predictions`; that needs matplotlib (extra
    ``report``). Wrong predictions are red. An image that cannot be read is an empty cell with the
    reason.

    Parameters
    ----------
    images : list of (ndarray of shape (H, W, 3) and dtype uint8, or str)
        Thumbnails; a text is the reason why an image cannot be read.
    y_pred, y_true, confidence : ndarray of shape (n_shown,)
        Predicted classes, true classes and probabilities of the predicted classes in [0, 1]; the
        last two may be None.
    indices : ndarray of shape (n_shown,) or None, default=None
        Rows of the images in ``X``.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure.
    axes_ : ndarray of matplotlib.axes.Axes
        The cells, of shape (n_rows, n_cols); those beyond the last image are hidden.

    See Also
    --------
    sklearn.metrics.ConfusionMatrixDisplay : How often each class is predicted for another.

    Examples
    --------
    >>> from sktransfer import PredictionGridDisplay, make_transfer_pipeline
    >>> from sktransfer.datasets import make_shapes
    >>> shapes = make_shapes(n_samples=40, random_state=0)
    >>> model = make_transfer_pipeline("tiny_mobilenet", cache=None)
    >>> model = model.fit(shapes.data[:32], shapes.target[:32])
    >>> display = PredictionGridDisplay.from_estimator(model, shapes.data[32:], shapes.target[32:])
    >>> len(display.images), display.axes_.shape
    (8, (2, 5))
    """

    def __init__(self, *, images, y_pred, y_true=None, confidence=None, indices=None):
        self.images = images
        self.y_pred = y_pred
        self.y_true = y_true
        self.confidence = confidence
        self.indices = indices

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Images,
        y: ArrayLike | None = None,
        *,
        errors_only: bool = False,
        max_images: int = 20,
        n_cols: int = 5,
        figure: Any = None,
    ) -> PredictionGridDisplay:
        """Predict the classes of images and draw them.

        Parameters
        ----------
        estimator : classifier
            A fitted classifier of images.
        X : array-like of images
            Images, see :func:`~sktransfer.images.check_images`. All of them are predicted.
        y : array-like of shape (n_samples,) or None, default=None
            True classes.
        errors_only, max_images, n_cols, figure : optional
            See :meth:`from_predictions`.

        Returns
        -------
        PredictionGridDisplay
            The display. Its `confidence` comes from ``predict_proba``, if the estimator has it.
        """
        confidence = None
        if hasattr(estimator, "predict_proba"):
            confidence = np.max(estimator.predict_proba(X), axis=1)
        options = {"errors_only": errors_only, "max_images": max_images, "n_cols": n_cols}
        return cls.from_predictions(
            X, y, estimator.predict(X), confidence=confidence, figure=figure, **options
        )

    @classmethod
    def from_predictions(
        cls,
        X: Images,
        y_true: ArrayLike | None,
        y_pred: ArrayLike,
        *,
        confidence: ArrayLike | None = None,
        errors_only: bool = False,
        max_images: int = 20,
        n_cols: int = 5,
        figure: Any = None,
    ) -> PredictionGridDisplay:
        """Draw images with given predictions.

        Parameters
        ----------
        X : array-like of images
            Images, see :func:`~sktransfer.images.check_images`.
        y_true : array-like of shape (n_samples,) or None
            True classes.
        y_pred : array-like of shape (n_samples,)
            Predicted classes, such as those of :func:`sklearn.model_selection.cross_val_predict`.
        confidence : array-like of shape (n_samples,) or None, default=None
            Probabilities of the predicted classes, in [0, 1].
        errors_only : bool, default=False
            Whether to draw wrong predictions only, those with the highest `confidence` first.
        max_images : int, default=20
            Maximum number of images.
        n_cols, figure : optional
            See :meth:`plot`.

        Returns
        -------
        PredictionGridDisplay
            The display.

        Raises
        ------
        ValueError
            If `errors_only` is True, and `y_true` is None or no prediction is wrong.
        """
        check_scalar(max_images, "max_images", Integral, min_val=1)
        images = check_images(X)
        check_consistent_length(images, y_true, y_pred, confidence)
        y_true, y_pred, confidence = (
            None if values is None else column_or_1d(values)
            for values in (y_true, y_pred, confidence)
        )
        indices = np.arange(len(images))
        if errors_only:
            if y_true is None:
                raise ValueError("errors_only=True needs the true classes: pass y.")
            indices = np.flatnonzero(y_true != y_pred)
            if not len(indices):
                raise ValueError(
                    f"All {len(y_pred)} predictions are right: there is nothing to draw with "
                    "errors_only=True."
                )
            if confidence is not None:
                indices = indices[np.argsort(-confidence[indices], kind="stable")]
        indices = indices[:max_images]
        display = cls(
            images=[_thumbnail(images[index]) for index in indices],
            y_pred=y_pred[indices],
            y_true=None if y_true is None else y_true[indices],
            confidence=None if confidence is None else confidence[indices],
            indices=indices,
        )
        return display.plot(figure, n_cols=n_cols)

    def plot(self, figure: Any = None, *, n_cols: int = 5) -> PredictionGridDisplay:
        """Draw the images.

        Parameters
        ----------
        figure : matplotlib.figure.Figure, matplotlib.figure.SubFigure or None, default=None
            Figure to draw in; None creates one.
        n_cols : int, default=5
            Number of columns.

        Returns
        -------
        PredictionGridDisplay
            The display itself.
        """
        plt = import_optional("matplotlib.pyplot", "report", "PredictionGridDisplay")
        check_scalar(n_cols, "n_cols", Integral, min_val=1)
        n_cols = min(n_cols, len(self.images))
        n_rows = -(-len(self.images) // n_cols)
        if figure is None:
            size = (_CELL[0] * n_cols, _CELL[1] * n_rows)
            figure = plt.figure(figsize=size, layout="constrained")
        self.figure_, self.axes_ = figure, figure.subplots(n_rows, n_cols, squeeze=False)
        width = figure.bbox.width / figure.dpi
        if figure.get_layout_engine() is None:
            width *= figure.subplotpars.right - figure.subplotpars.left
        n_letters = int(_LETTERS_PER_INCH * width / n_cols)
        for ax in self.axes_.flat:
            ax.set_axis_off()
        for number, (ax, image) in enumerate(zip(self.axes_.flat, self.images, strict=False)):
            # A dollar sign in a name or a reason does not begin a formula.
            text, color = self._caption(number, n_letters)
            ax.set_title(text, color=color, loc="left", fontsize="small", parse_math=False)
            if isinstance(image, str):
                lines = wrap(f"cannot be read: {image}", n_letters, max_lines=8, placeholder="…")
                ax.text(0, 1, "\n".join(lines), va="top", fontsize="small", parse_math=False)
            else:
                ax.imshow(image)
                ax.set_anchor("NW")  # keeps the captions of a row aligned, for any image shape
        return self

    def _caption(self, number, n_letters):
        """Return the text above an image, as many lines for each, and its color."""
        predicted, color = self.y_pred[number], "black"
        lines = [_line("predicted", predicted, n_letters)]
        if self.y_true is not None:
            true = self.y_true[number]
            lines.append(_line("true", true, n_letters))
            color = _RIGHT if predicted == true else _WRONG
        if self.confidence is not None:
            lines.append(f"confidence: {self.confidence[number]:.0%}")
        return "\n".join(lines), color


def _line(label, name, n_letters):
    """Return a labeled name, cut in the middle: names of classes often differ at the end."""
    name, n_letters = " ".join(str(name).split()), max(5, n_letters - len(label) - 2)
    if len(name) > n_letters:
        end = n_letters // 3
        name = f"{name[: n_letters - end - 1]}…{name[-end:]}"
    return f"{label}: {name}"


def _thumbnail(image):
    """Return the pixels of an image, small enough to draw, or why it cannot be read."""
    try:
        pixels = decode_image(image)
    except UnreadableImageError as error:
        return str(error)
    thumbnail = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    thumbnail.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return np.asarray(thumbnail)
