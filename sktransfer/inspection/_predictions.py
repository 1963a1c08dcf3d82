"""Images with their predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import column_or_1d

from .._utils._sklearn import HasMethods, checked
from .._utils._typing import ArrayLike, Images
from ..images import check_images
from ._grid import COUNT, FIGURE, ImageGridDisplay, thumbnail

_RIGHT, _WRONG = "#0060a0", "#c04800"  # blue and orange: color-blind readers tell them apart


class PredictionGridDisplay(ImageGridDisplay):
    """Grid of images with their true, predicted and next most probable classes.

    Create it with :meth:`from_estimator` or :meth:`from_predictions`. Captions are blue if the
    prediction is right and orange if it is wrong. Parameters and attributes are those of
    :class:`~sktransfer.inspection.ImageGridDisplay`.

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
    (8, (2, 4))
    """

    @classmethod
    @checked(estimator=[HasMethods("predict")])
    def from_estimator(
        cls, estimator: Any, X: Images, y: ArrayLike | None = None, **options: Any
    ) -> PredictionGridDisplay:
        """Predict the classes of images and draw them.

        Parameters
        ----------
        estimator : classifier
            A fitted classifier of images. Probabilities are drawn if it has ``predict_proba``.
        X : array-like of images
            Images, see :func:`~sktransfer.images.check_images`. All of them are predicted.
        y : array-like of shape (n_samples,) or None, default=None
            True classes.
        **options
            ``top_k``, ``errors_only``, ``max_images``, ``n_cols`` and ``figure``, see
            :meth:`from_predictions`.

        Returns
        -------
        PredictionGridDisplay
            The display.
        """
        if hasattr(estimator, "predict_proba"):
            options |= {"y_proba": estimator.predict_proba(X), "labels": estimator.classes_}
        return cls.from_predictions(X, y, estimator.predict(X), **options)

    @classmethod
    @checked(top_k=COUNT, max_images=COUNT, n_cols=COUNT, errors_only=["boolean"], figure=FIGURE)
    def from_predictions(
        cls,
        X: Images,
        y_true: ArrayLike | None,
        y_pred: ArrayLike,
        *,
        y_proba: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        top_k: int = 3,
        errors_only: bool = False,
        max_images: int = 20,
        n_cols: int = 4,
        figure: Any = None,
    ) -> PredictionGridDisplay:
        """Draw images with given predictions.

        Parameters
        ----------
        X : array-like of images
            Images, see :func:`~sktransfer.images.check_images`.
        y_true, y_pred : array-like of shape (n_samples,)
            True classes or None; predicted classes, such as those of
            :func:`sklearn.model_selection.cross_val_predict`.
        y_proba : array-like of shape (n_samples, n_classes) or None, default=None
            Probabilities.
        labels : array-like of shape (n_classes,) or None, default=None
            Classes of the columns of `y_proba`; None: those in `y_true`, sorted.
        top_k : int, default=3
            Number of predicted classes above each image, if `y_proba` is given.
        errors_only : bool, default=False
            Whether to draw wrong predictions only, the most probable ones first.
        max_images, n_cols : int, default=20 and 4
            Maximum number of images, and number of columns.
        figure : optional
            See :meth:`~sktransfer.inspection.ImageGridDisplay.plot`.

        Returns
        -------
        PredictionGridDisplay
            The display.

        Raises
        ------
        ValueError
            If `errors_only` is True, and `y_true` is None or no prediction is wrong; or if there is
            not one label for each column of `y_proba`.
        """
        images, y_pred = check_images(X), column_or_1d(y_pred)
        y_true = None if y_true is None else column_or_1d(y_true)
        check_consistent_length(images, y_true, y_pred, y_proba)
        if y_proba is None:
            y_proba, labels = np.empty((len(images), 0)), []
        else:
            labels = np.unique(y_true) if labels is None else column_or_1d(labels)
        y_proba = np.asarray(y_proba)
        if y_proba.shape[1:] != (len(labels),):
            raise ValueError(
                f"y_proba has the shape {y_proba.shape}, and there are {len(labels)} classes: pass "
                "labels=, one for each column."
            )
        indices = np.arange(len(images))
        if errors_only:
            if y_true is None:
                raise ValueError("errors_only=True needs the true classes: pass y.")
            indices = np.flatnonzero(y_true != y_pred)
            if not len(indices):
                count = len(y_pred)
                raise ValueError(f"All {count} predictions are right: pass errors_only=False.")
            certain = y_proba[indices].max(axis=1, initial=0)
            indices = indices[np.argsort(-certain, kind="stable")]
        indices, captions, colors = indices[:max_images], [], []
        for index in indices:
            predicted, row = y_pred[index], y_proba[index]
            ordered = [labels[code] for code in np.argsort(-row, kind="stable")]
            others = [name for name in ordered if name != predicted][: top_k - 1]
            lines, color = [("predicted", predicted), *(("then", name) for name in others)], "black"
            if y_true is not None:
                lines.insert(0, ("true", y_true[index]))
                color = _RIGHT if predicted == y_true[index] else _WRONG
            percent = {name: f"{value:.0%}" for name, value in zip(labels, row, strict=True)}
            captions.append([(what, name, percent.get(name, "")) for what, name in lines])
            colors.append(color)
        shown = [thumbnail(images[index]) for index in indices]
        options = {"indices": indices, "colors": colors, "n_cols": n_cols}
        return cls(images=shown, captions=captions, **options).plot(figure)
