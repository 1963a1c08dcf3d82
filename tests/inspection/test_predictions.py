"""Grids of predictions: what is drawn, what is kept, and errors that say what to pass."""

import sys
from itertools import combinations

import numpy as np
import pytest

from sktransfer import PredictionGridDisplay
from sktransfer.exceptions import MissingExtraError

plt = pytest.importorskip("matplotlib.pyplot")
Bbox = pytest.importorskip("matplotlib.transforms").Bbox


def titles(display):
    return [ax.get_title(loc="left") for ax in display.axes_.flat[: len(display.images)]]


def test_grid_of_predictions(stopped, shapes):
    display = PredictionGridDisplay.from_estimator(stopped, shapes.data, shapes.target)
    predicted = stopped.predict(shapes.data)
    certain = stopped.predict_proba(shapes.data).max(axis=1)
    assert display.axes_.shape == (4, 5) and len(display.images) == 20
    for row, title in enumerate(titles(display)):
        assert title.split("\n") == [
            f"predicted: {predicted[row]}",
            f"true: {shapes.target[row]}",
            f"confidence: {certain[row]:.0%}",
        ]
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
    colors = {ax._left_title.get_color() for ax in display.axes_.flat[:3]}
    display = PredictionGridDisplay.from_predictions(shapes.data, shapes.target, shapes.target)
    assert colors.isdisjoint({ax._left_title.get_color() for ax in display.axes_.flat})


def test_images_without_classes_in_a_figure_of_ones_own(shapes, tmp_path):
    wide = np.zeros((100, 400, 3), np.uint8)
    figure = plt.figure()
    display = PredictionGridDisplay.from_predictions(
        [wide, str(tmp_path / "gone.jpg")], None, ["sea", "forest"], figure=figure
    )
    assert display.figure_ is figure and titles(display) == ["predicted: sea", "predicted: forest"]
    assert display.images[0].shape == (48, 192, 3)
    text = display.axes_[0, 1].texts[0].get_text()
    assert text.startswith("cannot be read") and not display.axes_[0, 1].get_images()


def test_dollars_begin_no_formula(tmp_path):
    (tmp_path / "evil.jpg").write_bytes(rb"<?php $\x=1; $y ?> " * 5)
    display = PredictionGridDisplay.from_predictions(
        [str(tmp_path / "evil.jpg"), np.zeros((8, 8), np.uint8)], None, [r"$\foo$", "$5 to $9"]
    )
    display.figure_.savefig(tmp_path / "figure.png")
    assert titles(display) == [r"predicted: $\foo$", "predicted: $5 to $9"]


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


def overlapping(display):
    """Pairs of cells in which the texts of one reach into the text or the image of the other."""
    display.figure_.canvas.draw()
    boxes = [
        Bbox.union([drawn.get_window_extent() for drawn in [ax._left_title, *ax.texts, *ax.images]])
        for ax in display.axes_.flat[: len(display.images)]
    ]
    return [(a, b) for a, b in combinations(range(len(boxes)), 2) if boxes[a].overlaps(boxes[b])]


@pytest.mark.parametrize("n_cols", [1, 3, 5])
@pytest.mark.parametrize("layout", ["constrained", None])
def test_long_names_are_cut_and_overlap_nothing(shapes, layout, n_cols):
    cars = np.array(["Mercedes-Benz 300-Class Convertible 1993", "Audi\nS4", *["A b" * 30] * 8])
    images = [np.zeros((40, 200, 3), np.uint8), "gone/" * 40 + ".jpg", *shapes.data[:8]]
    figure = plt.figure(figsize=(2.3 * n_cols, 2.5 * (10 // n_cols + 1)), layout=layout)
    display = PredictionGridDisplay.from_predictions(
        images, cars[::-1], cars, figure=figure, n_cols=n_cols
    )
    assert {title.count("\n") for title in titles(display)} == {1}
    assert "…" in titles(display)[0] and titles(display)[0].split("\n")[0].endswith("3")
    assert titles(display)[1].startswith("predicted: Audi S4\n")
    assert overlapping(display) == []


def test_the_texts_of_a_row_are_aligned_whatever_the_shapes_of_its_images():
    images = [np.zeros(shape, np.uint8) for shape in ((20, 90), (90, 20), (40, 40))]
    display = PredictionGridDisplay.from_predictions(images, list("abc"), list("abb"))
    display.figure_.canvas.draw()
    heights = {round(ax._left_title.get_window_extent().y0, 1) for ax in display.axes_.flat}
    assert len(heights) == 1


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtraError, match=r"sktransfer\[report\]"):
        PredictionGridDisplay.from_predictions([np.zeros((8, 8))], None, ["a"])
