"""HeadClassifier: errors say what was given and what to do."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import make_multilabel_classification
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import ShuffleSplit
from skorch.callbacks import EarlyStopping

from sktransfer.exceptions import TrainingDivergedError
from sktransfer.heads import HeadClassifier, HeadRegressor

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("hidden_units", [(8, 0), (8, "wide"), [2.5], True, 10**30, -1])
def test_impossible_widths(blobs, hidden_units):
    with pytest.raises(ValueError, match="hidden_units must be a positive integer"):
        HeadClassifier(hidden_units).fit(*blobs)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"module": torch.nn.Linear, "activation": "tanh"}, "activation would be ignored"),
        ({"module_params": {"width": 4}}, "arguments of module, which is None"),
        ({"lr_schedule": None, "lr_schedule_params": {"a": 1}}, "arguments of lr_schedule, which"),
        ({"lr_schedule_params": {"T_mx": 1}}, "lr_schedule_params has 'T_mx', which CosineAnn"),
        ({"optimizer_params": {"beta": 1}}, "optimizer_params has 'beta', which Adam does not"),
        ({"class_weight": {0: 0.0}}, "must be positive and below 1e\\+100 for every class"),
        ({"early_stopping": True, "validation_splitter": iter([])}, "yields no split"),
        ({"callbacks": ["a"]}, "callbacks contains 'a', which is not a skorch callback"),
        ({"callbacks": [("a", 1)]}, "which is not a skorch callback"),
        ({"callbacks": [int]}, "which is not a skorch callback"),
        ({"callbacks": [EarlyStopping()]}, r"EarlyStopping\(monitor='valid_loss'\).*Pass X_val"),
        ({"device": "meta"}, "device='meta' is not supported"),
        ({"max_epochs": 10**30}, "max_epochs"),
        ({"lr_schedule": print}, "neither a name nor a class of torch.optim.lr_scheduler"),
        ({"lr_schedule_params": {"step_every": "week"}}, 'step_every must be "epoch" or "batch"'),
        ({"optimizer": torch.nn.Linear}, "neither a name nor a class of torch.optim"),
        ({"optimizer_params": {"lr": float("nan")}}, "Adam refuses lr=nan"),
        ({"optimizer_params": {"lr": "fast"}}, "Adam refuses lr=fast"),
        ({"module": lambda n_features, n_outputs: None}, "returned NoneType"),
        ({"validation_splitter": {1: 2}}, "validation_splitter=.*makes no split"),
        ({"validation_splitter": [(range(300), [300])]}, "makes no split: index 300 is out of"),
        ({"validation_splitter": [([], [1])]}, "makes no split: a side is empty"),
        ({"lr": 10**400}, "'lr' parameter"),
        ({"lr_schedule_params": {"T_max": pd.NA}}, "values that no CosineAnnealingLR takes: T_max"),
        ({"optimizer_params": {"betas": []}}, "Adam refuses lr="),
        ({"scoring": "acuracy"}, "scoring"),
        (
            {"weight_decay": 0.1, "optimizer_params": {"weight_decay": 0.5}},
            "both set the optimizer's weight_decay",
        ),
    ],
)
def test_impossible_parameters(blobs, params, message):
    with pytest.raises(ValueError, match=message):
        HeadClassifier(**params).fit(*blobs)


def test_a_module_takes_the_numbers_of_features_and_outputs(blobs):
    head = HeadClassifier(module=torch.nn.Linear)
    with pytest.raises(TypeError, match=r"module=Linear .* n_features, n_outputs: missing"):
        head.fit(*blobs)
    head.set_params(module=lambda n_features, n_outputs: None, module_params={"width": 4})
    with pytest.raises(TypeError, match=r"the keyword arguments width, .* unexpected .* 'width'"):
        head.fit(*blobs)


@pytest.mark.parametrize("weight", [0.0, float("nan"), 1e308, float("inf")])
def test_impossible_weights(blobs, weight):
    for sample_weight in (weight, [weight] * len(blobs[0])):
        with pytest.raises(ValueError, match="weight"):
            HeadClassifier().fit(*blobs, sample_weight=sample_weight)


def test_arguments_of_the_optimizer_override_ours(blobs):
    head = HeadClassifier(max_epochs=1, optimizer_params={"foreach": True}).fit(*blobs)
    group = head.net_.optimizer_.param_groups[0]
    assert group["foreach"] and not group["fused"]
    head.set_params(optimizer_params={"weight_decay": 0.5}).fit(*blobs)
    assert head.net_.optimizer_.param_groups[0]["weight_decay"] == 0.5


@pytest.mark.parametrize(
    "params",
    [{"early_stopping": True}, {"class_weight": "balanced"}, {"validation_splitter": 3 * [None]}],
)
def test_partial_fit_refuses_what_it_cannot_do(blobs, params):
    with pytest.raises(ValueError, match=f"partial_fit .* cannot use {next(iter(params))}"):
        HeadClassifier(**params).partial_fit(*blobs, classes=[0, 1, 2])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "classes is empty"),
        ([0, None, 1], "classes has missing values"),
        ([0, "a"], "classes mixes labels of different types: int, str"),
        ([0], "at least two classes"),
        ([0, 1], "name them all in the first call"),
        (None, "classes must be passed on the first call"),
    ],
)
def test_classes_of_partial_fit(blobs, classes, message):
    head = HeadClassifier()
    with pytest.raises(ValueError, match=message):
        head.partial_fit(*blobs, classes=classes)
    with pytest.raises(NotFittedError):
        head.predict(blobs[0])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", None], "y has missing values"),
        (["a", np.nan], "y has missing values"),
        (pd.array([1, None], dtype="Int64"), "y has missing values"),
        ([1, "a"], "y mixes labels of different types: int, str"),
        (np.array([b"a", "a"], dtype=object), "y mixes labels of different types: bytes, str"),
        ([b"a", b"b"], "y has labels of the type bytes"),
        ([object(), object()], "y has labels of the type object"),
    ],
)
def test_labels_that_are_missing_or_mixed(labels, message):
    with pytest.raises(ValueError, match=message):
        HeadClassifier().fit(np.eye(2), labels)
    with pytest.raises(ValueError, match=message):
        HeadClassifier().partial_fit(np.eye(2), labels, classes=["a", "b"])
    with pytest.raises(ValueError, match=message.replace("y ", "y_val ", 1)):
        HeadClassifier().fit(np.eye(4), list("abab"), X_val=np.eye(2, 4), y_val=labels)


def test_labels_of_another_type_than_before(blobs):
    head = HeadClassifier(max_epochs=1).fit(*blobs)
    with pytest.raises(ValueError, match=r"does not know: \['a', 'b'\]"):
        head.partial_fit(blobs[0][:2], ["a", "b"])


@pytest.mark.parametrize(("n_samples", "batch_size"), [(1, 128), (10, 1)])
def test_batch_norm_on_single_samples(n_samples, batch_size):
    X, y = np.eye(10)[:n_samples], np.arange(n_samples) % 2
    head = HeadClassifier(batch_norm=True, batch_size=batch_size)
    with pytest.raises(ValueError, match="needs two samples in every training batch"):
        head.partial_fit(X, y, classes=[0, 1])


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


@pytest.mark.parametrize("wrap", [np.asarray, torch.tensor])
def test_views_point_to_what_takes_them(blobs, wrap):
    X, y = blobs
    fitted = HeadClassifier(max_epochs=1, random_state=0).fit(X, y)
    views = wrap(np.stack([X, X], axis=1))
    for method in (fitted.predict, lambda views: fitted.fit(views, y)):
        with pytest.raises(ValueError, match=r"\(300, 2, \d+\).*MultiViewClass.*n_views=2\)"):
            method(views)


def test_nan_rows_point_to_unreadable_images(blobs):
    X, y = blobs
    X = X.copy()
    X[[4, 9]] = np.nan
    message = r'NaN in 2 of 300 rows, first in row 4\..*"nan".*model\["embedder"\]\.errors_'
    with pytest.raises(ValueError, match=message):
        HeadClassifier().fit(X, y)
    head = HeadClassifier(max_epochs=1).fit(*blobs)
    for method in (head.predict, head.predict_proba, head.decision_function):
        with pytest.raises(ValueError, match=message):
            method(X)
    with pytest.raises(ValueError, match="infinity"):
        head.predict(np.where(np.isnan(X), np.inf, X))


def test_scorers_for_other_targets(blobs):
    X, y = blobs
    head = {"early_stopping": True, "validation_fraction": 0.3, "max_epochs": 1}
    for scoring in ("r2", "neg_mean_squared_error", "neg_max_error", "d2_absolute_error_score"):
        for labels in (y, y == y[0], np.stack([y == y[0], y == y[1]], axis=1)):
            with pytest.raises(ValueError, match=f"{scoring}' compares numbers.*f1_macro"):
                HeadClassifier(scoring=scoring, **head).fit(X, labels)
    for scoring in ("f1", "roc_auc"):
        with pytest.raises(ValueError, match=f"scoring='{scoring}' fails on the.*f1_macro"):
            HeadClassifier(scoring=scoring, **head).fit(X, y)
    with pytest.raises(ValueError, match=r"scoring='accuracy' fails on.*r2"):
        HeadRegressor(scoring="accuracy", **head).fit(X, X[:, 0])
    for scoring in ("f1", "neg_brier_score", "adjusted_rand_score"):
        assert HeadClassifier(scoring=scoring, **head).fit(X, y == y[0]).history_


def test_one_class():
    with pytest.raises(ValueError, match=r"y has only one class: 'cat'.*use stratified folds"):
        HeadClassifier().fit(np.eye(3), ["cat"] * 3)
    with pytest.raises(ValueError, match="one class where weights are positive"):
        HeadClassifier().fit(np.eye(3), [0, 0, 1], sample_weight=[1, 1, 0])


def test_too_few_samples_for_a_validation_split():
    X = np.random.default_rng(0).normal(size=(12, 3))
    head = HeadClassifier(early_stopping=True)
    with pytest.raises(ValueError, match=r"0\.1 of 12 .* is 2: too few .* the 3 classes"):
        head.fit(X, np.arange(12) % 3)
    with pytest.raises(ValueError, match="smallest class has 1"):
        head.fit(X, [0] + [1] * 11)


def test_divergence_names_the_learning_rate(blobs):
    head = HeadClassifier(16, optimizer="sgd", lr=1e30, lr_schedule=None)
    with pytest.raises(TrainingDivergedError, match=re.escape("lr=1e+30. Try lr=1e+29")):
        head.fit(*blobs)


def test_validation_data(blobs):
    with pytest.raises(ValueError, match="Pass both X_val and y_val"):
        HeadClassifier().fit(*blobs, X_val=blobs[0])
    with pytest.raises(ValueError, match="0 sample"):
        HeadClassifier().fit(*blobs, X_val=blobs[0][:0], y_val=blobs[1][:0])
    fold = [(np.arange(200), np.arange(200, 300))]
    with pytest.raises(ValueError, match="No validation sample has a positive weight"):
        head = HeadClassifier(validation_splitter=fold)
        head.fit(*blobs, sample_weight=np.arange(300) < 200)


def test_several_labels_are_marked_by_zero_and_one():
    X, y = make_multilabel_classification(50, 5, n_classes=3, random_state=0)
    head = HeadClassifier(max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=r"y_val marks.*contains \[7\]"):
        head.fit(X, y, X_val=X, y_val=y * 7)
    head.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"y marks.*contains \[0\.5\]"):
        head.partial_fit(X, y * 0.5)


def test_class_weight_is_not_for_several_labels():
    X, y = make_multilabel_classification(50, 5, n_classes=3, random_state=0)
    with pytest.raises(ValueError, match="class_weight does not apply to several labels"):
        HeadClassifier(class_weight="balanced").fit(X, y)


def test_a_head_whose_fit_failed_is_not_fitted(blobs):
    X, y = blobs
    head = HeadClassifier(max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="0 sample"):
        head.fit(X, y > 1, X_val=X[:0], y_val=y[:0])
    with pytest.raises(NotFittedError):
        head.predict(X)


@pytest.mark.filterwarnings("ignore:The groups parameter is ignored")
def test_a_splitter_that_parts_a_group_is_refused(blobs):
    X, y = blobs
    head = HeadClassifier(validation_splitter=ShuffleSplit(1, random_state=0), max_epochs=1)
    with pytest.raises(ValueError, match=r"samples of one group.*"):
        head.fit(X, y, groups=np.arange(len(X)) // 2)


def test_a_fit_that_fails_leaves_an_unfitted_head(blobs):
    X, y = blobs
    head = HeadClassifier(max_epochs=1).fit(X, y)
    with pytest.raises(ValueError):
        head.set_params(lr_schedule_params={"nonsense": 1}).fit(X, y)
    with pytest.raises(NotFittedError):
        head.predict(X)


def test_validation_images_in_a_pipeline_name_what_works(blobs):
    X, y = blobs
    with pytest.raises(TypeError, match="validation_splitter, which split X by index"):
        HeadClassifier().fit(X, y, X_val=["a.jpg", "b.jpg"], y_val=y[:2])
