"""Arguments of a wrong kind, size or encoding get a clear error, never one from deep inside."""

import os
import traceback
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from torch.nn import Flatten

import sktransfer
from sktransfer import (
    ImageEmbedder,
    MultiViewClassifier,
    PredictionGridDisplay,
    TrainingHistoryDisplay,
    cache_info,
    clear_cache,
    list_backbones,
    make_transfer_pipeline,
    make_transfer_stack,
    merge_caches,
    recommended_backbones,
)
from sktransfer.backbones import Preprocessing, backbone_stages, resolve_backbone, split_backbone
from sktransfer.datasets import load_image_csv, load_image_folder, make_shapes
from sktransfer.exceptions import SktransferError
from sktransfer.images import check_images, decode_image, image_name
from sktransfer.inspection import (
    EmbeddingMapDisplay,
    ImageGridDisplay,
    OcclusionDisplay,
    find_duplicates,
    prediction_table,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::sktransfer.exceptions.CacheWarning"),
    pytest.mark.filterwarnings("ignore::sktransfer.exceptions.RandomWeightsWarning"),
]

HOSTILE = [
    *(10**400, 10**30, 10**9, -1, 0, 1.5, float("nan"), float("inf"), None, True, [], {}, (1,)),
    *(object(), int, np.array(3), np.array("a"), np.float64("nan"), np.arange(4), b"a"),
    *("", "a\0b", "a\ud800b", 5000 * "x", Path("a\0b"), Path("a\ud800b"), pd.NA),
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
        except (ValueError, TypeError, OSError, OverflowError, SktransferError) as error:
            assert str(error)
            inside = traceback.extract_tb(error.__traceback__)[-1].filename
            ours = str(Path(sktransfer.__file__).parent)
            assert inside.startswith(ours) or "sklearn" in inside, (value, error)
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
    for name in ("n_views", "n_test_views", "batch_size", "image_size"):
        for number in (10**30, 10**9, 10**5):
            with pytest.raises(ValueError, match=f"'{name}' parameter of ImageEmbedder must be"):
                ImageEmbedder(augmentation="flip", **{name: number}).fit(images)


def test_images():
    embedder = ImageEmbedder(cache=None, engine="torch", image_size=32).fit([b"any"])
    pixels = np.zeros((40, 40), dtype=np.uint8)
    assert attempt(check_images) == attempt(embedder.fit) == 0
    assert attempt(embedder.transform) == attempt(decode_image) == 0
    assert attempt(lambda value: embedder.transform([value])) == 0
    assert attempt(lambda value: decode_image(pixels, value)) == 4  # large numbers
    assert attempt(lambda value: decode_image(pixels, expected_digest=value)) == 2
    assert attempt(image_name) == len(HOSTILE)


def test_cache():
    assert attempt(cache_info) == attempt(lambda value: clear_cache(cache=value)) == 1
    assert attempt(clear_cache) == 5
    assert attempt(merge_caches) == 0
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_table_is_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match="no table"):
        load_image_csv(tmp_path / "pipe", tmp_path, image_column="id", label_column=None)


@pytest.mark.parametrize("name", ["weights", "image_size", "pooling", "resize"])
def test_backbones(name):
    backbones = [("tiny_mobilenet", {}), ("timm:resnet18", {"weights": None}), (Flatten(), {})]
    for backbone, others in backbones:
        call = lambda value: resolve_backbone(backbone, **others | {name: value})  # noqa: B023, E731
        assert attempt(call) <= 4


def test_choices_of_backbones():
    assert attempt(lambda value: list_backbones(value)) == 5  # strings and None
    for name in ("device", "license", "speed"):
        assert attempt(lambda value: recommended_backbones(**{name: value})) <= 1, name  # noqa: B023
    network = Flatten()
    assert attempt(backbone_stages) == attempt(lambda value: split_backbone(value, 1)) == 0
    assert attempt(lambda value: split_backbone(network, value)) <= 1


@pytest.mark.parametrize("name", [field.name for field in fields(Preprocessing)])
def test_preprocessing(name):
    preprocessing = Preprocessing(32, 40)
    assert attempt(lambda value: replace(preprocessing, **{name: value})) <= 2
    assert attempt(lambda value: replace(preprocessing, mean=3 * (value,))) == 7
    assert attempt(preprocessing.for_size) == 1  # True


@pytest.mark.parametrize("name", ["backbone", "head", "augmentation", "n_views", "n_test_views"])
def test_factories(name):
    others = {"n_views": 2, "augmentation": "flip"}
    assert attempt(lambda value: make_transfer_pipeline(**others | {name: value})) <= 6
    assert attempt(make_transfer_stack) == 0
    assert attempt(lambda value: make_transfer_stack([("a", value)])) <= 6


def test_inspection():
    figure, axes = Figure(), Figure().subplots()
    drawn = {"images": [np.zeros((4, 4, 3), np.uint8)], "captions": [[("a", "b")]]}
    grid = ImageGridDisplay(**drawn)
    history = TrainingHistoryDisplay([{"epoch": 1, "train_loss": 0.5}])
    assert attempt(grid.plot) == attempt(history.plot) == 1  # None
    assert attempt(lambda value: history.plot(axes, line_kw=value)) == 2
    assert attempt(lambda value: ImageGridDisplay(**drawn, n_cols=value)) == 1  # True
    call = lambda value: ImageGridDisplay.from_augmentation(VIEWS, "flip", n_views=value)  # noqa: E731
    assert attempt(call) == 0
    map_ = EmbeddingMapDisplay(points=VIEWS[:, 0, :2], images=np.zeros((12, 4, 4), np.uint8))
    assert attempt(map_.plot) == 1
    assert attempt(lambda value: find_duplicates([b"", b"a"], threshold=value)) <= 5
    model = DummyClassifier().fit(["a", "b"], [0, 1])
    assert attempt(lambda value: prediction_table(value, ["a"])) == 0
    assert attempt(lambda value: prediction_table(model, ["a"], top_k=value)) == 1
    assert attempt(lambda value: OcclusionDisplay.from_estimator(model, VIEWS, n_steps=value)) == 0
    call = lambda value: PredictionGridDisplay.from_predictions([b""], [0], [0], top_k=value)  # noqa: E731
    assert attempt(call) == 1
    call = lambda value: PredictionGridDisplay.from_predictions([b""], [0], [0], figure=value)  # noqa: E731
    assert attempt(call) == 1
    assert len(figure.axes) == 0


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
