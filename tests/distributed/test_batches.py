"""`EmbedBatch`, alone and in the engines that call it."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sktransfer import ImageEmbedder
from sktransfer.distributed import EmbedBatch
from sktransfer.exceptions import ImageReadError


def small(**parameters):
    return ImageEmbedder("tiny_mobilenet", image_size=32, engine="torch", **parameters)


@pytest.fixture(scope="module")
def paths(files):
    return [*files[:5], "missing.png", *files[5:9]]


@pytest.fixture(scope="module")
def expected(files):
    rows = list(small(cache=None).fit_transform(files[:9]))
    return [*rows[:5], None, *rows[5:]]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for row, right in zip(found, expected, strict=True):
        assert (row is None) == (right is None)
        if right is not None:
            np.testing.assert_array_equal(np.asarray(row, dtype=np.float32), right)


def test_columns_in_a_dict(paths, expected):
    batch = {"path": np.array(paths), "id": np.arange(10)}
    embedded = EmbedBatch(small())(batch)
    assert_same(embedded["embedding"], expected)
    assert list(batch) == ["path", "id"] and list(embedded) == ["path", "id", "embedding"]


def test_frame(paths, expected):
    batch = pd.DataFrame({"file": paths, "embedding": 0}, index=range(5, 15))
    embedded = EmbedBatch(small(), column="file")(batch)
    assert_same(embedded["embedding"], expected)
    assert embedded.index.equals(batch.index) and (batch["embedding"] == 0).all()


@pytest.mark.parametrize("make", [pa.table, pa.RecordBatch.from_pydict])
def test_arrow(make, paths, expected):
    batch = make({"path": paths, "row": list(range(10))})
    embedded = EmbedBatch(small(), output="row")(batch)
    assert type(embedded) is type(batch) and embedded.column_names == ["path", "row"]
    assert embedded.schema.field("row").type == pa.list_(pa.float32(), len(expected[0]))
    assert_same(embedded["row"].to_pylist(), expected)
    empty = EmbedBatch(small())(batch.slice(0, 0))
    assert empty.schema.field("embedding").type == embedded.schema.field("row").type


def test_pixels_and_bytes(paths):
    pixels = np.zeros((2, 20, 20, 3), dtype=np.uint8)
    rows = EmbedBatch(small(), column="image")({"image": pixels})["embedding"]
    np.testing.assert_array_equal(rows, small().fit_transform(pixels))
    content = [Path(path).read_bytes() for path in paths[:2]]
    rows = EmbedBatch(small(), column="image")({"image": content})["embedding"]
    np.testing.assert_array_equal(rows, small().fit_transform(paths[:2]))


def test_unreadable_images_can_be_errors(paths):
    with pytest.raises(ImageReadError, match=r"\[5\] missing.png(.|\n)*EmbedBatch") as caught:
        EmbedBatch(small(), on_error="raise")({"path": paths})
    assert [error.index for error in caught.value.errors] == [5]


def test_is_small_in_a_pickle_and_runs_in_threads(paths, expected):
    embed = EmbedBatch(small())
    embed({"path": paths})
    assert len(pickle.dumps(embed)) < 2000
    assert vars(embed.embedder).keys() == vars(copy.copy(small())).keys()  # nothing fitted
    assert_same(pickle.loads(pickle.dumps(embed))({"path": paths})["embedding"], expected)


def test_wrong_arguments(files):
    with pytest.raises(ValueError, match=r'on_error=.*"null" or "raise"'):
        EmbedBatch(on_error="nan")
    with pytest.raises(ValueError, match="n_views=2"):
        EmbedBatch(small(augmentation="flip", n_views=2))
    with pytest.raises(ValueError, match=r"no column 'path'; it has \['file'\]"):
        EmbedBatch(small())({"file": files})
    with pytest.raises(TypeError, match="The batch is a list"):
        EmbedBatch(small())(files)


@pytest.mark.parametrize("form", [None, "arrow"])
def test_datasets(paths, expected, form):
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    images = datasets.Dataset.from_dict({"path": paths}).with_format(form)
    embedded = images.map(EmbedBatch(small()), batched=True, batch_size=5, num_proc=2)
    assert_same(embedded.with_format(None)["embedding"], expected)


@pytest.mark.filterwarnings("ignore")
def test_ray(paths, expected):
    ray = pytest.importorskip("ray", reason="needs Ray")
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        images = ray.data.from_items([{"path": path} for path in paths]).map_batches(
            EmbedBatch,
            fn_constructor_args=(small(),),
            batch_format="pyarrow",
            batch_size=5,
            concurrency=2,
        )
        rows = {row["path"]: row["embedding"] for row in images.take_all()}
    finally:
        ray.shutdown()
    assert_same([rows[path] for path in paths], expected)
