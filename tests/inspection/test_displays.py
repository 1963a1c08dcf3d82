"""Figures: what is drawn, what is kept, and errors that say what to pass."""

import sys

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from sktransfer import (
    FineTuneClassifier,
    HeadClassifier,
    PredictionGridDisplay,
    TrainingHistoryDisplay,
    make_transfer_pipeline,
    make_transfer_stack,
)
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import MissingExtraError

plt = pytest.importorskip("matplotlib.pyplot")

SMALL = {"image_size": 32, "engine": "torch", "cache": None}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(n_samples=40, random_state=0)


@pytest.fixture(scope="module")
def stopped(shapes):
    """A pipeline whose head has validation rows."""
    head = HeadClassifier(
        8, early_stopping=True, validation_fraction=0.2, max_epochs=12, random_state=0
    )
    return make_transfer_pipeline(head=head, **SMALL).fit(shapes.data, shapes.target)


def test_curves_of_a_head(stopped):
    head = stopped[-1]
    display = TrainingHistoryDisplay.from_estimator(head)
    training, validation, best = display.ax_.get_lines()
    np.testing.assert_array_equal(training.get_ydata(), head.net_.history[:, "train_loss"])
    np.testing.assert_array_equal(validation.get_ydata(), head.net_.history[:, "valid_loss"])
    np.testing.assert_array_equal(training.get_xdata(), np.arange(head.n_epochs_) + 1)
    assert best.get_xdata() == [head.best_epoch_] * 2
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["training", "validation", "weights kept"]
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("epoch", "loss")
    assert display.figure_ is display.ax_.figure and display.lines_ == [training, validation]


def test_another_metric_in_axes_of_ones_own(stopped):
    _, ax = plt.subplots()
    display = TrainingHistoryDisplay.from_estimator(stopped, metric="acc", ax=ax, linewidth=3)
    assert list(display.curves) == ["valid_acc"] and display.ax_ is ax
    assert display.lines_[0].get_linewidth() == 3
    other = display.plot()  # what was kept is drawn again
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
        assert list(display.curves) == ["train_loss"], what


def test_curves_of_a_fine_tuned_network(shapes):
    model = FineTuneClassifier(
        early_stopping=True, validation_fraction=0.2, max_epochs=2, random_state=0, **SMALL
    ).fit(shapes.data, shapes.target)
    display = TrainingHistoryDisplay.from_estimator(model)
    assert display.epochs.tolist() == [row["epoch"] for row in model.history_]
    assert display.epochs[0] == 0 and np.isfinite(display.curves["valid_loss"]).all()
    display = TrainingHistoryDisplay.from_estimator(model, metric="accuracy")
    assert display.curves["valid_accuracy"].max() <= 1


def test_no_such_history(stopped, shapes):
    with pytest.raises(ValueError, match="no metric 'f1'; it has 'acc', 'loss'"):
        TrainingHistoryDisplay.from_estimator(stopped, metric="f1")
    with pytest.raises(ValueError, match="empty"):
        TrainingHistoryDisplay.from_history([])
    with pytest.raises(NotFittedError):
        TrainingHistoryDisplay.from_estimator(make_transfer_pipeline())
    with pytest.raises(TypeError, match="got LogisticRegression"):
        TrainingHistoryDisplay.from_estimator(LogisticRegression())
    stack = make_transfer_stack(
        ["tiny_mobilenet", "tiny_resnet"], LogisticRegression(), cv=2, **SMALL
    ).fit(shapes.data, shapes.target)
    with pytest.raises(TypeError, match=r"named_estimators_\['tiny_mobilenet'\]"):
        TrainingHistoryDisplay.from_estimator(stack)


def titles(display):
    return [ax.get_title() for ax in display.axes_.flat[: len(display.images)]]


def test_grid_of_predictions(stopped, shapes):
    display = PredictionGridDisplay.from_estimator(stopped, shapes.data, shapes.target)
    predicted = stopped.predict(shapes.data)
    certain = stopped.predict_proba(shapes.data).max(axis=1)
    assert display.axes_.shape == (4, 5) and len(display.images) == 20
    for row, title in enumerate(titles(display)):
        expected = f"{predicted[row]} {certain[row]:.0%}"
        if predicted[row] != shapes.target[row]:
            expected += f"\nis {shapes.target[row]}"
        assert title == expected
    shown = display.axes_[0, 0].get_images()[0].get_array()
    np.testing.assert_array_equal(shown, shapes.data[0])


def test_wrong_predictions_come_with_the_most_certain_first(shapes):
    predicted = shapes.target.copy()
    predicted[[3, 7, 11]] = "octagon"
    confidence = np.linspace(0.1, 0.9, 40)
    display = PredictionGridDisplay.from_predictions(
        shapes.data, shapes.target, predicted, confidence=confidence, errors_only=True, n_cols=2
    )
    assert display.indices.tolist() == [11, 7, 3]
    assert [not ax.get_images() for ax in display.axes_.flat] == [False, False, False, True]
    colors = {ax.title.get_color() for ax in display.axes_.flat[:3]}
    display = PredictionGridDisplay.from_predictions(shapes.data, shapes.target, shapes.target)
    assert colors.isdisjoint({ax.title.get_color() for ax in display.axes_.flat})


def test_images_without_classes_in_a_figure_of_ones_own(shapes, tmp_path):
    wide = np.zeros((100, 400, 3), np.uint8)
    figure = plt.figure()
    display = PredictionGridDisplay.from_predictions(
        [wide, str(tmp_path / "gone.jpg")], None, ["sea", "forest"], figure=figure
    )
    assert display.figure_ is figure and titles(display) == ["sea", "forest"]
    assert display.images[0].shape == (48, 192, 3)
    text = display.axes_[0, 1].texts[0].get_text()
    assert text.startswith("cannot be read") and not display.axes_[0, 1].get_images()


def test_dollars_begin_no_formula(tmp_path):
    (tmp_path / "evil.jpg").write_bytes(rb"<?php $\x=1; $y ?> " * 5)
    display = PredictionGridDisplay.from_predictions(
        [str(tmp_path / "evil.jpg"), np.zeros((8, 8), np.uint8)], None, [r"$\foo$", "$5 to $9"]
    )
    display.figure_.savefig(tmp_path / "figure.png")
    assert titles(display) == [r"$\foo$", "$5 to $9"]


def test_axes_of_ones_own_keep_their_ticks():
    _, ax = plt.subplots()
    ax.set_xscale("log")
    rows = [{"epoch": epoch, "train_loss": 1 / epoch} for epoch in (1, 2, 3)]
    TrainingHistoryDisplay.from_history(rows, ax=ax)
    assert ax.get_xscale() == "log"


@pytest.mark.parametrize("sizes", [{"max_images": 0}, {"n_cols": 0}])
def test_a_grid_has_cells(sizes, shapes):
    with pytest.raises(ValueError, match=f"{next(iter(sizes))} == 0, must be >= 1"):
        PredictionGridDisplay.from_predictions(shapes.data, None, shapes.target, **sizes)


def test_nothing_to_draw(shapes):
    with pytest.raises(ValueError, match="pass y"):
        PredictionGridDisplay.from_predictions(shapes.data, None, shapes.target, errors_only=True)
    with pytest.raises(ValueError, match="All 40 predictions are right"):
        PredictionGridDisplay.from_predictions(
            shapes.data, shapes.target, shapes.target, errors_only=True
        )
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        PredictionGridDisplay.from_predictions(shapes.data, shapes.target[:5], shapes.target)


def test_without_matplotlib(monkeypatch, stopped):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtraError, match=r"sktransfer\[report\]"):
        TrainingHistoryDisplay.from_estimator(stopped)
    with pytest.raises(MissingExtraError, match=r"sktransfer\[report\]"):
        PredictionGridDisplay.from_predictions([np.zeros((8, 8))], None, ["a"])
