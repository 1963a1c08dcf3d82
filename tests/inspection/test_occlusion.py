"""Occlusion: the map shows what a classifier looks at, whatever the classifier is."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import cache_info, make_transfer_pipeline, make_transfer_stack
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import UnreadableImageError
from sktransfer.images import check_images, decode_image
from sktransfer.inspection import OcclusionDisplay

plt = pytest.importorskip("matplotlib.pyplot")

SMALL = {"image_size": 32}


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
    assert display.maps_.shape == (1, 64, 64) and model.n_images == 145
    row, column = np.unravel_index(display.maps_[0].argmax(), (64, 64))
    assert 8 <= row < 24 and 8 <= column < 24  # where it is red
    assert np.abs(display.maps_[0, 48:, 48:]).max() < 0.1 * display.maps_.max()
    shown = display.images[0].sum(axis=2)
    assert shown.shape == (48, 64) and shown[12, 16] > shown[36, 48]


def test_the_predicted_class_is_explained(image):
    model = RedCorner()
    display = OcclusionDisplay.from_estimator(model, [image, image], n_steps=4)
    assert display.maps_.shape == (2, 64, 64) and model.n_images == 34
    assert display.axes_[0, 0].get_title(loc="left") == "class: dull 75%"


def test_a_large_photograph_is_shrunk():
    photograph = np.zeros((600, 900, 3), np.uint8)
    display = OcclusionDisplay.from_estimator(RedCorner(), [photograph], n_steps=2)
    assert display.images[0].shape == (213, 320, 3)


def test_an_image_that_cannot_be_read(tmp_path):
    with pytest.raises(UnreadableImageError, match="no such file"):
        OcclusionDisplay.from_estimator(RedCorner(), [str(tmp_path / "gone.jpg")])


@pytest.mark.parametrize("classes", [["blue"], [None], ["red", "red"]])
def test_classes_that_the_classifier_does_not_know(image, classes):
    with pytest.raises(ValueError, match=r"classes must be among|inconsistent"):
        OcclusionDisplay.from_estimator(RedCorner(), [image], classes=classes, n_steps=2)


@pytest.fixture(scope="module")
def model():
    shapes = make_shapes(60, random_state=0)
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    model = make_transfer_pipeline("tiny_mobilenet", head, image_size=64)
    return model.fit(shapes.data, shapes.target)


def test_the_copies_are_embedded_once(model):
    X = make_shapes(2, random_state=2).data
    before = cache_info().misses
    first = OcclusionDisplay.from_estimator(model, X, n_steps=3)
    assert cache_info().misses - before == 2 * 10
    second = OcclusionDisplay.from_estimator(model, X, n_steps=3)
    assert cache_info().misses - before == 2 * 10
    np.testing.assert_array_equal(first.maps_, second.maps_)


def test_a_stack_is_explained():
    shapes = make_shapes(24, random_state=0)
    stack = make_transfer_stack(
        ["tiny_mobilenet", "tiny_resnet"], LogisticRegression(max_iter=500), cv=2, **SMALL
    ).fit(shapes.data, shapes.target)
    assert OcclusionDisplay.from_estimator(stack, shapes.data[:1], n_steps=3).maps_.any()


def test_the_brightest_place_is_in_the_shape(model):
    test = make_shapes(3, random_state=1)
    clean = make_shapes(3, noise=0, random_state=1).data.astype(float)
    hits = []
    for pixels, values in zip(
        clean, OcclusionDisplay.from_estimator(model, test.data).maps_, strict=True
    ):
        place = np.unravel_index(values.argmax(), (64, 64))
        corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=0)
        hits.append(np.abs(pixels[place] - corners).mean() > 60)
    assert sum(hits) >= 2  # the shapes cover a fifth of the images
