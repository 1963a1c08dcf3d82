"""Callbacks of scikit-learn see one tree, from a search to the epochs of a head."""

import pickle

import numpy as np
import pytest
from counting import CountingBackbone
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sktransfer import (
    FineTuneClassifier,
    HeadClassifier,
    HeadRegressor,
    ImageEmbedder,
    MultiViewClassifier,
    make_transfer_pipeline,
)
from sktransfer.datasets import make_shapes

callback = pytest.importorskip("sklearn.callback", reason="needs scikit-learn 1.9")


class Recorder:
    """Records the path of each task that begins and ends; stops after some epochs."""

    max_propagation_depth = None

    def __init__(self, n_epochs=None):
        self.begun, self.ended, self.n_epochs = [], [], n_epochs

    def setup(self, estimator, context):
        self.begun.clear()
        self.ended.clear()

    def teardown(self, estimator, context):
        assert sorted(self.begun) == sorted(self.ended)

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(self.path(context))

    def on_fit_task_end(self, estimator, context):
        self.ended.append(self.path(context))
        n_epochs = sum(path.endswith("epoch") for path in self.ended)
        return context.task_name == "epoch" and n_epochs == self.n_epochs

    @staticmethod
    def path(context):
        name = f"{context.estimator_name} {context.task_name}"
        return f"{Recorder.path(context.parent)} > {name}" if context.parent else name


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(40, 6)), np.arange(40) % 2


@pytest.mark.parametrize("Head", [HeadClassifier, HeadRegressor])
def test_epochs_are_tasks_and_can_be_the_last(Head, rows):
    recorder = Recorder()
    head = Head(max_epochs=3).set_callbacks(recorder).fit(*rows)
    name = Head.__name__
    assert recorder.ended == 3 * [f"{name} fit > {name} epoch"] + [f"{name} fit"]
    assert Head(max_epochs=9).set_callbacks(Recorder(2)).fit(*rows).n_epochs_ == 2
    assert b"Recorder" not in pickle.dumps(head) and not hasattr(head, "_callback_fit_ctx")


def test_one_tree_from_search_to_epochs(tmp_path):
    shapes, recorder = make_shapes(24, image_size=16, random_state=0), Recorder()
    model = make_transfer_pipeline(
        CountingBackbone(tmp_path / "log"),
        HeadClassifier(max_epochs=2),
        augmentation="flip",
        n_views=2,
    )
    search = GridSearchCV(model, {"head__estimator__lr": [0.1, 0.01]}, cv=2)
    search.set_callbacks(recorder).fit(shapes.data, shapes.target)
    epochs = [path.split(" > ") for path in recorder.ended if path.endswith("epoch")]
    assert len(epochs) == 2 * (2 * 2 + 1)
    assert epochs[0][0].startswith("GridSearchCV")
    assert any(path.split(" > ")[-1] == "ImageEmbedder fit" for path in recorder.ended)
    assert {path[-2] for path in epochs} == {"HeadClassifier fit"}
    assert not any(hasattr(step, "_skl_callbacks") for _, step in search.best_estimator_.steps)


def test_scores_are_monitored_in_each_epoch(rows):
    monitor = callback.ScoringMonitor(scoring="accuracy")
    head = HeadClassifier(max_epochs=4, batch_norm=True, random_state=0)
    head.set_callbacks(monitor).fit(*rows)
    scores = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 4 and scores[-1] == head.score(*rows)
    unwatched = HeadClassifier(max_epochs=4, batch_norm=True, random_state=0).fit(*rows)
    np.testing.assert_array_equal(head.predict_proba(rows[0]), unwatched.predict_proba(rows[0]))


def test_fine_tuning_and_views(rows):
    shapes, recorder = make_shapes(16, image_size=32, random_state=0), Recorder()
    FineTuneClassifier(
        image_size=32, max_epochs=2, trainable_stages=1, tuned_fraction=1, random_state=0
    ).set_callbacks(recorder).fit(shapes.data, shapes.target)
    assert recorder.ended[-1] == "FineTuneClassifier fit"
    assert sum(path.endswith("epoch") for path in recorder.ended) == 2
    MultiViewClassifier(HeadClassifier(max_epochs=2)).set_callbacks(recorder).fit(*rows)
    assert recorder.ended[-1] == "MultiViewClassifier fit"
    assert sum(path.endswith("HeadClassifier epoch") for path in recorder.ended) == 2
    ImageEmbedder().set_callbacks(recorder).fit(shapes.data)
    assert recorder.ended == ["ImageEmbedder fit"]


@pytest.mark.parametrize("Estimator", [FineTuneClassifier, HeadClassifier, ImageEmbedder])
def test_clones_keep_them(Estimator):
    recorder = Recorder()
    assert clone(Estimator().set_callbacks(recorder))._skl_callbacks == [recorder]


def test_progress_bars(rows, capsys):
    pytest.importorskip("rich", reason="needs rich")
    HeadClassifier(max_epochs=2).set_callbacks(callback.ProgressBar()).fit(*rows)
    assert "HeadClassifier - fit" in capsys.readouterr().out
