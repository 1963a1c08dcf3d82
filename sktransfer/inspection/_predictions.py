"""Images with their predictions."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length, check_scalar
from sklearn.utils.validation import column_or_1d

from .._utils._typing import ArrayLike, Images
from ..images import check_images
from ._grid import draw_grid, thumbnail

__all__ = ["PredictionGridDisplay"]

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
            images=[thumbnail(images[index]) for index in indices],
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
        captions, colors = zip(*map(self._caption, range(len(self.images))), strict=True)
        self.figure_, self.axes_ = draw_grid(
            self.images, captions, figure, n_cols, "PredictionGridDisplay", colors
        )
        return self

    def _caption(self, number):
        """Return the lines above an image, as many for each, and their color."""
        predicted, color = self.y_pred[number], "black"
        lines = [("predicted", predicted)]
        if self.y_true is not None:
            true = self.y_true[number]
            lines.append(("true", true))
            color = _RIGHT if predicted == true else _WRONG
        if self.confidence is not None:
            lines.append(("confidence", f"{self.confidence[number]:.0%}"))
        return lines, color
