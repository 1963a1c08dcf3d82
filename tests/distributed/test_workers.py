"""Images embedded by the workers of joblib's backends: Dask, loky."""

import os
import signal
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from counting import (
    CountingBackbone,
    DyingBackbone,
    LocatedBackbone,
    OtherCountingBackbone,
    n_seen,
    processes,
)
from new_process import start
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate

from sktransfer import ImageEmbedder, make_transfer_pipeline, make_transfer_stack
from sktransfer.distributed import EmbedBatch, write_embeddings


@pytest.fixture(params=["dask", "loky"])
def workers(request):
    """A context in which joblib has two workers in other processes."""
    if request.param == "dask":
        request.getfixturevalue("dask_client")
        return lambda: joblib.parallel_config("dask", n_jobs=2)
    request.getfixturevalue("quick_workers")
    return lambda: joblib.parallel_config(n_jobs=2)


@pytest.fixture
def expected(files, tmp_path):
    return ImageEmbedder(CountingBackbone(tmp_path / "expected"), cache=None).fit_transform(files)


def test_workers_embed_and_the_caller_keeps(workers, files, expected, tmp_path):
    log = tmp_path / "log"
    embedder = ImageEmbedder(LocatedBackbone(log), cache=tmp_path / "cache").fit(files)
    with workers():
        rows = embedder.transform(files)
    np.testing.assert_array_equal(rows, expected)
    assert n_seen(log) == len(files)
    assert len(processes(log)) == 2 and os.getpid() not in processes(log)
    with workers():
        np.testing.assert_array_equal(embedder.transform(files), expected)
    np.testing.assert_array_equal(embedder.transform(files), expected)
    assert n_seen(log) == len(files)


def test_all_kinds_of_images_are_sent(dask_client, files, tmp_path):
    turned = Image.open(files[0])
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    images = [
        *(files[0], Path(files[1]), Path(files[2]).read_bytes(), np.zeros((9, 9)) + 0.5),
        *(torch.ones(3, 9, 9), Image.open(tmp_path / "turned.jpg"), Image.open(files[3])),
        *("missing.png", b"no image", files[0], None),
    ]
    embedder = ImageEmbedder("tiny_mobilenet", image_size=32, engine="torch", on_error="nan")
    embedder.set_params(augmentation="flip", n_views=2).fit(images)
    with pytest.warns(UserWarning, match="3 of 11 images"), joblib.parallel_config("dask"):
        rows = embedder.transform(images)
        errors = embedder.errors_
    with pytest.warns(UserWarning, match="3 of 11 images"):
        alone = embedder.set_params(cache=None).transform(images)
    np.testing.assert_array_equal(rows, alone)
    assert errors == embedder.errors_ and [error.index for error in errors] == [7, 8, 10]


def test_paths_that_workers_cannot_see_are_sent_as_bytes(dask_client, files, expected, monkeypatch):
    def hide(hidden):
        os.path._exists, os.path.exists = os.path.exists, lambda path: False

    dask_client.run(hide, None)
    try:
        monkeypatch.chdir(os.path.dirname(files[0]))
        names = list(map(os.path.basename, files))
        embedder = ImageEmbedder(CountingBackbone("/dev/null"), cache=None).fit(names)
        with joblib.parallel_config("dask"):
            np.testing.assert_array_equal(embedder.transform(names), expected)
    finally:
        dask_client.run(lambda: setattr(os.path, "exists", os.path._exists))


def test_frames_of_dask_are_embedded_in_batches(dask_client, files):
    dask_frames = pytest.importorskip("dask.dataframe")
    paths = pd.DataFrame({"path": [*files[:9], "missing.png"]})
    embedder = ImageEmbedder("tiny_mobilenet", image_size=32, engine="torch")
    batches = dask_frames.from_pandas(paths, npartitions=2).map_partitions(EmbedBatch(embedder))
    *rows, last = batches.compute()["embedding"]
    np.testing.assert_array_equal(rows, embedder.fit_transform(files[:9]))
    assert last is None


def logistic():
    return LogisticRegression(max_iter=3000)


def test_searches_embed_once(dask_client, files, tmp_path):
    logs, y = [tmp_path / "first", tmp_path / "second"], np.arange(len(files)) % 2
    backbones = [CountingBackbone(logs[0]), OtherCountingBackbone(logs[1])]
    cache = tmp_path / "cache"  # the workers were started with another home
    model = make_transfer_pipeline(backbones[0], logistic(), batch_size=8, cache=cache)
    with joblib.parallel_config("dask"):
        search = GridSearchCV(model, {"head__C": [0.1, 1.0, 10.0]}, cv=3, error_score="raise")
        search.fit(files, y)
        assert n_seen(logs[0]) == len(files)
        stack = make_transfer_stack(backbones, logistic(), cv=3, cache=cache)
        cross_validate(stack, files, y, cv=3, error_score="raise")
    assert n_seen(logs[0]) == len(files)
    assert n_seen(logs[1]) == len(files)


@pytest.mark.parametrize(
    ("workers", "large"), [("dask", 10**5), ("dask", 0), ("loky", 10**5)], indirect=["workers"]
)
def test_killed_workers_are_replaced(workers, large, files, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("sktransfer._engine._embedding._LARGE", large)
    log = tmp_path / "log"
    embedder = ImageEmbedder(DyingBackbone(log), batch_size=2, cache=None).fit(files)
    with workers():
        rows = embedder.transform(files)
    np.testing.assert_array_equal(rows, expected)
    assert len(processes(log)) >= 2 and len(files) <= n_seen(log) <= len(files) + 20


DRIVER = """
import os, signal
from pathlib import Path
import joblib
import numpy as np
from distributed import Client
from counting import LocatedBackbone
from sktransfer import ImageEmbedder
from sktransfer.cache import cache_info
from sktransfer.cache._rows import EmbeddingCache

write = EmbeddingCache.write

def write_and_die(self, rows):
    write(self, rows)
    if n_kept and sum(file.n_rows for file in cache_info(cache).backbones) >= n_kept:
        os.kill(os.getpid(), signal.SIGKILL)

EmbeddingCache.write = write_and_die
embedder = ImageEmbedder(LocatedBackbone(Path(log)), batch_size=2, cache=cache).fit(files)
with Client(address), joblib.parallel_config("dask"):
    np.save(out, embedder.transform(files))
"""


def test_killed_drivers_are_continued(dask_client, files, expected, tmp_path):
    log, out = tmp_path / "log", str(tmp_path / "rows.npy")
    names = {"log": str(log), "cache": str(tmp_path / "cache"), "files": files, "out": out}
    names["address"] = dask_client.scheduler.address
    for n_kept in (10, 20, None):  # a driver is killed once so many rows are on disk
        deadline = time.monotonic() + 60
        while _n_tasks(dask_client):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        before = n_seen(log)
        driver = start(DRIVER, n_kept=n_kept, **names)
        driver.join(timeout=60)
        assert driver.exitcode == (-signal.SIGKILL if n_kept else 0)
    np.testing.assert_array_equal(np.load(out), expected)
    assert n_seen(log) - before <= len(files) - 20


def _n_tasks(client):
    """Return how many tasks the scheduler and the workers have, also of a killed driver."""
    counts = client.run(lambda dask_worker: len(dask_worker.state.tasks)).values()
    return sum(counts) + client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))


def test_files_are_written_from_workers(dask_client, files, expected, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    log = tmp_path / "log"
    with joblib.parallel_config("dask"):
        write_embeddings(
            ImageEmbedder(LocatedBackbone(log)), files, tmp_path / "out", rows_per_file=15
        )
    rows = np.array(parquet.read_table(tmp_path / "out")["embedding"].to_pylist(), np.float32)
    np.testing.assert_array_equal(rows, expected)
    assert os.getpid() not in processes(log)


@pytest.mark.parametrize("backend", ["threading", "multiprocessing", "sequential"])
def test_other_backends_leave_the_work_here(backend, files, expected, tmp_path):
    log = tmp_path / "log"
    with joblib.parallel_config(backend, n_jobs=2):
        rows = ImageEmbedder(LocatedBackbone(log), cache=None).fit_transform(files)
    np.testing.assert_array_equal(rows, expected)
    assert processes(log) == {os.getpid()}
