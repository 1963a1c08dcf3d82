"""Curves of a training."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._utils._optional import import_optional
from .._utils._sklearn import checked
from ._grid import AX

_PARTS = {"train": "training", "valid": "validation"}


class TrainingHistoryDisplay:
    """Curves of a metric on training and validation data after each epoch.

    Create it with :meth:`from_estimator`, or call :meth:`plot` of one with a history.

    Parameters
    ----------
    history : list of dict
        One dict for each epoch, with ``"epoch"`` and the columns, such as ``head.history_``.
    metric : str, default="loss"
        The columns ``train_<metric>`` and ``valid_<metric>`` are plotted, as far as the history
        has them.
    best_epoch : int or None, default=None
        Epoch whose weights the model has; it is marked.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        The axes and their figure.
    lines_ : list of matplotlib.lines.Line2D
        One line for each curve.

    See Also
    --------
    sklearn.model_selection.LearningCurveDisplay : Scores by the number of training images.

    Examples
    --------
    >>> from sktransfer import HeadClassifier, TrainingHistoryDisplay
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> head = HeadClassifier(early_stopping=True, max_epochs=20, random_state=0).fit(X, y)
    >>> display = TrainingHistoryDisplay.from_estimator(head, metric="accuracy")
    >>> [line.get_label() for line in display.lines_]
    ['training', 'validation']
    """

    @checked(history=[list, tuple], metric=[str], best_epoch=[Integral, None])
    def __init__(self, history, *, metric="loss", best_epoch=None):
        self.history = history
        self.metric = metric
        self.best_epoch = best_epoch

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, metric: str = "loss", ax: Any = None, line_kw: dict | None = None
    ) -> TrainingHistoryDisplay:
        """Plot the training of a fitted model.

        Parameters
        ----------
        estimator : HeadClassifier, FineTuneClassifier, or a model around one of them
            The model around it may be a pipeline that ends with it, a search (its best estimator
            is used) or any other estimator with an ``estimator_``.
        metric, ax, line_kw : optional
            See the class and :meth:`plot`.

        Returns
        -------
        TrainingHistoryDisplay
            The display.

        Raises
        ------
        TypeError, ValueError
            If the estimator has no history, or its history does not have the metric.
        """
        model = _find_trained(estimator)
        display = cls(model.history_, metric=metric, best_epoch=model.best_epoch_)
        return display.plot(ax, line_kw=line_kw)

    @checked(ax=AX, line_kw=[dict, None])
    def plot(self, ax: Any = None, *, line_kw: dict | None = None) -> TrainingHistoryDisplay:
        """Plot the curves.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None, default=None
            Axes to plot on; None creates a figure.
        line_kw : dict or None, default=None
            Keyword arguments for ``ax.plot``.

        Returns
        -------
        TrainingHistoryDisplay
            The display itself.
        """
        plt = import_optional("matplotlib.pyplot", "report", "TrainingHistoryDisplay")
        rows = list(self.history)
        if not rows:
            raise ValueError("The history is empty: fit the model first.")
        labels = {f"{part}_{self.metric}": label for part, label in _PARTS.items()}
        if labels.keys().isdisjoint(rows[-1]):
            columns = [name for name in rows[-1] if name.startswith(tuple(_PARTS))]
            raise ValueError(
                f"The history has no metric {self.metric!r}, only {', '.join(columns)}. To record "
                "it, fit with callbacks=[skorch.callbacks.EpochScoring(...)]."
            )
        if ax is None:
            _, ax = plt.subplots(layout="constrained")
            ax.xaxis.get_major_locator().set_params(integer=True)
        self.lines_ = []
        for name in [name for name in labels if name in rows[-1]]:
            values = [row.get(name, np.nan) for row in rows]
            options = {"label": labels[name], **(line_kw or {})}
            self.lines_ += ax.plot([row["epoch"] for row in rows], values, **options)
        if self.best_epoch is not None:
            ax.axvline(self.best_epoch, color="gray", linestyle=":", label="weights kept")
        ax.set(xlabel="epoch", ylabel=self.metric)
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _find_trained(estimator):
    """Return the model with a history inside a fitted model."""
    if hasattr(estimator, "max_epochs"):
        check_is_fitted(estimator)
    if hasattr(estimator, "history_"):
        # Without trainable stages, fine-tuning trains its head only.
        return estimator if estimator.history_ else getattr(estimator, "head_", estimator)
    if isinstance(estimator, Pipeline):
        return _find_trained(estimator.steps[-1][1])
    for name in ("best_estimator_", "estimator_"):
        if hasattr(estimator, name):
            return _find_trained(getattr(estimator, name))
    hint = ""
    if isinstance(estimator, BaseEstimator) and hasattr(estimator, "named_estimators_"):
        name = next(iter(estimator.named_estimators_))
        hint = f" Pass one of its branches, model.named_estimators_[{name!r}]."
    raise TypeError(
        "Only a HeadClassifier or a FineTuneClassifier has a history of epochs, alone, as the last "
        f"step of a pipeline, or in a fitted search; got {type(estimator).__name__}.{hint}"
    )
