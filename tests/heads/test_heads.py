"""HeadClassifier: scikit-learn's common checks, what it promises on top, and its errors."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from new_process import other_hashes
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, make_classification, make_multilabel_classification
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback

from sktransfer._training._samples import digest_rows, merge_rows, split_rows
from sktransfer._utils._canonical import canonical
from sktransfer.exceptions import TrainingDivergedError
from sktransfer.heads import HeadClassifier, lr_range_test
from sktransfer.heads import _penalty as _head_penalty
from sktransfer.heads._building import seeded

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def blobs():
    return make_classification(300, 20, n_informative=8, n_classes=3, class_sep=1.5, random_state=0)


@pytest.fixture(scope="module")
def other_process():
    """What a process of its own says: whether heads import skorch, and a text of parameters."""
    code = """
import sys, sktransfer.heads
print("skorch" in sys.modules)
from functools import partial
import torch
from sktransfer._utils._canonical import canonical
inner = {"start": torch.nn.init.ones_, "labels": set("jihgfedcba"), "deep": [(len,)]}
print(canonical({"params": inner, "module": partial(torch.nn.Linear, bias=False)}, "it"))
"""
    command = [sys.executable, "-c", code]
    return subprocess.check_output(command, env=other_hashes(), text=True).splitlines()


def weights(head):
    return torch.cat([p.detach().flatten() for p in head.net_.module_.parameters()]).numpy()


@parametrize_with_checks(
    [
        HeadClassifier(max_epochs=20),
        HeadClassifier(hidden_units=(16, 8), dropout=0.2, batch_norm=True, max_epochs=20),
    ]
)
def test_common_checks(estimator, check):
    check(estimator)


def pipeline_changes_its_steps(estimator):
    """Name the two checks that scikit-learn expects every Pipeline of its own to fail."""
    reason = "Pipeline fits its steps in place, whatever they are"
    return {
        "check_dont_overwrite_parameters": reason,
        "check_estimators_overwrite_params": reason,
    }


@parametrize_with_checks(
    [make_pipeline(StandardScaler(), HeadClassifier(max_epochs=10, random_state=0))],
    expected_failed_checks=pipeline_changes_its_steps,
)
def test_common_checks_in_a_pipeline(estimator, check):
    check(estimator)


# Targets


@pytest.mark.parametrize("labels", [["cat", "dog"], [3, 7], [False, True], ["a", "b", "c"]])
def test_labels_of_any_type_come_back(blobs, labels):
    X, y = blobs
    y = np.array(labels)[y % len(labels)]
    head = HeadClassifier(random_state=0).fit(X, y)
    assert head.classes_.tolist() == labels
    assert head.predict(X).dtype == y.dtype
    logits, proba = head.decision_function(X), head.predict_proba(X)
    assert logits.shape == ((300,) if len(labels) == 2 else (300, len(labels)))
    assert np.allclose(proba.sum(axis=1), 1, atol=1e-6)
    if len(labels) == 2:
        assert np.allclose(proba[:, 1], 1 / (1 + np.exp(-logits)), atol=1e-6)
    else:
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert np.allclose(proba, softmax, atol=1e-6)


def test_several_labels_a_row():
    X, y = make_multilabel_classification(400, 20, n_classes=4, random_state=0)
    head = HeadClassifier(random_state=0).fit(X, y)
    proba = head.predict_proba(X)
    assert head.target_type_ == "multilabel-indicator"
    assert proba.shape == y.shape
    assert np.array_equal(head.predict(X), proba > 0.5)
    assert (head.predict(X) == y).mean() > 0.82
    smooth = HeadClassifier(label_smoothing=0.4, random_state=0).fit(X, y)
    assert np.abs(smooth.decision_function(X)).mean() < np.abs(head.decision_function(X)).mean()


def test_several_labels_a_row_incrementally():
    X, y = make_multilabel_classification(400, 20, n_classes=4, random_state=0)
    head = HeadClassifier(random_state=0)
    for _ in range(30):
        head.partial_fit(X, y)
    logistic = MultiOutputClassifier(LogisticRegression()).fit(X, y)
    expected = (logistic.predict(X) == y).mean()
    # The learning rate stays constant, so that accuracy wavers by a point from epoch to epoch.
    assert (head.predict(X) == y).mean() > expected - 0.02


# Accuracy and shapes


def test_default_is_as_good_as_a_tuned_logistic_regression(digits):
    X, y = (part[:900] for part in digits)
    grid = {"logisticregression__C": [0.01, 0.1, 1.0]}
    tuned = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), grid, cv=3
    )
    ours = cross_val_score(HeadClassifier(random_state=0), X, y, cv=3).mean()
    assert ours > cross_val_score(tuned, X, y, cv=3).mean() - 0.01


def test_shapes_can_be_searched(blobs):
    grid = {"hidden_units": [(), 16, (16, 8)], "dropout": [0.0, 0.3], "batch_norm": [False, True]}
    search = GridSearchCV(
        HeadClassifier(max_epochs=2, random_state=0), grid, cv=2, error_score="raise"
    )
    search.fit(*blobs)
    assert len(search.cv_results_["params"]) == 12


def test_layers_are_in_the_order_of_the_tutorials(blobs):
    head = HeadClassifier((16, 8), dropout=0.5, batch_norm=True, max_epochs=1).fit(*blobs)
    names = [type(layer).__name__ for layer in head.net_.module_.network]
    dense = ["Linear", "ReLU", "Dropout"]
    assert names == ["BatchNorm1d", *dense, *dense, "Linear"]


@pytest.mark.parametrize("scaling", ["global", "feature", None])
def test_scaling(blobs, scaling):
    X, y = blobs
    head = HeadClassifier(scaling=scaling, max_epochs=1).fit(X * np.arange(1, 21) + 5, y)
    scaled = X * np.arange(1, 21) + 5
    if scaling is None:
        assert isinstance(head.net_.module_.scaling, torch.nn.Identity)
        return
    scaled = head.net_.module_.scaling(torch.as_tensor(scaled, dtype=torch.float32)).numpy()
    assert np.allclose(scaled.mean(axis=0), 0, atol=1e-5)
    variance = scaled.var(axis=0)
    assert np.allclose(variance.mean() if scaling == "global" else variance, 1, atol=1e-4)
    assert (np.ptp(variance) > 0.5) == (scaling == "global")


class Own(torch.nn.Module):
    """A network of a user's."""

    def __init__(self, n_features, n_outputs, width=4):
        super().__init__()
        self.first = torch.nn.Linear(n_features, width)
        self.last = torch.nn.Linear(width, n_outputs)

    def forward(self, X):
        return self.last(torch.relu(self.first(X)))


def test_custom_module(blobs):
    head = HeadClassifier(module=Own, module_params={"width": 32}, random_state=0).fit(*blobs)
    assert head.net_.module_.network.first.out_features == 32
    assert head.score(*blobs) > 0.8
    assert np.array_equal(
        pickle.loads(pickle.dumps(head)).predict(blobs[0]), head.predict(blobs[0])
    )


def test_custom_module_that_gives_the_wrong_shape(blobs):
    def wrong(n_features, n_outputs):
        return torch.nn.Linear(n_features, n_outputs + 1)

    with pytest.raises(ValueError, match=r"logits of shape \(n_rows, 3\).*shape \(2, 4\)"):
        HeadClassifier(module=wrong).fit(*blobs)


def test_custom_module_goes_with_no_layers_of_ours(blobs):
    with pytest.raises(ValueError, match="hidden_units, dropout would be ignored"):
        HeadClassifier(8, dropout=0.1, module=Own).fit(*blobs)
    with pytest.raises(ValueError, match="dropout would be ignored"):
        HeadClassifier(dropout=0.1, module=partial(Own, width=2)).fit(*blobs)
    with pytest.raises(ValueError, match="class or a function"):
        HeadClassifier(module=Own(20, 3)).fit(*blobs)


@pytest.mark.parametrize("hidden_units", [(8, 0), (8, "wide"), [2.5]])
def test_widths_that_are_none(blobs, hidden_units):
    with pytest.raises(ValueError, match="hidden_units must be a positive whole number"):
        HeadClassifier(hidden_units).fit(*blobs)


# Optimisers and schedules


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop", "adagrad", torch.optim.NAdam])
def test_optimizers(blobs, optimizer):
    head = HeadClassifier(optimizer=optimizer, lr=0.01, random_state=0).fit(*blobs)
    assert head.score(*blobs) > 0.7


# Rows of their own; pairs; images of one, two and three rows in no order.
PICTURES = [np.arange(60), np.arange(60) // 2, np.random.RandomState(0).randint(0, 30, 60)]


@pytest.mark.parametrize("image", PICTURES)
def test_automatic_penalty_is_the_one_that_leaving_images_out_prefers(image):
    X, y = make_classification(60, 20, n_informative=5, n_classes=3, flip_y=0.2, random_state=0)
    weight = np.where(np.arange(60) < 20, 2.0, 1.0)
    X -= weight @ X / weight.sum()
    norm = weight @ (X**2).sum(axis=1) / weight.sum()
    targets = np.eye(3)[y]
    right = []
    for alpha in _head_penalty.STRENGTHS * norm * weight.sum() / 60:
        hits = 0.0
        for number in np.unique(image):
            kept = image != number
            with sklearn.config_context(skip_parameter_validation=True, assume_finite=True):
                ridge = Ridge(alpha).fit(X[kept], targets[kept], sample_weight=weight[kept])
            predicted = (X[~kept] @ ridge.coef_.T + ridge.intercept_).argmax(axis=1)
            hits += weight[~kept] @ (predicted == y[~kept])
        right.append(hits)
    smooth = np.convolve(np.pad(right, 1, mode="edge"), np.ones(3), mode="valid")
    chosen = _head_penalty.ridge_of(X, y, weight, image) / norm / (1 / 3 * 2 / 3)
    nearest = np.abs(np.log2(_head_penalty.STRENGTHS / chosen)).argmin()
    assert smooth[nearest] == smooth.max()


def test_automatic_penalty_takes_any_rows():
    rows = np.random.default_rng(0).normal(size=(30, 4))
    one, each = np.ones(30), np.arange(30)
    several = (rows[:, :2] > 0).astype(np.float32)
    assert _head_penalty.ridge_of(rows, several, one, each) > 0
    assert _head_penalty.ridge_of(rows[:1], np.array([0]), one[:1], each[:1]) > 0
    assert _head_penalty.ridge_of(np.zeros((30, 4)), several, one, each) > 0
    assert _head_penalty.ridge_of(rows, np.zeros(30, int), one, each) > 0


def test_biases_stay_free_of_weight_decay():
    X, y = np.random.default_rng(0).normal(size=(100, 5)), np.repeat([0, 1], [90, 10])
    head = HeadClassifier(weight_decay=100.0, lr=0.03, batch_size=10, random_state=0).fit(X, y)
    assert np.abs(head.net_.module_.network[0].weight.detach().numpy()).max() < 0.01
    assert head.predict_proba(X).mean(axis=0) == pytest.approx([0.9, 0.1], abs=0.02)


def decays(head):
    """Weight decay of each parameter by its number of dimensions."""
    groups = head.net_.optimizer_.param_groups
    return sorted((p.ndim, group["weight_decay"]) for group in groups for p in group["params"])


def test_decay_is_for_matrices_however_training_goes_on(blobs):
    head = HeadClassifier(8, batch_norm=True, weight_decay=0.2, max_epochs=1, warm_start=True)
    free, several = [(1, 0.0)] * 4, [(2, 0.2)] * 2
    assert decays(head.fit(*blobs)) == free + several
    assert decays(pickle.loads(pickle.dumps(head)).partial_fit(*blobs)) == free + several
    assert decays(head.set_params(weight_decay=0.0).fit(*blobs)) == free + [(2, 0.0)] * 2
    assert decays(head.set_params(weight_decay=0.3).partial_fit(*blobs)) == free + [(2, 0.3)] * 2
    own = HeadClassifier(module=Own, optimizer=torch.optim.NAdam, weight_decay=0.2, max_epochs=1)
    assert decays(own.fit(*blobs)) == [(1, 0.0)] * 2 + several
    groups = [("*first.*", {"weight_decay": 0.7})]
    own.set_params(optimizer_params={"param_groups": groups}).fit(*blobs)
    assert decays(own) == [(1, 0.0), (1, 0.7), (2, 0.2), (2, 0.7)]


def test_optimizer_without_weight_decay(blobs):
    head = HeadClassifier(optimizer=torch.optim.LBFGS, lr=0.1, lr_schedule=None, max_epochs=5)
    head.set_params(batch_size=300)
    assert clone(head).set_params(weight_decay=0, random_state=0).fit(*blobs).score(*blobs) > 0.7
    with pytest.raises(ValueError, match="LBFGS has no weight decay; set weight_decay=0"):
        head.set_params(weight_decay=0.1).fit(*blobs)


@pytest.mark.parametrize(
    ("schedule", "params"),
    [
        ("cosine", None),
        ("one_cycle", {"pct_start": 0.5}),
        ("step", {"gamma": 0.5}),
        ("exponential", None),
        ("plateau", {"patience": 0, "threshold": 10.0}),
        (torch.optim.lr_scheduler.MultiStepLR, {"milestones": [2, 4]}),
    ],
)
def test_schedules_change_the_learning_rate(blobs, schedule, params):
    head = HeadClassifier(
        lr_schedule=schedule, lr_schedule_params=params, lr=0.01, max_epochs=8, random_state=0
    ).fit(*blobs)
    assert head.net_.optimizer_.param_groups[0]["lr"] < 0.009
    again = clone(head).set_params(warm_start=True).fit(*blobs)
    last = again.net_.optimizer_.param_groups[0]["lr"]
    assert again.fit(*blobs).net_.optimizer_.param_groups[0]["lr"] == pytest.approx(last)


def test_learning_rate_range(blobs):
    head = HeadClassifier(16, lr_schedule=None, random_state=0)
    curve = lr_range_test(head, *blobs, n_steps=60)
    assert not hasattr(head, "net_")
    assert len(curve.learning_rates) == len(curve.losses) == len(curve.smoothed)
    assert np.isfinite(curve.losses).all()
    assert 1e-4 < curve.suggestion < 1
    assert head.set_params(lr=curve.suggestion).fit(*blobs).score(*blobs) > 0.8
    with pytest.raises(ValueError, match="start must be positive and below end"):
        lr_range_test(head, *blobs, start=1.0, end=0.1)


# Weights, order, seeds


def test_weights_and_repetition_are_the_same_bit_by_bit(blobs):
    X, y = blobs
    times = np.random.default_rng(0).integers(0, 4, len(X))
    head = HeadClassifier(16, dropout=0.3, batch_norm=True, max_epochs=3, random_state=0)
    weighted = clone(head).fit(X, y, sample_weight=times)
    order = np.random.default_rng(1).permutation(times.sum())
    repeated = clone(head).fit(X.repeat(times, axis=0)[order], y.repeat(times)[order])
    assert np.array_equal(weights(weighted), weights(repeated))
    assert not np.array_equal(weights(weighted), weights(clone(head).fit(X, y)))


def test_balanced_class_weights_find_the_rare_class():
    X, y = make_classification(500, 10, weights=[0.95], class_sep=0.5, random_state=0)
    plain = HeadClassifier(random_state=0).fit(X, y)
    balanced = HeadClassifier(class_weight="balanced", random_state=0).fit(X, y)
    assert balanced.predict(X).sum() > 2 * plain.predict(X).sum()
    share = np.bincount(y)
    given = HeadClassifier(class_weight={0: 250 / share[0], 1: 250 / share[1]}, random_state=0)
    assert np.allclose(weights(given.fit(X, y)), weights(balanced), atol=1e-4)


def test_refits_are_equal_and_leave_the_users_generators_alone(blobs):
    head = HeadClassifier(8, dropout=0.5, max_epochs=3, random_state=3)
    state = torch.get_rng_state()
    first = weights(clone(head).fit(*blobs))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(weights(clone(head).fit(*blobs)), first)
    assert not np.array_equal(weights(clone(head).set_params(random_state=4).fit(*blobs)), first)


def test_fits_in_threads_equal_a_fit_alone(blobs):
    head = HeadClassifier(16, dropout=0.5, max_epochs=10, random_state=0)
    alone, before = weights(clone(head).fit(*blobs)), torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: weights(clone(head).fit(*blobs)), range(8)))
    assert all((found == alone).all() for found in together)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_while_another_thread_trains_can_train():
    with ThreadPoolExecutor(1) as pool, ExitStack() as held:
        pool.submit(held.enter_context, seeded(0, "cpu")).result()
        child = os.fork()
        if child == 0:
            with seeded(0, "cpu"):
                os._exit(0)
        pool.submit(held.close).result()
    assert exit_code(child, seconds=20) == 0


def exit_code(child, seconds):
    """Exit code of a child; one that hangs is ended, and its code is not 0."""
    ending = threading.Timer(seconds, os.kill, (child, signal.SIGKILL))
    ending.start()
    code = os.waitpid(child, 0)[1]
    ending.cancel()
    return code


def test_warm_start_goes_on(blobs):
    head = HeadClassifier(max_epochs=5, warm_start=True, random_state=0).fit(*blobs)
    before = head.net_.history[-1, "train_loss"]
    head.set_params(lr=0.01).fit(*blobs)
    assert head.n_epochs_ == 10
    assert head.net_.history[-1, "train_loss"] < before
    with pytest.raises(ValueError, match=r"built with hidden_units=\(\)"):
        head.set_params(hidden_units=4).fit(*blobs)
    with pytest.raises(ValueError, match=r"does not know: \[9\]"):
        head.set_params(hidden_units=()).fit(blobs[0], np.where(blobs[1] == 0, 9, blobs[1]))


def test_partial_fit_reaches_what_fit_reaches(blobs):
    X, y = blobs
    head = HeadClassifier(random_state=0)
    for _ in range(15):
        for part in np.array_split(np.arange(len(X)), 3):
            head.partial_fit(X[part], y[part], classes=[0, 1, 2])
    assert head.n_epochs_ == 45
    assert head.score(X, y) > HeadClassifier(random_state=0).fit(X, y).score(X, y) - 0.03
    with pytest.raises(ValueError, match=r"does not know: \[5\]"):
        head.partial_fit(X[:3], [0, 1, 5])


@pytest.mark.parametrize(
    "params", [{"early_stopping": True}, {"class_weight": "balanced"}, {"checkpoint_dir": "here"}]
)
def test_partial_fit_refuses_what_it_cannot_do(blobs, params):
    with pytest.raises(ValueError, match=f"partial_fit .* cannot use {next(iter(params))}"):
        HeadClassifier(**params).partial_fit(*blobs, classes=[0, 1, 2])


# Validation and early stopping


def test_early_stopping_restores_the_best_epoch(blobs):
    X, y = blobs
    head = HeadClassifier(
        64, early_stopping=True, n_iter_no_change=3, max_epochs=200, lr=0.03, random_state=0
    ).fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    losses = head.net_.history[:, "valid_loss"]
    assert head.n_epochs_ < 200
    assert head.best_epoch_ == np.argmin(losses) + 1
    assert head.n_epochs_ == head.best_epoch_ + 3
    proba = head.predict_proba(X[200:])
    loss = -np.log(proba[np.arange(100), y[200:]]).mean()
    assert loss == pytest.approx(min(losses), abs=1e-5)


@pytest.mark.parametrize(
    "scoring", ["accuracy", "balanced_accuracy", "neg_log_loss", "roc_auc_ovr"]
)
def test_early_stopping_on_a_named_metric(blobs, scoring):
    head = HeadClassifier(
        early_stopping=True, scoring=scoring, n_iter_no_change=4, validation_fraction=0.3,
        tol=0, max_epochs=60, random_state=0,
    ).fit(*blobs)  # fmt: skip
    scores = head.net_.history[:, f"valid_{scoring}"]
    assert head.best_epoch_ == np.argmax(scores) + 1


def test_a_share_is_stratified_and_no_row_lies_on_both_sides():
    X = np.random.default_rng(0).normal(size=(40, 4))
    y = np.repeat([0, 1], [36, 4])
    seen = []

    class Spy(Callback):
        def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
            seen.append((dataset_train, dataset_valid))

    head = HeadClassifier(early_stopping=True, validation_fraction=0.25, max_epochs=1)
    head.set_params(callbacks=[Spy()]).fit(X.repeat(3, axis=0), y.repeat(3))
    train, valid = seen[0]
    assert np.bincount(valid.y.numpy()).tolist() == [9, 1]
    both = {tuple(row.tolist()) for row in train.X} & {tuple(row.tolist()) for row in valid.X}
    assert not both


def test_splitter_says_which_rows_validate(blobs):
    X, y = blobs
    fold = np.where(np.arange(len(X)) < 250, -1, 0)
    head = HeadClassifier(validation_splitter=PredefinedSplit(fold), max_epochs=2, random_state=0)
    given = clone(head).set_params(validation_splitter=None)
    given.fit(X[:250], y[:250], X_val=X[250:], y_val=y[250:])
    losses = head.fit(X, y).net_.history[:, "valid_loss"]
    assert losses == given.net_.history[:, "valid_loss"]
    pairs = [(np.arange(250), np.arange(250, 300))]
    again = clone(head).set_params(validation_splitter=pairs).fit(X, y)
    assert losses == again.net_.history[:, "valid_loss"]


class Killed(Exception):
    """Stands for the end of the process."""


class Killer(Callback):
    """Kill training after some epochs."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) > self.epoch:
            raise Killed


@pytest.mark.parametrize("schedule", [None, "cosine", "one_cycle", "plateau"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_resuming_gives_the_same_weights_bit_by_bit(blobs, tmp_path, schedule, early_stopping):
    head = HeadClassifier(
        16, dropout=0.3, early_stopping=early_stopping, n_iter_no_change=5, lr_schedule=schedule,
        max_epochs=12, random_state=0, checkpoint_dir=tmp_path / "whole",
    )  # fmt: skip
    whole = clone(head).fit(*blobs)
    head.set_params(checkpoint_dir=tmp_path / "killed")
    with pytest.raises(Killed):
        clone(head).set_params(callbacks=[Killer(7)]).fit(*blobs)
    starts = []

    class Spy(Callback):
        def on_epoch_begin(self, net, **kwargs):
            starts.append(len(net.history))

    resumed = clone(head).set_params(callbacks=[Spy()]).fit(*blobs)
    assert 1 < starts[0] <= 8
    assert np.array_equal(weights(resumed), weights(whole))
    losses = [h.net_.history[:, "train_loss"] for h in (resumed, whole)]
    assert losses[0] == losses[1]
    starts.clear()
    clone(head).set_params(callbacks=[Spy()]).fit(*blobs)
    assert starts[0] == 1, "a finished fit is not resumed"


def test_a_killed_fit_without_a_seed_goes_on_with_the_rows_it_validated_on(blobs, tmp_path):
    head = HeadClassifier(early_stopping=True, max_epochs=8, checkpoint_dir=tmp_path)
    seen = []

    class Spy(Callback):
        def on_epoch_begin(self, net, dataset_valid=None, **kwargs):
            seen.append((len(net.history), dataset_valid.X))

    with pytest.raises(Killed):
        clone(head).set_params(callbacks=[Spy(), Killer(3)]).fit(*blobs)
    n_killed = len(seen)
    clone(head).set_params(callbacks=[Spy()]).fit(*blobs)
    assert 1 < seen[n_killed][0] <= 4
    assert torch.equal(seen[0][1], seen[n_killed][1])
    assert len(list(tmp_path.iterdir())) == 1


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(blobs, tmp_path):
    class CtrlC(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 3:
                raise KeyboardInterrupt

    head = HeadClassifier(max_epochs=5, checkpoint_dir=tmp_path, random_state=0)
    head.set_params(callbacks=[CtrlC()]).fit(*blobs)
    assert head.n_epochs_ == head.best_epoch_ == 2
    resumed = clone(head).set_params(callbacks=None).fit(*blobs)
    whole = clone(head).set_params(callbacks=None, checkpoint_dir=None).fit(*blobs)
    assert np.array_equal(weights(resumed), weights(whole))


def test_a_damaged_checkpoint_is_named(blobs, tmp_path):
    head = HeadClassifier(max_epochs=1, checkpoint_dir=tmp_path, random_state=0).fit(*blobs)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{file} cannot be read.*Delete it"):
        head.fit(*blobs)


def test_a_checkpoint_of_a_module_that_nothing_names_is_refused(blobs, tmp_path):
    head = HeadClassifier(module=lambda **sizes: Own(**sizes), checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="no text tells what module is <function"):
        head.fit(*blobs)


def test_checkpoints_of_other_rows_and_parameters_have_files_of_their_own(blobs, tmp_path):
    X, y = blobs
    head = HeadClassifier(max_epochs=2, random_state=0, checkpoint_dir=tmp_path)
    for fitted in (head, clone(head), clone(head).set_params(lr=0.5)):
        fitted.fit(X, y)
    head.fit(X[:-1], y[:-1])
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(ValueError, match="do not go together"):
        head.set_params(warm_start=True).fit(X, y)


def test_text_of_parameters_is_the_same_in_each_process(other_process):
    def text(**changes):
        start = torch.nn.init.ones_
        inner = {"start": start, "labels": set("abcdefghij"), "deep": [(len,)], **changes}
        params = {"params": inner, "module": partial(torch.nn.Linear, bias=False)}
        return repr(canonical(params, "it"))

    assert other_process[1] == text()
    assert text() != text(start=torch.nn.init.zeros_)
    assert canonical(partial(Own, width=4), "it") != canonical(partial(Own, width=5), "it")


# What goes with what


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"module": torch.nn.Linear, "activation": "tanh"}, "activation would be ignored"),
        ({"module_params": {"width": 4}}, "arguments of module, which is None"),
        (
            {"lr_schedule": None, "lr_schedule_params": {"gamma": 0.5}},
            "arguments of lr_schedule, which",
        ),
        ({"class_weight": {0: 0.0}}, "must be positive for every class"),
        ({"early_stopping": True, "validation_splitter": iter([])}, "yields no split"),
    ],
)
def test_what_would_be_ignored_is_refused(blobs, params, message):
    with pytest.raises(ValueError, match=message):
        HeadClassifier(**params).fit(*blobs)


def test_arguments_of_the_optimizer_go_before_ours(blobs):
    head = HeadClassifier(max_epochs=1, optimizer_params={"foreach": True}).fit(*blobs)
    group = head.net_.optimizer_.param_groups[0]
    assert group["foreach"] and not group["fused"]


def test_a_device_may_be_torchs_own(blobs):
    head = HeadClassifier(max_epochs=1, warm_start=True, device=torch.device("cpu")).fit(*blobs)
    with pytest.raises(ValueError, match="cannot go on from a head on the device 'cpu'"):
        head.set_params(device="cuda").fit(*blobs)


def test_validation_rows_count_as_they_are_given(blobs):
    X, y = blobs
    rows = np.r_[np.zeros(9, int), np.arange(5)]
    head = HeadClassifier(scoring="accuracy", early_stopping=True, max_epochs=3, random_state=0)
    head.fit(X[20:], y[20:], X_val=X[rows], y_val=y[rows])
    best = head.net_.history[head.best_epoch_ - 1, "valid_accuracy"]
    assert best == pytest.approx(head.score(X[rows], y[rows]))


def test_validation_loss_is_weighted_alike_however_rows_are_given(blobs):
    X, y = blobs
    head = HeadClassifier(class_weight={0: 1, 1: 9}, max_epochs=1, random_state=0)
    fold = np.where(np.arange(len(X)) < 60, 0, -1)
    given = clone(head).fit(X[60:], y[60:], X_val=X[:60], y_val=y[:60])
    split = clone(head).set_params(validation_splitter=PredefinedSplit(fold)).fit(X, y)
    losses = [h.net_.history[0, "valid_loss"] for h in (given, split)]
    assert losses[0] == pytest.approx(losses[1])


def test_what_fails_leaves_a_head_as_it_was(blobs):
    X, y = blobs
    head = HeadClassifier(max_epochs=2, random_state=0)
    with pytest.raises(ValueError, match="name them all"):
        head.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="at least two classes"):
        head.partial_fit(X, np.zeros(len(X)), classes=[0])
    with pytest.raises(NotFittedError):
        head.predict(X)
    head.partial_fit(X, y, classes=[0, 1, 2])
    before = head.fit(X, y).predict(X)
    with pytest.raises(ValueError, match="0 sample"):
        head.fit(X, y > 1, X_val=X[:0], y_val=y[:0])
    assert np.array_equal(head.predict(X), before)


def test_balanced_weights_where_a_class_has_none(blobs):
    X, y = blobs
    head = HeadClassifier(class_weight="balanced", early_stopping=True, max_epochs=2)
    head.fit(X, y, sample_weight=(y != 2).astype(float), X_val=X[:20], y_val=y[:20])
    assert np.isfinite(head.net_.history[:, "valid_loss"]).all()


def test_equal_rows_of_two_classes_are_of_one_image():
    rows = np.repeat(np.random.RandomState(0).normal(size=(30, 4)), 2, axis=0).astype("float32")
    merged = merge_rows(rows, np.tile([0, 1], 30), np.ones(60))
    train, valid = split_rows(merged, 0.3, 0)
    assert not {row.tobytes() for row in train.X} & {row.tobytes() for row in valid.X}


def test_images_that_share_a_view_are_one_whatever_their_order():
    base = np.random.RandomState(0).normal(size=(8, 4)).astype("float32")
    pairs = np.stack([base, np.roll(base, -1, axis=0)], axis=1)[:-2]  # a chain, and no ring
    pairs = np.concatenate([pairs, -pairs[:1]])
    digests = set()
    for order in (np.arange(7), np.random.RandomState(1).permutation(7)):
        merged = merge_rows(pairs[order].reshape(14, 4), np.zeros(14, int), np.ones(14), 2)
        assert sorted(np.bincount(merged.image)) == [2, 7]
        digests.add(digest_rows(merged, ""))
    assert len(digests) == 1


@pytest.mark.parametrize("other", [{"dropout": np.float64(0.3)}, {"module_params": None}])
def test_going_on_with_values_that_say_the_same(blobs, other):
    head = HeadClassifier(8, dropout=0.3, warm_start=True, max_epochs=1).fit(*blobs)
    assert head.set_params(**other).fit(*blobs).n_epochs_ == 2


def test_two_weight_decays_are_one_too_many(blobs):
    head = HeadClassifier(weight_decay=0.1, optimizer_params={"weight_decay": 0.5})
    with pytest.raises(ValueError, match=r"weight_decay=0\.1 and optimizer_params=.* both say"):
        head.fit(*blobs)
    assert head.set_params(weight_decay="auto").fit(*blobs)


def test_rows_that_are_no_whole_images_are_refused(blobs):
    with pytest.raises(ValueError, match="no longer 7 views"):
        HeadClassifier(rows_per_image=7).fit(*blobs)


# Progress and callbacks


def test_verbosity(blobs, capsys):
    HeadClassifier(max_epochs=2).fit(*blobs)
    assert capsys.readouterr() == ("", "")
    HeadClassifier(max_epochs=2, verbose=1).fit(*blobs)
    assert "2/2" in capsys.readouterr().err
    HeadClassifier(max_epochs=2, verbose=2).fit(*blobs)
    assert "train_loss" in capsys.readouterr().out


# Batches


@pytest.mark.parametrize("n_rows", [129, 257, 2, 130])
def test_a_last_batch_of_one_row_does_no_harm_to_batch_norm(n_rows):
    X = np.random.default_rng(0).normal(size=(n_rows, 5))
    sizes = []

    class Spy(Callback):
        def on_batch_end(self, net, batch=None, training=None, **kwargs):
            sizes.append(len(batch[1]))

    head = HeadClassifier(batch_norm=True, max_epochs=1, callbacks=[Spy()])
    head.fit(X, np.arange(n_rows) % 2)
    assert sum(sizes) == n_rows
    assert min(sizes) > 1


@pytest.mark.parametrize(("n_rows", "batch_size"), [(1, 128), (10, 1)])
def test_batch_norm_on_single_rows_says_what_to_do(n_rows, batch_size):
    X, y = np.eye(10)[:n_rows], np.arange(n_rows) % 2
    head = HeadClassifier(batch_norm=True, batch_size=batch_size)
    with pytest.raises(ValueError, match="needs two different rows in every training batch"):
        head.partial_fit(X, y, classes=[0, 1])


# Devices and pickles


def test_a_model_from_a_gpu_loads_on_a_machine_without_one(blobs, monkeypatch):
    head = HeadClassifier(max_epochs=2, random_state=0).fit(*blobs)
    expected = head.predict_proba(blobs[0])
    head.net_.device = "cuda"
    data = pickle.dumps(head)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loaded = pickle.loads(data)
    assert str(loaded.net_.device) == "cpu"
    assert np.array_equal(loaded.predict_proba(blobs[0]), expected)
    loaded.partial_fit(*blobs)
    loaded.set_params(warm_start=True).fit(*blobs)


def test_pickles_hold_no_rows(blobs):
    X, y = np.tile(blobs[0], 50), blobs[1]
    head = HeadClassifier(early_stopping=True, scoring="accuracy", max_epochs=2).fit(X, y)
    assert len(pickle.dumps(head)) < X.astype(np.float32).nbytes / 4


def test_pickles_hold_little_more_than_the_weights():
    X, y = np.random.default_rng(0).normal(size=(40, 2000)), np.arange(40) % 20
    head = HeadClassifier(max_epochs=1, scaling=None).fit(X, y)
    assert len(pickle.dumps(head)) < 1.2 * (2001 * 20 * 4) + 20_000


def test_devices_that_are_not_there(blobs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch finds no such device here"):
        HeadClassifier(device="cuda").fit(*blobs)
    with pytest.raises(ValueError, match="is no device that torch knows"):
        HeadClassifier(device="gpu").fit(*blobs)


def test_importing_heads_leaves_skorch_alone(other_process):
    assert other_process[0] == "False"


# Together with scikit-learn


def test_stack_on_logits(blobs):
    head = HeadClassifier(max_epochs=20, random_state=0)
    stack = StackingClassifier(
        [("a", head), ("b", clone(head).set_params(hidden_units=8, random_state=1))],
        final_estimator=head,
        stack_method="decision_function",
        cv=2,
    ).fit(*blobs)
    assert stack.final_estimator_.n_features_in_ == 6
    assert stack.score(*blobs) > 0.8


def test_calibration(blobs):
    model = CalibratedClassifierCV(HeadClassifier(max_epochs=5), cv=2).fit(*blobs)
    assert model.predict_proba(blobs[0]).shape == (300, 3)


def test_validation_rows_pass_through_a_pipeline_by_routing(blobs):
    X, y = blobs
    with sklearn.config_context(enable_metadata_routing=True):
        head = HeadClassifier(max_epochs=2, random_state=0)
        head.set_fit_request(sample_weight=True, X_val=True, y_val=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        model = make_pipeline(scaler, head, transform_input=["X_val"])
        ones = np.ones(200)
        model.fit(X[:200], y[:200], sample_weight=ones, X_val=X[200:], y_val=y[200:])
    assert "valid_loss" in model[-1].net_.history[-1]


# Errors


@pytest.mark.parametrize(
    "images",
    [
        ["a.jpg", "b.jpg"],
        np.array(["a.jpg", "b.jpg"], dtype=object),
        np.array([["a.jpg"], ["b.jpg"]]),
        pd.Series([Path("a.jpg"), Path("b.jpg")]),
        pd.DataFrame({"path": ["a.jpg", "b.jpg"]}),
        [b"encoded", b"encoded"],
    ],
)
def test_images_point_to_the_embedder(blobs, images):
    with pytest.raises(TypeError, match=r"holds images.*make_transfer_pipeline\(head="):
        HeadClassifier().fit(images, ["cat", "dog"])
    fitted = HeadClassifier(max_epochs=1, random_state=0).fit(*blobs)
    with pytest.raises(TypeError, match="holds images"):
        fitted.predict(images)


@pytest.mark.parametrize(
    ("params", "lr"),
    [
        ({}, 0.2 / 20**0.5),
        ({"early_stopping": True}, 0.2 / 20**0.5),
        ({"hidden_units": 8}, 0.004),
        ({"hidden_units": 8, "early_stopping": True}, 0.001),
        ({"hidden_units": 8, "early_stopping": True, "lr": 0.03}, 0.03),
    ],
)
def test_the_learning_rate_of_its_own_accord(blobs, params, lr):
    head = HeadClassifier(max_epochs=1, random_state=0, **params).fit(*blobs)
    assert head.net_.lr == pytest.approx(lr)


def test_nan_rows_point_to_unreadable_images(blobs):
    X, y = blobs
    X = X.copy()
    X[[4, 9]] = np.nan
    message = r'NaN in 2 of 300 rows, first in row 4.*on_error="nan".*errors_'
    with pytest.raises(ValueError, match=message):
        HeadClassifier().fit(X, y)
    head = HeadClassifier(max_epochs=1).fit(*blobs)
    for method in (head.predict, head.predict_proba, head.decision_function):
        with pytest.raises(ValueError, match=message):
            method(X)
    with pytest.raises(ValueError, match="infinity"):
        head.predict(np.where(np.isnan(X), np.inf, X))


def test_one_class():
    with pytest.raises(ValueError, match="at least two classes, and y has only one class: 'cat'"):
        HeadClassifier().fit(np.eye(3), ["cat"] * 3)
    with pytest.raises(ValueError, match="one class where weights are positive"):
        HeadClassifier().fit(np.eye(3), [0, 0, 1], sample_weight=[1, 1, 0])


def test_too_few_rows_for_a_validation_split():
    X = np.random.default_rng(0).normal(size=(12, 3))
    head = HeadClassifier(early_stopping=True)
    with pytest.raises(ValueError, match=r"0\.1 of 12 .* is 2: too few .* the 3 classes"):
        head.fit(X, np.arange(12) % 3)
    with pytest.raises(ValueError, match="smallest class has 1"):
        head.fit(X, [0] + [1] * 11)


def test_a_loss_that_is_no_number_names_the_learning_rate(blobs):
    head = HeadClassifier(16, optimizer="sgd", lr=1e30, lr_schedule=None)
    with pytest.raises(TrainingDivergedError, match=r"epoch 1 with the learning rate lr=1e\+30"):
        head.fit(*blobs)


def test_validation_rows_come_with_targets(blobs):
    with pytest.raises(ValueError, match="Pass X_val and y_val together"):
        HeadClassifier().fit(*blobs, X_val=blobs[0])


def test_class_weight_is_not_for_several_labels():
    X, y = make_multilabel_classification(50, 5, n_classes=3, random_state=0)
    with pytest.raises(ValueError, match="class_weight has no meaning for several labels"):
        HeadClassifier(class_weight="balanced").fit(X, y)
