"""Figures of a training and of what a model says of images, in the manner of scikit-learn."""

from numbers import Integral
from textwrap import fill

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import check_consistent_length, check_scalar
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch.nn.functional import interpolate

from ..augmentation import MultiViewClassifier
from ..exceptions import MissingExtraError, UnreadableImageError
from ..finetuning import FineTuneClassifier
from ..heads import HeadClassifier
from ..images import check_images, decode_image

__all__ = ["PredictionGridDisplay", "TrainingHistoryDisplay"]

_THUMBNAIL = 192  # pixels of the longer side
_CELL = (2.2, 2.5)  # inches, with two or three lines of text
_LINE = 22  # letters in a line above an image
_RIGHT, _WRONG = "#1a7a3c", "#b3261e"


def _import_pyplot(asked_by):
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError(
            f"{asked_by} needs matplotlib, which is not installed: pip install 'sktransfer[report]'"
        ) from error
    return plt


# ---------------------------------------------------------------------------------------------
# Curves
# ---------------------------------------------------------------------------------------------


class TrainingHistoryDisplay:
    """Curves of a training: a metric on training and validation rows after each epoch.

    Make it with :meth:`from_estimator` or :meth:`from_history`.

    Parameters
    ----------
    epochs : ndarray of shape (n_epochs,)
        Numbers of the epochs.
    curves : dict of str to ndarray of shape (n_epochs,)
        What was measured, by the name of its column in the history, such as ``"valid_loss"``; NaN
        where an epoch has no value.
    metric : str
        What both curves are of, for the axis.
    best_epoch : int or None, default=None
        Epoch whose weights the model has; it is marked.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Where it was drawn.
    figure_ : matplotlib.figure.Figure
        The figure with these axes.
    lines_ : list of matplotlib.lines.Line2D
        One for each curve.

    See Also
    --------
    sklearn.model_selection.LearningCurveDisplay : Scores by the number of training images.

    Examples
    --------
    >>> from sktransfer import HeadClassifier, TrainingHistoryDisplay
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> head = HeadClassifier(early_stopping=True, max_epochs=20, random_state=0).fit(X, y)
    >>> display = TrainingHistoryDisplay.from_estimator(head)
    >>> sorted(display.curves)
    ['train_loss', 'valid_loss']
    """

    def __init__(self, *, epochs, curves, metric, best_epoch=None):
        self.epochs = epochs
        self.curves = curves
        self.metric = metric
        self.best_epoch = best_epoch

    @classmethod
    def from_estimator(cls, estimator, *, metric="loss", ax=None, **line_kw):
        """Draw the training of a fitted model.

        Parameters
        ----------
        estimator : HeadClassifier, FineTuneClassifier, or what wraps one of them
            A pipeline that ends with one, a :class:`~sktransfer.MultiViewClassifier` around it,
            or a search (then its best estimator).
        metric : str, default="loss"
            The columns ``train_<metric>`` and ``valid_<metric>`` of the history are drawn, those
            of them that there are.
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw; None makes a figure.
        **line_kw
            Passed to ``ax.plot`` for each curve.

        Returns
        -------
        TrainingHistoryDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            If the estimator holds no history.
        ValueError
            If the history has no such metric.
        MissingExtraError
            If matplotlib is not installed (extra ``report``).
        """
        history, best_epoch = _history_of(estimator)
        return cls.from_history(history, metric=metric, best_epoch=best_epoch, ax=ax, **line_kw)

    @classmethod
    def from_history(cls, history, *, metric="loss", best_epoch=None, ax=None, **line_kw):
        """Draw a history.

        Parameters
        ----------
        history : list of dict
            A row for each epoch, with ``"epoch"`` and the columns, such as ``head.net_.history``.
        metric : str, default="loss"
            The columns ``train_<metric>`` and ``valid_<metric>`` are drawn, those of them that
            there are.
        best_epoch : int or None, default=None
            Epoch to mark.
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw; None makes a figure.
        **line_kw
            Passed to ``ax.plot`` for each curve.

        Returns
        -------
        TrainingHistoryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the history is empty or has no such metric.
        MissingExtraError
            If matplotlib is not installed (extra ``report``).
        """
        rows = list(history)
        display = cls(
            epochs=np.array([row["epoch"] for row in rows]),
            curves=_curves(rows, metric),
            metric=metric,
            best_epoch=best_epoch,
        )
        return display.plot(ax=ax, **line_kw)

    def plot(self, ax=None, **line_kw):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw; None makes a figure.
        **line_kw
            Passed to ``ax.plot`` for each curve.

        Returns
        -------
        TrainingHistoryDisplay
            The display itself.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed (extra ``report``).
        """
        plt = _import_pyplot("TrainingHistoryDisplay")
        if ax is None:
            _, ax = plt.subplots(layout="constrained")
            ax.xaxis.get_major_locator().set_params(integer=True)
        self.lines_ = []
        for name, values in self.curves.items():
            label = {"train": "training", "valid": "validation"}[name.partition("_")[0]]
            self.lines_ += ax.plot(self.epochs, values, **{"label": label, **line_kw})
        if self.best_epoch is not None:
            ax.axvline(self.best_epoch, color="grey", linestyle=":", label="weights kept")
        ax.set(xlabel="epoch", ylabel=self.metric)
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _history_of(estimator):
    """History of the training inside a fitted model, and the epoch whose weights it has."""
    if isinstance(estimator, HeadClassifier):
        check_is_fitted(estimator)
        return estimator.net_.history, estimator.best_epoch_
    if isinstance(estimator, FineTuneClassifier):
        check_is_fitted(estimator)
        if not estimator.history_:
            return _history_of(estimator.head_)  # nothing was trained but the head
        return estimator.history_, estimator.best_epoch_
    if isinstance(estimator, Pipeline):
        return _history_of(estimator.steps[-1][1])
    if isinstance(estimator, MultiViewClassifier):
        check_is_fitted(estimator)
        return _history_of(estimator.estimator_)
    if hasattr(estimator, "best_estimator_"):
        return _history_of(estimator.best_estimator_)
    raise _no_history(estimator)


def _no_history(estimator):
    hint = ""
    if isinstance(estimator, BaseEstimator) and hasattr(estimator, "named_estimators_"):
        names = list(estimator.named_estimators_)
        hint = f" Pass one of its branches, model.named_estimators_[{names[0]!r}]."
    return TypeError(
        "A history of epochs is what a HeadClassifier or a FineTuneClassifier has, alone or as the "
        "last step of a pipeline, in a MultiViewClassifier or in a fitted search; got "
        f"{type(estimator).__name__}.{hint}"
    )


def _curves(rows, metric):
    """Columns of a metric as arrays, by name."""
    if not rows:
        raise ValueError("The history is empty: fit the model first.")
    names = [name for part in ("train", "valid") if (name := f"{part}_{metric}") in rows[-1]]
    if not names:
        raise ValueError(
            f"The history has no metric {metric!r}; it has "
            f"{', '.join(map(repr, _metrics(rows[-1])))}. Metrics of a head are recorded when it "
            "is given validation rows or callbacks=[skorch.callbacks.EpochScoring(...)]."
        )
    return {name: np.array([row.get(name, np.nan) for row in rows], float) for name in names}


def _metrics(row):
    """Metrics that a row of a history has, without skorch's bookkeeping."""
    columns = (name.partition("_") for name in row if not name.endswith(("_best", "_batch_count")))
    return sorted({metric for part, _, metric in columns if part in ("train", "valid")})


# ---------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------


class PredictionGridDisplay:
    """Images with what a model says of them, beside what they are.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`. Wrong predictions are red and
    name the true class. An image that cannot be read is an empty cell with the reason.

    Parameters
    ----------
    images : list of (ndarray of shape (H, W, 3) and dtype uint8, or str)
        Thumbnails; a text is the reason why an image cannot be read.
    y_pred : ndarray of shape (n_shown,)
        What the model says of each.
    y_true : ndarray of shape (n_shown,) or None, default=None
        What each is.
    confidence : ndarray of shape (n_shown,) or None, default=None
        Probability of the predicted class, in [0, 1].
    indices : ndarray of shape (n_shown,) or None, default=None
        Rows of the images in ``X``.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure that was drawn in.
    axes_ : ndarray of matplotlib.axes.Axes
        One for each cell, row by row; cells beyond the last image are switched off.

    See Also
    --------
    sklearn.metrics.ConfusionMatrixDisplay : Which classes are taken for which.

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
        cls, estimator, X, y=None, *, errors_only=False, max_images=20, n_cols=5, figure=None
    ):
        """Predict images and draw them.

        Parameters
        ----------
        estimator : classifier
            A fitted classifier of images.
        X : array-like of images
            See :func:`sktransfer.images.check_images`. All of them are predicted.
        y : array-like of shape (n_samples,) or None, default=None
            The true classes.
        errors_only : bool, default=False
            Draw wrong predictions only, those first of which the model is most certain (if it has
            ``predict_proba``).
        max_images : int, default=20
            How many images are drawn at most.
        n_cols : int, default=5
            Images in a row.
        figure : matplotlib.figure.Figure, matplotlib.figure.SubFigure or None, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        PredictionGridDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If `errors_only` is set without `y`, or nothing is wrong.
        MissingExtraError
            If matplotlib is not installed (extra ``report``).
        """
        confidence = None
        if hasattr(estimator, "predict_proba"):
            confidence = np.max(estimator.predict_proba(X), axis=1)
        return cls.from_predictions(
            X,
            y,
            estimator.predict(X),
            confidence=confidence,
            errors_only=errors_only,
            max_images=max_images,
            n_cols=n_cols,
            figure=figure,
        )

    @classmethod
    def from_predictions(
        cls,
        X,
        y_true,
        y_pred,
        *,
        confidence=None,
        errors_only=False,
        max_images=20,
        n_cols=5,
        figure=None,
    ):
        """Draw images with predictions that were made before.

        Parameters
        ----------
        X : array-like of images
            See :func:`sktransfer.images.check_images`.
        y_true : array-like of shape (n_samples,) or None
            The true classes.
        y_pred : array-like of shape (n_samples,)
            The predicted classes, for example those of
            :func:`sklearn.model_selection.cross_val_predict`.
        confidence : array-like of shape (n_samples,) or None, default=None
            Probability of the predicted class.
        errors_only : bool, default=False
            Draw wrong predictions only, those with the highest `confidence` first.
        max_images : int, default=20
            How many images are drawn at most.
        n_cols : int, default=5
            Images in a row.
        figure : matplotlib.figure.Figure, matplotlib.figure.SubFigure or None, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        PredictionGridDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If `errors_only` is set without `y_true`, or nothing is wrong.
        MissingExtraError
            If matplotlib is not installed (extra ``report``).
        """
        check_scalar(max_images, "max_images", Integral, min_val=1)
        images = check_images(X)
        check_consistent_length(images, y_true, y_pred, confidence)
        y_true, y_pred, confidence = (
            None if values is None else column_or_1d(values)
            for values in (y_true, y_pred, confidence)
        )
        shown = np.arange(len(images))
        if errors_only:
            shown = _wrong(y_true, y_pred, confidence)
        shown = shown[:max_images]
        display = cls(
            images=[_thumbnail(images[row]) for row in shown],
            y_pred=y_pred[shown],
            y_true=None if y_true is None else y_true[shown],
            confidence=None if confidence is None else confidence[shown],
            indices=shown,
        )
        return display.plot(figure, n_cols=n_cols)

    def plot(self, figure=None, *, n_cols=5):
        """Draw the images.

        Parameters
        ----------
        figure : matplotlib.figure.Figure, matplotlib.figure.SubFigure or None, default=None
            Where to draw; None makes a figure.
        n_cols : int, default=5
            Images in a row.

        Returns
        -------
        PredictionGridDisplay
            The display itself.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed (extra ``report``).
        """
        plt = _import_pyplot("PredictionGridDisplay")
        check_scalar(n_cols, "n_cols", Integral, min_val=1)
        n_cols = min(n_cols, len(self.images))
        n_rows = -(-len(self.images) // n_cols)
        if figure is None:
            size = (_CELL[0] * n_cols, _CELL[1] * n_rows)
            figure = plt.figure(figsize=size, layout="constrained")
        self.axes_ = figure.subplots(n_rows, n_cols, squeeze=False)
        self.figure_ = figure
        for ax in self.axes_.flat:
            ax.set_axis_off()
        for number, (ax, image) in enumerate(zip(self.axes_.flat, self.images, strict=False)):
            _draw(ax, image)
            text, color = self._caption(number)
            # A dollar sign in a name or a file begins no formula.
            ax.set_title(text, color=color, fontsize="small", parse_math=False)
        return self

    def _caption(self, number):
        """Text above an image, and its colour."""
        lines = [fill(str(self.y_pred[number]), _LINE)]
        if self.confidence is not None:
            lines[-1] += f" {self.confidence[number]:.0%}"
        color = "black"
        if self.y_true is not None:
            right = self.y_pred[number] == self.y_true[number]
            color = _RIGHT if right else _WRONG
            lines += [] if right else [fill(f"is {self.y_true[number]}", _LINE)]
        return "\n".join(lines), color


def _wrong(y_true, y_pred, confidence):
    """Rows of wrong predictions, those with the highest confidence first."""
    if y_true is None:
        raise ValueError("errors_only=True needs the true classes: pass y.")
    wrong = np.flatnonzero(y_true != y_pred)
    if not len(wrong):
        raise ValueError(
            f"All {len(y_pred)} predictions are right, and errors_only=True leaves nothing to draw."
        )
    if confidence is None:
        return wrong
    return wrong[np.argsort(-confidence[wrong], kind="stable")]


def _thumbnail(image):
    """Pixels of an image that is small enough to draw, or why it cannot be read."""
    try:
        pixels = decode_image(image)
    except UnreadableImageError as error:
        return str(error)
    scale = _THUMBNAIL / max(pixels.shape[1:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in pixels.shape[1:]]
        pixels = interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
    return pixels.permute(1, 2, 0).numpy()


def _draw(ax, image):
    if isinstance(image, str):
        reason = fill(f"cannot be read: {image}", _LINE)
        ax.text(0.5, 0.5, reason, ha="center", va="center", fontsize="small", parse_math=False)
        return
    ax.imshow(image)
