"""Searches, folds, stacks and workers embed each image once; a killed run goes on."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from counting import CountingBackbone, OtherCountingBackbone, n_seen
from new_process import CONTEXT, start
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate

from sktransfer import ImageEmbedder, make_transfer_pipeline, make_transfer_stack
from sktransfer.datasets import make_shapes


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    shapes = make_shapes(n_samples=80, image_size=16, random_state=0)
    paths = [str(folder / f"{position:03}.png") for position in range(len(shapes.data))]
    for path, pixels in zip(paths, shapes.data, strict=True):
        Image.fromarray(pixels).save(path)
    shapes.data = np.array(paths)
    return shapes


def logistic():
    return LogisticRegression(max_iter=3000)


@pytest.mark.usefixtures("quick_workers")
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_grid_search_over_a_head_embeds_once(shapes, tmp_path, n_jobs):
    log = tmp_path / "log"
    model = make_transfer_pipeline(CountingBackbone(log), logistic(), batch_size=16)
    search = GridSearchCV(model, {"head__C": np.logspace(-3, 3, 7)}, cv=3, n_jobs=n_jobs)
    search.fit(shapes.data, shapes.target)
    assert n_seen(log) == len(shapes.data)


@pytest.mark.usefixtures("quick_workers")
@pytest.mark.parametrize("n_jobs", [None, 4])
def test_cross_validated_stack_embeds_once_for_each_backbone(shapes, tmp_path, n_jobs):
    logs = [tmp_path / "first", tmp_path / "second"]
    backbones = [CountingBackbone(logs[0]), OtherCountingBackbone(logs[1])]
    stack = make_transfer_stack(backbones, logistic(), cv=3)
    cross_validate(stack, shapes.data, shapes.target, cv=3, n_jobs=n_jobs, error_score="raise")
    assert [n_seen(log) for log in logs] == [len(shapes.data)] * 2


def test_threads_of_one_process_share_the_work(shapes, tmp_path):
    from joblib import parallel_config

    log = tmp_path / "log"
    model = make_transfer_pipeline(CountingBackbone(log), logistic(), batch_size=16)
    with parallel_config("threading", n_jobs=4):
        cross_validate(model, shapes.data, shapes.target, cv=5, error_score="raise")
    assert n_seen(log) == len(shapes.data)


def test_moved_and_copied_images_hit_edited_ones_miss(shapes, tmp_path):
    log = tmp_path / "log"
    embedder = ImageEmbedder(CountingBackbone(log)).fit(shapes.data)
    files = []
    for source in shapes.data[:6]:
        files.append(tmp_path / f"copy-{os.path.basename(source)}")
        files[-1].write_bytes(Path(source).read_bytes())
    rows = embedder.transform(files)
    moved = [file.rename(tmp_path / f"moved-{file.name}") for file in files]
    assert (embedder.transform(moved) == rows).all()
    assert n_seen(log) == 6
    assert (embedder.transform([file.read_bytes() for file in moved]) == rows).all()
    assert n_seen(log) == 6

    before = os.stat(moved[0])
    moved[0].write_bytes(moved[1].read_bytes()[:-12] + b"\0" + moved[1].read_bytes()[-12:])
    os.utime(moved[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    embedder.set_params(on_error="nan").transform(moved)
    assert n_seen(log) == 7


def test_another_size_or_backbone_misses(shapes, tmp_path):
    log = tmp_path / "log"
    few = shapes.data[:5]
    ImageEmbedder(CountingBackbone(log)).fit_transform(few)
    ImageEmbedder(CountingBackbone(log), image_size=12).fit_transform(few)
    ImageEmbedder(OtherCountingBackbone(log)).fit_transform(few)
    assert n_seen(log) == 15


CHILD = """
import glob, time
import numpy as np
import torch
from counting import CountingBackbone
from sktransfer import ImageEmbedder

class Slow(CountingBackbone):
    def forward(self, pixels):
        time.sleep(0.02)
        return super().forward(pixels)

torch.set_num_threads(2)
files = sorted(glob.glob(folder + "/*.png"))
embedder = ImageEmbedder(Slow(log), batch_size=16, cache=cache).fit(files)
ready.set()
np.save(out, embedder.transform(files))
"""


def test_killed_runs_are_continued_and_repeat_little(shapes, tmp_path):
    folder = os.path.dirname(shapes.data[0])
    log, cache, out = (str(tmp_path / name) for name in ("log", "cache", "rows.npy"))
    rng, kills = np.random.default_rng(0), 0
    finished = False
    while not finished:
        ready = CONTEXT.Event()
        child = start(CHILD, folder=folder, log=log, cache=cache, out=out, ready=ready)
        assert ready.wait(timeout=60)
        if kills < 4:
            time.sleep(rng.uniform(0.02, 0.25))
            child.kill()
            kills += 1
        child.join(timeout=60)
        finished = child.exitcode == 0
        assert finished or child.exitcode == -signal.SIGKILL
    expected = ImageEmbedder(CountingBackbone(tmp_path / "x"), cache=None).fit_transform(
        sorted(shapes.data)
    )
    assert (np.load(out) == expected).all()
    assert len(shapes.data) <= n_seen(log) <= len(shapes.data) + kills * 16
