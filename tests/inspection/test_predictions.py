"""Grids of predictions: what is drawn, what is kept, and errors that say what to pass."""

import sys
from itertools import combinations

import numpy as np
import pytest

from sktransfer import PredictionGridDisplay
from sktransfer.exceptions import MissingExtraError

plt = pytest.importorskip("matplotlib.pyplot")
Bbox = pytest.importorskip("matplotlib.transforms").Bbox

draw = PredictionGridDisplay.from_predictions


def titles(display):
    return [ax.get_title(loc="left") for ax in display.axes_.flat[: len(display.images)]]


def test_grid_of_predictions(stopped, shapes):
    y = np.where(np.arange(40) == 1, "octagon", shapes.target)  # a class that nobody predicts
    display = PredictionGridDisplay.from_estimator(stopped, shapes.data, y, max_images=6)
    assert display.axes_.shape == (2, 4) and len(display.images) == 6
    probabilities = stopped.predict_proba(shapes.data)
    for row, title in enumerate(titles(display)):
        first, second, third = (
            f"{stopped.classes_[code]} {probabilities[row, code]:.0%}"
            for code in np.argsort(-probabilities[row])[:3]
        )
        true, *others = title.split("\n")
        assert true.startswith(f"true: {y[row]}") and true.endswith("%") == (row != 1)
        assert others == [f"predicted: {first}", f"then: {second}", f"then: {third}"]
    shown = display.axes_[0, 0].get_images()[0].get_array()
    np.testing.assert_array_equal(shown, shapes.data[0])


def test_probabilities_of_cross_validation(shapes):
    y_proba = np.full((40, 4), 0.1)
    y_proba[:, 2] = 0.7
    a, b, c, d = np.unique(shapes.target)
    display = draw(shapes.data, shapes.target, [b] * 40, y_proba=y_proba, top_k=3, max_images=1)
    assert titles(display)[0].split("\n")[1:] == [
        f"predicted: {b} 10%",  # not the most probable class, as after TunedThresholdClassifierCV
        f"then: {c} 70%",
        f"then: {a} 10%",
    ]
    display = draw(shapes.data[:1], None, [d], y_proba=[[0, 1.0]], labels=["x", d], top_k=9)
    assert titles(display) == [f"predicted: {d} 100%\nthen: x 0%"]
    with pytest.raises(ValueError, match=r"shape \(40, 3\), and there are 4 classes: pass labels="):
        draw(shapes.data, shapes.target, [b] * 40, y_proba=y_proba[:, :3])


def test_wrong_predictions_come_with_the_most_certain_first(shapes):
    predicted = shapes.target.copy()
    predicted[[3, 7, 11]] = "octagon"
    y_proba = np.zeros((40, 5))
    y_proba[:, 4] = np.linspace(0.1, 0.9, 40)
    labels = [*np.unique(shapes.target), "octagon"]
    options = {"y_proba": y_proba, "labels": labels, "errors_only": True, "n_cols": 2}
    display = draw(shapes.data, shapes.target, predicted, **options)
    assert display.indices.tolist() == [11, 7, 3]
    assert [not ax.get_images() for ax in display.axes_.flat] == [False, False, False, True]
    colors = {ax._left_title.get_color() for ax in display.axes_.flat[:3]}
    display = draw(shapes.data[:4], shapes.target[:4], shapes.target[:4])
    assert colors.isdisjoint({ax._left_title.get_color() for ax in display.axes_.flat})


def test_images_without_classes_in_a_figure_of_ones_own(tmp_path):
    wide = np.zeros((100, 400, 3), np.uint8)
    figure = plt.figure()
    display = draw([wide, str(tmp_path / "gone.jpg")], None, ["sea", "forest"], figure=figure)
    assert display.figure_ is figure and titles(display) == ["predicted: sea", "predicted: forest"]
    assert display.images[0].shape == (48, 192, 3)
    text = display.axes_[0, 1].texts[0].get_text()
    assert text.startswith("cannot be read") and not display.axes_[0, 1].get_images()


def test_dollars_begin_no_formula(tmp_path):
    (tmp_path / "evil.jpg").write_bytes(rb"<?php $\x=1; $y ?> " * 5)
    images = [str(tmp_path / "evil.jpg"), np.zeros((8, 8), np.uint8)]
    display = draw(images, None, [r"$\foo$", "$5 to $9"])
    display.figure_.savefig(tmp_path / "figure.png")
    assert titles(display) == [r"predicted: $\foo$", "predicted: $5 to $9"]


@pytest.mark.parametrize("sizes", [{"max_images": 0}, {"n_cols": 0}, {"top_k": -1}])
def test_a_grid_has_cells(sizes, shapes):
    with pytest.raises(ValueError, match=rf"'{next(iter(sizes))}' parameter .* range \[1, 1000000"):
        draw(shapes.data, None, shapes.target, **sizes)


def test_nothing_to_draw(shapes):
    with pytest.raises(ValueError, match="pass y"):
        draw(shapes.data, None, shapes.target, errors_only=True)
    with pytest.raises(ValueError, match="All 40 predictions are right"):
        draw(shapes.data, shapes.target, shapes.target, errors_only=True)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        draw(shapes.data, shapes.target[:5], shapes.target)


def overlapping(display):
    """Pairs of cells in which the texts of one reach into the text or the image of the other."""
    display.figure_.canvas.draw()
    boxes = [
        Bbox.union([drawn.get_window_extent() for drawn in [ax._left_title, *ax.texts, *ax.images]])
        for ax in display.axes_.flat[: len(display.images)]
    ]
    return [(a, b) for a, b in combinations(range(len(boxes)), 2) if boxes[a].overlaps(boxes[b])]


@pytest.mark.parametrize(("layout", "n_cols"), [("constrained", 3), ("constrained", 1), (None, 4)])
def test_long_names_are_cut_and_overlap_nothing(shapes, layout, n_cols):
    cars = ["Mercedes-Benz 300-Class Convertible 1993", "Audi\nS4"]
    cars = np.array([*cars, *(f"{'A b' * 30} {number}" for number in range(4))])
    images = [np.zeros((40, 200, 3), np.uint8), "gone/" * 40 + ".jpg", *shapes.data[:4]]
    figure = plt.figure(figsize=(2.9 * n_cols, 2.7 * (6 // n_cols + 1)), layout=layout)
    options = {"y_proba": np.eye(6), "labels": cars, "figure": figure, "n_cols": n_cols}
    display = draw(images, cars[::-1], cars, **options)
    assert {title.count("\n") for title in titles(display)} == {3}
    assert "…" in titles(display)[0] and titles(display)[0].split("\n")[1].endswith("3 100%")
    assert titles(display)[1].split("\n")[1] == "predicted: Audi S4 100%"
    assert overlapping(display) == []


def test_the_texts_of_a_row_are_aligned_whatever_the_shapes_of_its_images():
    images = [np.zeros(shape, np.uint8) for shape in ((20, 90), (90, 20), (40, 40))]
    display = draw(images, list("abc"), list("abb"))
    display.figure_.canvas.draw()
    heights = {round(ax._left_title.get_window_extent().y0, 1) for ax in display.axes_.flat}
    assert len(heights) == 1


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtraError, match=r"sktransfer\[report\]"):
        draw([np.zeros((8, 8))], None, ["a"])
