"""HeadClassifier as a scikit-learn classifier: common checks, targets, networks, pickles."""

import copy
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from new_process import run
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_multilabel_classification
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback

from sktransfer.exceptions import WeightsError
from sktransfer.heads import HeadClassifier

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(head):
    return torch.cat([p.detach().flatten() for p in head.net_.module_.parameters()]).numpy()


def weights_are_not_repetitions(estimator):
    """Name the check that scikit-learn expects its own SGDClassifier to fail."""
    return {
        "check_sample_weight_equivalence_on_dense_data": (
            "sample_weight is not equivalent to removing/repeating samples."
        )
    }


@parametrize_with_checks(
    [
        HeadClassifier(max_epochs=20),
        HeadClassifier(hidden_units=(16, 8), dropout=0.2, batch_norm=True, max_epochs=20),
    ],
    expected_failed_checks=weights_are_not_repetitions,
)
def test_common_checks(estimator, check):
    check(estimator)


def pipeline_changes_its_steps(estimator):
    """Name the two checks that scikit-learn expects every Pipeline to fail."""
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


@pytest.mark.parametrize("dtype", ["string", "category", "Int64", "boolean", "str", object])
def test_labels_as_arrays_of_pandas(blobs, dtype):
    X, y = blobs
    labels = y % 2 if dtype in ("Int64", "boolean") else np.array(["a", "b"])[y % 2]
    values = pd.Series(labels).astype(dtype)
    expected = HeadClassifier(max_epochs=2, random_state=0).fit(X, labels).predict(X)
    for given in (values, values.array):
        head = HeadClassifier(max_epochs=2, random_state=0).fit(X, given)
        assert head.predict(X).astype(expected.dtype).tolist() == expected.tolist()


def test_several_labels_per_sample():
    X, y = make_multilabel_classification(400, 20, n_classes=4, random_state=0)
    head = HeadClassifier(random_state=0).fit(X, y)
    proba = head.predict_proba(X)
    assert head.target_type_ == "multilabel-indicator"
    assert proba.shape == y.shape
    assert np.array_equal(head.predict(X), proba > 0.5)
    assert (head.predict(X) == y).mean() > 0.82
    smooth = HeadClassifier(label_smoothing=0.4, random_state=0).fit(X, y)
    assert np.abs(smooth.decision_function(X)).mean() < np.abs(head.decision_function(X)).mean()


def test_rare_labels_start_at_their_frequency():
    X, y = np.random.default_rng(0).normal(size=(200, 5)), np.arange(200)[:, None] % [10, 50] == 0
    head = HeadClassifier(max_epochs=1, random_state=0).fit(X, y.astype(int))
    assert head.predict_proba(X).mean(axis=0) == pytest.approx(y.mean(axis=0), abs=0.05)


def test_several_labels_per_sample_incrementally():
    X, y = make_multilabel_classification(400, 20, n_classes=4, random_state=0)
    head = HeadClassifier(random_state=0)
    for _ in range(30):
        head.partial_fit(X, y)
    logistic = MultiOutputClassifier(LogisticRegression()).fit(X, y)
    expected = (logistic.predict(X) == y).mean()
    # The learning rate stays constant, so accuracy varies by a point from epoch to epoch.
    assert (head.predict(X) == y).mean() > expected - 0.02


# Networks


def test_default_is_as_good_as_a_tuned_logistic_regression(digits):
    X, y = (part[:900] for part in digits)
    grid = {"logisticregression__C": [0.01, 0.1, 1.0]}
    tuned = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), grid, cv=3
    )
    ours = cross_val_score(HeadClassifier(random_state=0), X, y, cv=3).mean()
    assert ours > cross_val_score(tuned, X, y, cv=3).mean() - 0.01


def test_architectures_can_be_searched(blobs):
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
    X = X * np.arange(1, 21) + 5
    head = HeadClassifier(scaling=scaling, max_epochs=1).fit(X, y)
    if scaling is None:
        assert isinstance(head.net_.module_.scaling, torch.nn.Identity)
        return
    scaled = head.net_.module_.scaling(torch.as_tensor(X, dtype=torch.float32)).numpy()
    assert np.allclose(scaled.mean(axis=0), 0, atol=1e-5)
    variance = scaled.var(axis=0)
    assert np.allclose(variance.mean() if scaling == "global" else variance, 1, atol=1e-4)
    assert (np.ptp(variance) > 0.5) == (scaling == "global")


def test_training_leaves_the_embeddings_alone(blobs):
    X = np.ascontiguousarray(blobs[0], dtype=np.float32)
    before = X.copy()
    HeadClassifier(max_epochs=1).fit(X, blobs[1])
    assert np.array_equal(X, before)


class Own(torch.nn.Module):
    """A custom network."""

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
    loaded = pickle.loads(pickle.dumps(head))
    assert np.array_equal(loaded.predict(blobs[0]), head.predict(blobs[0]))


def test_custom_module_with_outputs_of_the_wrong_shape(blobs):
    def wrong(n_features, n_outputs):
        return torch.nn.Linear(n_features, n_outputs + 1)

    with pytest.raises(ValueError, match=r"logits of shape \(n_samples, 3\).*shape \(2, 4\)"):
        HeadClassifier(module=wrong).fit(*blobs)


def test_custom_module_excludes_our_layers(blobs):
    with pytest.raises(ValueError, match="hidden_units, dropout would be ignored"):
        HeadClassifier(8, dropout=0.1, module=Own).fit(*blobs)
    with pytest.raises(ValueError, match="dropout would be ignored"):
        HeadClassifier(dropout=0.1, module=partial(Own, width=2)).fit(*blobs)
    with pytest.raises(ValueError, match="class or a function"):
        HeadClassifier(module=Own(20, 3)).fit(*blobs)


# Features as tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_features_as_tensors(blobs, dtype):
    X, y = torch.tensor(blobs[0]).to(dtype), blobs[1]
    head = HeadClassifier(max_epochs=2, random_state=0).fit(X.clone().requires_grad_(), y)
    same = HeadClassifier(max_epochs=2, random_state=0).fit(X.double().numpy(), torch.tensor(y))
    assert np.array_equal(head.predict_proba(X.requires_grad_()), same.predict_proba(X))


# Devices and pickles


TORCH = re.escape(torch.__version__)


def pickle_again(head):
    return pickle.loads(pickle.dumps(head))


def joblib_again(head):
    buffer = BytesIO()
    joblib.dump(head, buffer)
    return joblib.load(buffer)


def test_a_head_from_a_gpu_loads_on_a_machine_without_one(blobs):
    head = HeadClassifier(max_epochs=2, random_state=0).fit(*blobs)
    expected = head.predict_proba(blobs[0])
    loaded = pickle.loads(pickle.dumps(head.set_params(device="cuda:7")))
    assert loaded.net_.device == "cpu"
    assert np.array_equal(loaded.predict_proba(blobs[0]), expected)
    loaded.partial_fit(*blobs)


def test_a_loaded_head_goes_on_training(blobs):
    head = HeadClassifier(8, optimizer="sgd", optimizer_params={"momentum": 0}, random_state=0)
    for _ in range(2):
        head.partial_fit(*blobs, classes=[0, 1, 2])
    loaded = pickle.loads(pickle.dumps(head))
    assert loaded.history_ == head.history_
    assert np.array_equal(weights(loaded.partial_fit(*blobs)), weights(head.partial_fit(*blobs)))
    assert [row["epoch"] for row in loaded.history_] == [1, 2, 3]


def test_loading_leaves_the_random_state_alone(blobs):
    data = pickle.dumps(HeadClassifier(8, max_epochs=1).fit(*blobs))
    before = torch.get_rng_state()
    pickle.loads(data)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("again", [pickle_again, joblib_again, copy.copy, copy.deepcopy])
def test_networks_are_built_again_when_they_are_needed(blobs, again):
    head = HeadClassifier(8, callbacks=[Callback()], max_epochs=2).fit(*blobs)
    loaded = again(head)
    assert not {"_net", "_module"} & vars(loaded).keys()
    with torch.inference_mode():
        assert np.array_equal(loaded.predict_proba(blobs[0]), head.predict_proba(blobs[0]))
    assert "_net" not in vars(loaded) and loaded.callbacks is None
    assert loaded.net_.history[-1]["train_loss"] == head.history_[-1]["train_loss"]
    assert loaded.partial_fit(*blobs).n_epochs_ == 3 and head.n_epochs_ == 2


def test_a_loaded_head_predicts_in_many_threads_at_once(blobs):
    head = HeadClassifier(8, max_epochs=2, random_state=0).fit(*blobs)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            loaded = pickle.loads(pickle.dumps(head))
            rows = list(pool.map(lambda _, loaded=loaded: loaded.predict_proba(blobs[0]), range(8)))
            assert all(np.array_equal(found, head.predict_proba(blobs[0])) for found in rows)


def test_weights_that_do_not_fit_name_the_version_that_made_them(blobs, monkeypatch):
    head = HeadClassifier(module=Own, max_epochs=1).fit(*blobs)
    monkeypatch.setattr(torch, "__version__", "9.9")
    loaded = pickle.loads(pickle.dumps(head))
    assert np.array_equal(loaded.predict(blobs[0]), head.predict(blobs[0]))
    loaded = pickle.loads(pickle.dumps(head))
    loaded._structure["module_params"] = {"width": 9}
    with pytest.raises(WeightsError, match=rf"torch {TORCH} made them, and this is torch 9\.9"):
        loaded.predict(blobs[0])


def test_pickles_hold_no_training_data(blobs):
    X, y = np.tile(blobs[0], 50), blobs[1]
    head = HeadClassifier(
        early_stopping=True, validation_fraction=0.3, scoring="f1_macro", max_epochs=2
    )
    assert len(pickle.dumps(head.fit(X, y))) < X.astype(np.float32).nbytes / 4


def test_pickles_hold_little_more_than_the_weights():
    X, y = np.random.default_rng(0).normal(size=(40, 2000)), np.arange(40) % 20
    head = HeadClassifier(max_epochs=1).fit(X, y)
    assert len(pickle.dumps(head)) < 2001 * 20 * 4 + 2000 * 4 + 10_000


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "gpu", "meta"])
def test_devices_that_are_not_available(blobs, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device='?\"?{device}.* is not"):
        HeadClassifier(device=device).fit(*blobs)


def test_a_device_may_be_an_object_of_torch(blobs):
    head = HeadClassifier(max_epochs=1, device=torch.device("cpu")).fit(*blobs)
    assert head.net_.device == "cpu"


def test_loading_and_predicting_import_no_training_code(blobs, tmp_path):
    head = HeadClassifier(8, max_epochs=2, random_state=0).fit(*blobs)
    joblib.dump((head, blobs[0], head.predict_proba(blobs[0])), tmp_path / "head")
    program = """
import sys, joblib
head, X, proba = joblib.load(path)
assert (head.predict_proba(X) == proba).all()
assert "skorch" not in sys.modules
"""
    run(program, path=tmp_path / "head")


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


def test_validation_data_passes_through_a_pipeline_by_routing(blobs):
    X, y = blobs
    with sklearn.config_context(enable_metadata_routing=True):
        head = HeadClassifier(max_epochs=2, random_state=0)
        head.set_fit_request(sample_weight=True, groups=True, X_val=True, y_val=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        model = make_pipeline(scaler, head, transform_input=["X_val"])
        data = {"sample_weight": np.ones(200), "groups": np.arange(200) // 2}
        model.fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:], **data)
    assert "valid_loss" in model[-1].history_[-1]
