"""Curves of a training: what is drawn, what is kept, and errors that say what to pass."""

import sys

import numpy as np
import pytest
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from sktransfer import (
    FineTuneClassifier,
    HeadClassifier,
    TrainingHistoryDisplay,
    make_transfer_pipeline,
)
from sktransfer.exceptions import MissingExtraError

plt = pytest.importorskip("matplotlib.pyplot")

SMALL = {"image_size": 32, "cache": None}


def test_curves_of_a_head(stopped):
    head = stopped[-1]
    display = TrainingHistoryDisplay.from_estimator(head)
    training, validation, best = display.ax_.get_lines()
    np.testing.assert_array_equal(
        training.get_ydata(), [row["train_loss"] for row in head.history_]
    )
    np.testing.assert_array_equal(
        validation.get_ydata(), [row["valid_loss"] for row in head.history_]
    )
    np.testing.assert_array_equal(training.get_xdata(), np.arange(head.n_epochs_) + 1)
    assert best.get_xdata() == [head.best_epoch_] * 2
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["training", "validation", "weights kept"]
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("epoch", "loss")
    assert display.figure_ is display.ax_.figure and display.lines_ == [training, validation]


def test_another_metric_in_axes_of_ones_own(stopped):
    _, ax = plt.subplots()
    display = TrainingHistoryDisplay.from_estimator(
        stopped, metric="accuracy", ax=ax, line_kw={"linewidth": 3}
    )
    assert [line.get_label() for line in display.lines_] == ["training", "validation"]
    assert display.ax_ is ax and ax.get_ylabel() == "accuracy"
    assert display.lines_[0].get_linewidth() == 3
    other = display.plot()  # the history is drawn again
    assert other is display and display.ax_ is not ax


def wrapped(shapes):
    """Models around a head, by what they are."""
    pipeline = make_transfer_pipeline(head=HeadClassifier(max_epochs=2, random_state=0), **SMALL)
    head = pipeline["head"]
    yield "views", make_transfer_pipeline(head=head, augmentation="flip", n_views=2, **SMALL)
    yield "search", GridSearchCV(pipeline, {"head__dropout": [0.0]}, cv=2)
    yield "only a head tuned", FineTuneClassifier(trainable_stages=0, max_epochs=2, **SMALL)


def test_a_history_is_found_in_what_wraps_it(shapes):
    for what, model in wrapped(shapes):
        display = TrainingHistoryDisplay.from_estimator(model.fit(shapes.data, shapes.target))
        assert [line.get_label() for line in display.lines_] == ["training"], what


@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.SmallValidationWarning")
def test_curves_of_a_fine_tuned_network(shapes):
    model = FineTuneClassifier(
        early_stopping=True, validation_fraction=0.2, max_epochs=2, random_state=0, **SMALL
    ).fit(shapes.data, shapes.target)
    _, validation = TrainingHistoryDisplay.from_estimator(model).lines_
    assert validation.get_xdata().tolist() == [row["epoch"] for row in model.history_]
    assert validation.get_xdata()[0] == 0 and np.isfinite(validation.get_ydata()).all()
    _, validation = TrainingHistoryDisplay.from_estimator(model, metric="accuracy").lines_
    assert validation.get_ydata().max() <= 1


def test_no_such_history(stopped):
    with pytest.raises(ValueError, match=r"no metric 'f1', only .*valid_loss"):
        TrainingHistoryDisplay.from_estimator(stopped, metric="f1")
    with pytest.raises(ValueError, match="empty"):
        TrainingHistoryDisplay([]).plot()
    with pytest.raises(NotFittedError):
        TrainingHistoryDisplay.from_estimator(make_transfer_pipeline())
    with pytest.raises(TypeError, match="got LogisticRegression"):
        TrainingHistoryDisplay.from_estimator(LogisticRegression())
    stack = StackingClassifier([("tiny_mobilenet", LogisticRegression())], cv=2)
    with pytest.raises(TypeError, match=r"named_estimators_\['tiny_mobilenet'\]"):
        TrainingHistoryDisplay.from_estimator(stack.fit(np.eye(8), [0, 1] * 4))


def test_axes_of_ones_own_keep_their_ticks():
    _, ax = plt.subplots()
    ax.set_xscale("log")
    rows = [{"epoch": epoch, "train_loss": 1 / epoch} for epoch in (1, 2, 3)]
    TrainingHistoryDisplay(rows).plot(ax)
    assert ax.get_xscale() == "log"


def test_without_matplotlib(monkeypatch, stopped):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtraError, match=r"sktransfer\[report\]"):
        TrainingHistoryDisplay.from_estimator(stopped)
