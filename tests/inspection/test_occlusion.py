"""Occlusion: the map shows what a classifier looks at, whatever the classifier is."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sktransfer import cache_info, make_transfer_pipeline, make_transfer_stack
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import UnreadableImageError
from sktransfer.images import check_images, decode_image
from sktransfer.inspection import OcclusionDisplay

plt = pytest.importorskip("matplotlib.pyplot")

SMALL = {"image_size": 32, "engine": "torch"}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


class RedCorner:
    """A classifier that looks at the red of the upper left quarter."""

    classes_ = np.array(["dull", "red"])

    def predict_proba(self, X):
        self.n_images = len(X)
        pixels = [decode_image(image).numpy() for image in check_images(X)]
        red = [p[0, : p.shape[1] // 2, : p.shape[2] // 2].mean() / 255 for p in pixels]
        return np.column_stack([1 - np.array(red), red])


@pytest.fixture
def image():
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[6:18, 8:24] = 255, 0, 0
    return pixels


def test_the_map_is_bright_where_the_classifier_looks(image):
    model = RedCorner()
    display = OcclusionDisplay.from_estimator(model, [image], classes=["red"])
    assert display.maps_.shape == (1, 8, 8) and model.n_images == 65
    row, column = np.unravel_index(display.maps_[0].argmax(), (8, 8))
    assert row in (1, 2) and column in (1, 2)
    assert np.abs(display.maps_[0, 6:, 6:]).max() < 0.01
    shown = display.images[0].sum(axis=2)
    assert shown.shape == (48, 64) and shown[12, 16] > shown[36, 48]


def test_the_predicted_class_is_explained(image):
    display = OcclusionDisplay.from_estimator(RedCorner(), [image, image], n_steps=4)
    assert display.maps_.shape == (2, 4, 4)
    title = display.axes_[0, 0].get_title(loc="left")
    assert title.startswith("class: dull\nprobability: 75%\nlargest drop: ")


def test_a_large_photograph_is_shrunk():
    photograph = np.zeros((600, 900, 3), np.uint8)
    display = OcclusionDisplay.from_estimator(RedCorner(), [photograph], n_steps=2)
    assert display.images[0].shape == (213, 320, 3)


def test_an_image_that_cannot_be_read(tmp_path):
    with pytest.raises(UnreadableImageError, match="no such file"):
        OcclusionDisplay.from_estimator(RedCorner(), [str(tmp_path / "gone.jpg")])


def test_a_stack_embeds_the_copies_once(image):
    shapes = make_shapes(n_samples=40, random_state=0)
    stack = make_transfer_stack(
        ["tiny_mobilenet", "tiny_resnet"], LogisticRegression(max_iter=500), cv=2, **SMALL
    ).fit(shapes.data, shapes.target)
    before = cache_info().misses
    first = OcclusionDisplay.from_estimator(stack, shapes.data[:2], n_steps=3)
    assert cache_info().misses - before == 2 * 2 * 9
    second = OcclusionDisplay.from_estimator(stack, shapes.data[:2], n_steps=3)
    assert cache_info().misses - before == 2 * 2 * 9
    np.testing.assert_array_equal(first.maps_, second.maps_)


def test_the_brightest_place_is_in_the_shape():
    train, test = make_shapes(120, random_state=0), make_shapes(12, random_state=1)
    clean = make_shapes(12, noise=0, random_state=1).data.astype(float)
    model = make_transfer_pipeline(
        "tiny_mobilenet", LogisticRegression(max_iter=500), image_size=64
    )
    maps = OcclusionDisplay.from_estimator(model.fit(train.data, train.target), test.data).maps_
    hits = []
    for pixels, drops in zip(clean, maps, strict=True):
        row, column = np.array(np.unravel_index(drops.argmax(), (8, 8))) * 8 + 4
        corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=0)
        hits.append(np.abs(pixels[row, column] - corners).mean() > 60)
    assert np.mean(hits) > 0.6  # the shapes cover a fifth of the images
