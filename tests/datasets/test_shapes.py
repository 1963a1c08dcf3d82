"""Drawn shapes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from sktransfer.datasets import load_image_folder, make_shapes


def test_shapes_are_balanced_images_with_names():
    shapes = make_shapes(n_samples=42, n_classes=6, image_size=40, random_state=0)
    assert shapes.data.shape == (42, 40, 40, 3)
    assert shapes.data.dtype == np.uint8
    assert shapes.target_names.tolist() == [
        "circle",
        "cross",
        "ring",
        "square",
        "star",
        "triangle",
    ]
    assert np.unique(shapes.target, return_counts=True)[1].tolist() == [7] * 6
    assert "42 images, 6 classes" in shapes.DESCR


def test_shapes_repeat_with_a_seed():
    first, again, other = (make_shapes(8, random_state=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.data, again.data)
    assert first.target.tolist() == again.target.tolist()
    assert not np.array_equal(first.data, other.data)


def test_noise_is_what_it_says():
    clean, noisy = (make_shapes(4, noise=noise, random_state=0).data[0] for noise in (0, 0.1))
    # The same generator draws both, so that the first image differs by its noise alone.
    middle = (clean > 80) & (clean < 175)
    assert np.std(noisy[middle] / 255 - clean[middle] / 255) == pytest.approx(0.1, rel=0.1)


def test_raw_pixels_do_not_tell_shapes_apart():
    shapes = make_shapes(n_samples=160, image_size=24, random_state=0)
    pixels = shapes.data.reshape(len(shapes.data), -1) / 255
    head = LogisticRegression(max_iter=300)
    assert cross_val_score(head, pixels, shapes.target, cv=4).mean() < 0.6


def test_the_area_of_a_shape_is_what_geometry_says():
    """So that each class really is its shape: share of the circle around it that is covered."""
    shapes = make_shapes(n_samples=60, n_classes=6, image_size=128, noise=0, random_state=0)
    radius = 0.3  # on average, between 0.22 and 0.38
    covered = {"circle": 1, "ring": 1 - 0.36, "square": 2 / np.pi, "triangle": 0.4135}
    for name, share in covered.items():
        areas = [ink_share(image) for image in shapes.data[shapes.target == name]]
        assert np.mean(areas) == pytest.approx(share * np.pi * radius**2, rel=0.3)


def ink_share(image):
    """The share of pixels on the other side of mid-gray than the corners of the image."""
    light = image.mean(axis=2) > 127.5
    return float((light != light[0, 0]).mean())


@pytest.mark.parametrize("format", ["png", "jpg"])
def test_shapes_can_be_written_as_class_folders(tmp_path, format):
    drawn = make_shapes(12, random_state=0)
    written = make_shapes(12, folder=tmp_path / "shapes", format=format, random_state=0)
    assert written.target.tolist() == drawn.target.tolist()
    for path, label, pixels in zip(written.data, drawn.target, drawn.data, strict=True):
        assert Path(path).parent.name == label
        difference = np.asarray(Image.open(path), dtype=float) - pixels
        assert abs(difference).mean() <= (0 if format == "png" else 20)
    loaded = load_image_folder(tmp_path / "shapes")
    assert sorted(zip(loaded.data, loaded.target, strict=True)) == sorted(
        zip(written.data, written.target, strict=True)
    )


@pytest.mark.parametrize(
    "parameters",
    [{"n_samples": 0}, {"n_classes": 7}, {"image_size": 8}, {"noise": 2}, {"format": "gif"}],
    ids=str,
)
def test_shapes_that_cannot_be_drawn_are_refused(parameters):
    with pytest.raises(ValueError, match=f"'{next(iter(parameters))}' parameter of make_shapes"):
        make_shapes(**parameters)
