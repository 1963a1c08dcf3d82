"""Grids of images, neighbors, and maps of a data set: what is drawn, and that nothing overlaps."""

import sys
from itertools import combinations

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD

from sktransfer import ImageEmbedder, make_transfer_pipeline
from sktransfer.exceptions import MissingExtraError
from sktransfer.inspection import EmbeddingMapDisplay, ImageGridDisplay, NeighborsDisplay

plt = pytest.importorskip("matplotlib.pyplot")

EMBEDDER = ImageEmbedder(image_size=32)


def titles(display):
    return [ax.get_title(loc="left") for ax in display.axes_.flat[: len(display.images)]]


def test_a_sample_has_as_many_images_of_each_class(shapes):
    display = ImageGridDisplay.from_data(shapes.data, shapes.target, max_images=8)
    assert titles(display) == sorted([*np.unique(shapes.target)] * 2)
    assert (shapes.target[display.indices] == titles(display)).all()
    shown = display.axes_[0, 0].get_images()[0].get_array()
    np.testing.assert_array_equal(shown, shapes.data[display.indices[0]])
    again = ImageGridDisplay.from_data(shapes.data, shapes.target, max_images=8)
    other = ImageGridDisplay.from_data(shapes.data, shapes.target, max_images=8, random_state=1)
    assert (again.indices == display.indices).all() != (other.indices == display.indices).all()


def test_a_sample_of_more_classes_than_images(shapes):
    display = ImageGridDisplay.from_data(shapes.data, np.arange(40), max_images=12)
    assert len(set(titles(display))) == 12


def test_a_sample_without_labels_names_the_rows(shapes):
    display = ImageGridDisplay.from_data(shapes.data, max_images=7)
    assert len(display.images) == 7
    assert titles(display) == [str(index) for index in display.indices]


def test_an_unreadable_image_is_an_empty_cell(shapes):
    display = ImageGridDisplay.from_data([shapes.data[0], "gone.jpg"], ["a", "b"])
    assert display.axes_[0, 1].texts[0].get_text().startswith("cannot be read")


def test_long_names_do_not_overlap(shapes):
    y = [f"a very long name of a class with the number {number}" for number in range(40)]
    display = ImageGridDisplay.from_data(shapes.data, y, max_images=10)
    assert_apart([ax.title if ax.get_title() else ax._left_title for ax in display.axes_.flat])


def assert_apart(artists):
    """Check that no two artists overlap and that all are inside the figure."""
    figure = artists[0].figure
    figure.draw_without_rendering()
    boxes = [artist.get_window_extent() for artist in artists]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width + 1 for box in boxes)


def test_views_are_those_of_the_embedder(shapes):
    display = ImageGridDisplay.from_augmentation(shapes.data[0], "crop", n_views=4)
    assert titles(display) == ["view: 0", "view: 1", "view: 2", "view: 3"]
    np.testing.assert_array_equal(display.images[0], shapes.data[0])
    embedder = ImageEmbedder(image_size=32, augmentation="crop", n_views=4)
    views = embedder.fit_transform(shapes.data[:1])[0]
    np.testing.assert_allclose(EMBEDDER.fit_transform(display.images), views, atol=1e-4)


def test_neighbors(shapes):
    display = NeighborsDisplay.from_estimator(
        EMBEDDER, shapes.data, shapes.target, queries=shapes.data[[3, 5]], n_neighbors=3
    )
    assert display.axes_.shape == (2, 4) and display.indices.shape == (2, 3)
    assert display.indices[:, 0].tolist() == [3, 5]
    assert titles(display)[:2] == ["query", f"{shapes.target[3]}\nsimilarity: 1.00"]
    np.testing.assert_array_equal(display.images[5], shapes.data[5])


def test_neighbors_by_a_part_of_a_fitted_pipeline(shapes):
    model = make_transfer_pipeline(image_size=32).fit(shapes.data, shapes.target)
    display = NeighborsDisplay.from_estimator(model[:-1], shapes.data, queries=shapes.data[:1])
    assert titles(display)[1] == "0\nsimilarity: 1.00"


def test_a_map_has_a_color_for_each_class(shapes):
    display = EmbeddingMapDisplay.from_estimator(EMBEDDER, shapes.data, shapes.target)
    assert display.points.shape == (40, 2)
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == [*np.unique(shapes.target)]
    colors = {tuple(points.get_facecolor()[0]) for points in display.ax_.collections}
    assert len(colors) == 4
    assert 4 < len(display.ax_.artists) <= 40
    assert_apart([box.offsetbox for box in display.ax_.artists])


def test_a_map_of_many_classes_is_gray(shapes):
    display = EmbeddingMapDisplay.from_estimator(EMBEDDER, shapes.data, np.arange(40))
    assert display.ax_.get_legend() is None and len(display.ax_.collections) == 1


def test_another_projection_in_axes_of_ones_own(shapes):
    X = [*shapes.data, "gone.jpg"][:40]
    projection = TruncatedSVD(2, random_state=0)
    display = EmbeddingMapDisplay.from_estimator(EMBEDDER, X, projection=projection)
    np.testing.assert_allclose(display.points, projection.transform(EMBEDDER.fit_transform(X)))
    _, ax = plt.subplots()
    assert display.plot(ax, n_thumbnails=3).ax_ is ax and len(ax.artists) == 3


def test_without_matplotlib(monkeypatch, shapes):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtraError, match=r"sktransfer\[report\]"):
        ImageGridDisplay.from_data(shapes.data)
    with pytest.raises(MissingExtraError, match=r"sktransfer\[report\]"):
        EmbeddingMapDisplay.from_estimator(EMBEDDER, shapes.data)


def test_a_grid_without_images():
    with pytest.raises(ValueError, match="no images"):
        NeighborsDisplay(images=[], captions=[]).plot()
