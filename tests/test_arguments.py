"""Arguments of a wrong kind, size or encoding get a clear error, never one from deep inside."""

import errno
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import sktransfer
from sktransfer import ImageEmbedder, MultiViewClassifier, cache_info, clear_cache
from sktransfer.datasets import load_image_csv, load_image_folder, make_shapes
from sktransfer.exceptions import SktransferError
from sktransfer.images import check_images, decode_image, image_name

pytestmark = [
    pytest.mark.filterwarnings("ignore::sktransfer.exceptions.CacheWarning"),
    pytest.mark.filterwarnings("ignore::sktransfer.exceptions.RandomWeightsWarning"),
]

HOSTILE = [
    *(10**30, 10**9, -1, 0, 1.5, float("nan"), float("inf"), None, True, [], {}, (1,)),
    *(object(), int, np.array(3), np.array("a"), np.float64("nan"), np.arange(4), b"a"),
    *("", "a\0b", "a\ud800b", 5000 * "x", Path("a\0b"), Path("a\ud800b")),
]
VIEWS = np.random.default_rng(0).normal(size=(12, 2, 3))
TARGET = np.arange(12) % 2


def attempt(call):
    """Call with each hostile value; return how many it takes. Errors are ours or scikit-learn's."""
    n_taken = 0
    for value in HOSTILE:
        try:
            call(value)
            n_taken += 1
        except (ValueError, TypeError, OSError, SktransferError) as error:
            assert str(error)
            inside = traceback.extract_tb(error.__traceback__)[-1].filename
            too_long = getattr(error, "errno", None) == errno.ENAMETOOLONG
            ours = str(Path(sktransfer.__file__).parent)
            assert too_long or inside.startswith(ours) or "sklearn" in inside, (value, error)
    return n_taken


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    """A working directory in which values that are paths may lie."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.parametrize("name", ImageEmbedder().get_params())
def test_embedder(name):
    images = np.zeros((2, 40, 40, 3), dtype=np.uint8)

    def call(value):
        parameters = {"backbone": "tiny_mobilenet", "image_size": 32, "cache": None}
        parameters |= {"augmentation": "crop", "engine": "torch", name: value}
        ImageEmbedder(**parameters).fit_transform(images)

    assert attempt(call) <= 14


def test_numbers_of_an_embedder_have_upper_limits():
    images = np.zeros((2, 40, 40, 3), dtype=np.uint8)
    for name in ("n_views", "n_test_views", "batch_size"):
        for number in (10**30, 10**9, 10**5):
            with pytest.raises(ValueError, match=f"'{name}' parameter of ImageEmbedder must be"):
                ImageEmbedder(augmentation="flip", **{name: number}).fit(images)


def test_images():
    embedder = ImageEmbedder(cache=None, engine="torch", image_size=32).fit([b"any"])
    pixels = np.zeros((40, 40), dtype=np.uint8)
    assert attempt(check_images) == attempt(embedder.fit) == 1  # a tuple, whatever is in it
    assert attempt(embedder.transform) == attempt(decode_image) == 0
    assert attempt(lambda value: embedder.transform([value])) == 0
    assert attempt(lambda value: decode_image(pixels, value)) == 3  # large numbers
    assert attempt(lambda value: decode_image(pixels, expected_digest=value)) == 2
    assert attempt(image_name) == len(HOSTILE)


def test_cache():
    assert attempt(cache_info) == attempt(lambda value: clear_cache(cache=value)) == 2
    assert attempt(clear_cache) == 5
    assert attempt(lambda value: clear_cache(paths_only=value)) == 1


@pytest.mark.parametrize(
    "name", ["n_samples", "n_classes", "image_size", "noise", "folder", "format", "random_state"]
)
def test_shapes(name, tmp_path):
    others = {"folder": tmp_path / "shapes"} if name == "format" else {}
    assert attempt(lambda value: make_shapes(**{"n_samples": 2, name: value} | others)) <= 5


def test_class_folders(tmp_path):
    make_shapes(8, folder=tmp_path / "shapes", random_state=0)
    assert attempt(load_image_folder) == 0
    for form in (lambda value: value, lambda value: [value]):
        call = lambda value: load_image_folder(tmp_path / "shapes", extensions=form(value))  # noqa: B023, E731
        assert attempt(call) == 0


def test_tables(tmp_path):
    (tmp_path / "a.png").touch()
    table = tmp_path / "table.csv"
    table.write_text("id,label\na.png,x\n")
    right = {"csv": table, "image_dir": tmp_path, "image_column": "id", "label_column": "label"}
    assert load_image_csv(**right).target.tolist() == ["x"]
    for name in (*right, "suffix", "where", "delimiter", "encoding"):
        assert attempt(lambda value: load_image_csv(**right | {name: value})) <= 2, name  # noqa: B023
    assert attempt(lambda value: load_image_csv(**right, where={"label": value})) == 0


def test_views():
    model = MultiViewClassifier(LogisticRegression())
    assert attempt(lambda value: MultiViewClassifier(value).fit(VIEWS, TARGET)) == 0
    assert attempt(lambda value: model.fit(value, TARGET)) == 0
    assert attempt(lambda value: model.fit(VIEWS, value)) == 0
    model.fit(VIEWS, TARGET)
    assert attempt(model.predict) == attempt(model.predict_proba) == 0
    for shape in ((12, 0, 3), (12, 2, 0), (0, 2, 3)):
        with pytest.raises(ValueError, match="minimum of 1"):
            model.predict(np.zeros(shape))


@pytest.mark.parametrize("dtype", ["string", "Int64", "boolean", "category"])
def test_targets_in_extension_arrays_of_pandas(dtype):
    y = pd.array(TARGET.astype(object), dtype=dtype)
    model = MultiViewClassifier(LogisticRegression()).fit(
        VIEWS, y, pd.array(np.ones(12), "Float64")
    )
    expected = MultiViewClassifier(LogisticRegression()).fit(VIEWS, TARGET)
    np.testing.assert_array_equal(model.predict_proba(VIEWS), expected.predict_proba(VIEWS))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_views_as_tensors_with_gradients(dtype):
    tensor = torch.tensor(VIEWS, dtype=dtype, requires_grad=True)
    model = MultiViewClassifier(LogisticRegression()).fit(tensor, torch.tensor(TARGET))
    expected = MultiViewClassifier(LogisticRegression()).fit(VIEWS, TARGET)
    tolerance = 0 if dtype == torch.float64 else 0.02
    np.testing.assert_allclose(
        model.predict_proba(tensor), expected.predict_proba(VIEWS), atol=tolerance
    )
