"""What holds images, and what it says to anything else."""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from image_data import smooth_pixels
from PIL import Image
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestCentroid
from sklearn.utils import Bunch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from sktransfer import make_transfer_pipeline
from sktransfer.datasets import make_shapes
from sktransfer.images import check_images, decode_image, image_name

IMAGE = Image.fromarray(smooth_pixels())
PATHS = ["a.jpg", "b.png", "c.webp"]


class Lazy:
    """Something like a LazyFrame of polars, or a collection of Dask."""

    def __init__(self, method, **attributes):
        vars(self).update({method: list, **attributes})


class Listed:
    """Like a PyTorch dataset of images; says how often it was read."""

    def __init__(self, images):
        self.images, self.n_read = images, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.n_read += 1
        return self.images[index]


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


@pytest.mark.parametrize("images", [PATHS, [b"a", b"b", b"c"]], ids=["paths", "bytes"])
def test_columns_of_polars_pyarrow_and_pandas_become_a_flat_list(images):
    polars, pyarrow = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    assert check_images(polars.Series(images)) == images
    assert check_images(polars.DataFrame({"image": images})) == images
    assert check_images(pyarrow.array(images)) == images
    assert check_images(pyarrow.chunked_array([images[:1], images[1:]])) == images
    assert check_images(pyarrow.table({"image": images})) == images
    assert check_images(pd.Series(images)) == images
    assert (
        check_images(pd.Series(images, dtype=pd.ArrowDtype(pyarrow.array(images).type))) == images
    )
    with pytest.raises(ValueError, match=r"X \(Table\) has the columns.*X\['image'\]"):
        check_images(pyarrow.table({"y": [0, 1, 2], "image": images}))
    with pytest.raises(ValueError, match=r"X \(dict\) has the .* keys \['image'\].*X\['image'\]"):
        check_images({"image": images})
    with pytest.raises(TypeError, match=r"X\.collect\(\)"):
        check_images(polars.LazyFrame({"image": images}))


def test_columns_of_hugging_face_become_a_flat_list(tmp_path):
    datasets = pytest.importorskip("datasets", minversion="4.0")
    shapes = make_shapes(12, n_classes=2, folder=tmp_path, random_state=0)
    table = {"image": list(shapes.data), "label": list(shapes.target)}
    decoded = datasets.Dataset.from_dict(table).cast_column("image", datasets.Image())
    encoded = decoded.cast_column("image", datasets.Image(decode=False))
    assert check_images(encoded["image"]) == list(shapes.data)
    assert all(isinstance(image, Image.Image) for image in check_images(decoded["image"]))
    model = make_transfer_pipeline("tiny_mobilenet", NearestCentroid(), engine="torch")
    model.set_params(embedder__image_size=64)
    for column in (decoded["image"], encoded["image"]):
        search = GridSearchCV(model, {"head__shrink_threshold": [None]}, cv=2)
        assert search.fit(column, shapes.target).predict(column).shape == (12,)
    with pytest.raises(ValueError, match=r"X \(Dataset\) has .*X\['image'\]"):
        check_images(decoded)
    with pytest.raises(ValueError, match=r"keys \['train'\]; .*X\['train'\]"):
        check_images(datasets.DatasetDict({"train": decoded}))


def test_a_dict_of_bytes_and_path_is_an_image(tmp_path):
    pixels, path = smooth_pixels(), tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    images = [{"bytes": path.read_bytes(), "path": None}, {"bytes": None, "path": str(path)}]
    assert check_images(images) == [path.read_bytes(), str(path)]
    for image in images:
        np.testing.assert_array_equal(decode_image(image).permute(1, 2, 0), pixels)


def test_any_sequence_is_taken():
    assert check_images(Listed(PATHS)) == PATHS


def test_pairs_of_a_dataset_fail_at_the_first(tmp_path):
    pairs = Listed([(IMAGE, 0), (IMAGE, 1)])
    with pytest.raises(TypeError, match=r"X \(Listed\) begins with tuple.*pair\[0\]"):
        check_images(pairs)
    assert pairs.n_read == 1
    make_shapes(4, n_classes=2, folder=tmp_path, random_state=0)
    with pytest.raises(TypeError, match=r"load_image_dataset\(X\)\.data, .* X\.samples"):
        check_images(ImageFolder(tmp_path))


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA], ids=str)
def test_a_missing_image_is_an_unreadable_one(missing):
    assert check_images([missing, "a.jpg"])[0] is missing


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
        ({"a.jpg": 1}, ValueError, r"X\['a\.jpg'\]"),
        (Bunch(data=PATHS, target=[0, 1]), ValueError, r"X \(Bunch\).*X\['data'\]"),
        (DataLoader(PATHS), TypeError, r"X\.dataset"),
        (Lazy("collect"), TypeError, r"X is a lazy Lazy; pass what X\.collect\(\) returns"),
        (Lazy("compute", npartitions=2), TypeError, r"X\.compute\(\)"),
        ([("a.jpg", 1), ("b.jpg", 0)], TypeError, r"\[pair\[0\] for pair in X\]"),
        ([{"img": IMAGE, "label": 1}], TypeError, r"\[element\['img'\] for element in X\]"),
        ([BytesIO(b"\xff")], TypeError, r"\[file\.read\(\) for file in X\]"),
        ([[[0, 1], [1, 0]]], TypeError, r"X \(list\) begins with list .*expected a path"),
        ([7, 8], TypeError, r"begins with int 7, which is not an image: expected a path"),
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
        (np.zeros((4, 8, 9), dtype=np.uint16), ValueError, r"convert 0 to 65535 with X / 65535\.$"),
        (torch.zeros(3, 8, 9), ValueError, r"X\[None\]"),
        (torch.zeros(4, 8, 9, 3), ValueError, r"permute\(0, 3, 1, 2\)"),
        (pd.DataFrame({"y": [0, 1, 2], "path": PATHS}), ValueError, r"'y', 'path'.*X\['path'\]"),
    ],
)
def test_what_cannot_hold_images_says_what_to_pass(X, error, hint):
    with pytest.raises(error, match=hint):
        check_images(X)


def test_only_paths_have_names():
    assert image_name(Path("photos/a.jpg")) == os.path.join("photos", "a.jpg")
    assert image_name(np.str_("a.jpg")) == "a.jpg"
    assert [image_name(other) for other in (b"a.jpg", IMAGE, np.zeros((4, 4)))] == [None] * 3
