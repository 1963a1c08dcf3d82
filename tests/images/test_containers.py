"""What holds images, and what it says to anything else."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from image_data import smooth_pixels
from PIL import Image
from sklearn.utils import Bunch

from sktransfer.images import check_images, image_name

IMAGE = Image.fromarray(smooth_pixels())
PATHS = ["a.jpg", "b.png", "c.webp"]


@pytest.mark.parametrize(
    "container",
    [
        PATHS,
        tuple(PATHS),
        np.array(PATHS),
        np.array(PATHS, dtype=object),
        np.array(PATHS, dtype=object)[:, None],
        np.array(PATHS)[:, None],
        pd.Series(PATHS, index=[7, 3, 5]),
        pd.Series(PATHS, dtype=object),
        pd.Series(PATHS, dtype="category"),
        pd.DataFrame({"path": PATHS}),
    ],
    ids=lambda container: f"{type(container).__name__}-{getattr(container, 'shape', '')}",
)
def test_containers_of_paths_become_a_flat_list(container):
    images = check_images(container)
    assert images == PATHS
    assert all(type(path) is str for path in images)


def test_polars_containers_become_a_flat_list():
    polars = pytest.importorskip("polars")
    assert check_images(polars.Series(PATHS)) == PATHS
    assert check_images(polars.DataFrame({"path": PATHS})) == PATHS


@pytest.mark.parametrize("shape", [(4, 8, 9), (4, 8, 9, 1), (4, 8, 9, 3), (4, 8, 9, 4)])
def test_stacked_arrays_give_views(shape):
    stack = np.zeros(shape, dtype=np.uint8)
    images = check_images(stack)
    assert [image.shape for image in images] == [shape[1:]] * 4
    assert all(np.shares_memory(image, stack) for image in images)


def test_tensor_batches_give_views():
    stack = torch.zeros(4, 3, 8, 9, dtype=torch.uint8)
    images = check_images(stack)
    assert [tuple(image.shape) for image in images] == [(3, 8, 9)] * 4
    stack += 1
    assert all((image == 1).all() for image in images)


def test_anything_that_turns_into_an_array_is_taken():
    class Wrapped:
        def __array__(self, dtype=None, copy=None):
            return np.zeros((2, 8, 9), dtype=np.uint8)

    assert len(check_images(Wrapped())) == 2


def test_a_list_may_mix_kinds():
    mixed = ["a.jpg", Path("b.jpg"), b"\xff\xd8", IMAGE, np.zeros((3, 3)), torch.zeros(3, 4, 4)]
    assert all(one is other for one, other in zip(check_images(mixed), mixed, strict=True))


@pytest.mark.parametrize(
    ("X", "error", "hint"),
    [
        ("a.jpg", TypeError, r"\[X\]"),
        (Path("a.jpg"), TypeError, r"\[X\]"),
        (str(Path(__file__).parent), TypeError, r"X is a folder .*load_image_folder"),
        (b"\xff\xd8", TypeError, r"\[X\]"),
        (Image.new("RGB", (4, 4)), TypeError, r"\[X\]"),
        (3, TypeError, "list"),
        ((path for path in PATHS), TypeError, r"list\(X\)"),
        ({"a.jpg": 1}, TypeError, r"list\(X\)"),
        (Bunch(data=PATHS, target=[0, 1]), TypeError, r'X is a Bunch.*X\["data"\]'),
        ([], ValueError, "empty"),
        (np.zeros((0, 8, 8), dtype=np.uint8), ValueError, "empty"),
        (pd.Series([], dtype=object), ValueError, "empty"),
        (np.array("a.jpg"), ValueError, r"\(n,\)"),
        (np.array([PATHS, PATHS], dtype=object), ValueError, r"\(n, 1\)"),
        (np.array([b"a.jpg"]), TypeError, r"X.astype\(str\)"),
        (np.zeros(4), ValueError, r"\(n, H, W\)"),
        (np.zeros((4, 64)), ValueError, "reshape"),
        (np.zeros((8, 9, 3), dtype=np.uint8), ValueError, r"X\[None\]"),
        (np.zeros((4, 3, 8, 9)), ValueError, r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((4, 8, 9, 5)), ValueError, "list"),
        (np.zeros((4, 8, 9), dtype=np.int64), ValueError, r"astype\(np.uint8\)"),
        (np.zeros((4, 8, 9), dtype=bool), ValueError, r"astype\(float\)"),
        (torch.zeros(3, 8, 9), ValueError, r"X\[None\]"),
        (torch.zeros(4, 8, 9, 3), ValueError, r"permute\(0, 3, 1, 2\)"),
        (pd.DataFrame({"path": PATHS, "y": [0, 1, 2]}), ValueError, r"'path', 'y'"),
    ],
)
def test_what_cannot_hold_images_says_what_to_pass(X, error, hint):
    with pytest.raises(error, match=hint):
        check_images(X)


def test_only_paths_have_names():
    assert image_name(Path("photos/a.jpg")) == os.path.join("photos", "a.jpg")
    assert image_name(np.str_("a.jpg")) == "a.jpg"
    assert [image_name(other) for other in (b"a.jpg", IMAGE, np.zeros((4, 4)))] == [None] * 3
