"""Pipelines and stacks from the factories are scikit-learn's own, put together as promised."""

import re
from collections import Counter

import numpy as np
import pytest
from counting import CountingBackbone
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC
from torch import nn

from sktransfer import (
    HeadClassifier,
    HeadRegressor,
    ImageEmbedder,
    MultiViewClassifier,
    MultiViewRegressor,
    make_transfer_pipeline,
    make_transfer_stack,
)
from sktransfer.datasets import make_shapes


def test_pipeline_has_the_steps_and_the_parameters():
    pipeline = make_transfer_pipeline("resnet50", weights="IMAGENET1K_V1", image_size=160)
    assert type(pipeline) is Pipeline
    embedder, head = pipeline["embedder"], pipeline["head"]
    assert isinstance(embedder, ImageEmbedder) and isinstance(head, HeadClassifier)
    assert (embedder.weights, embedder.image_size) == ("IMAGENET1K_V1", 160)


def test_a_head_is_cloned_for_each_branch():
    head = LinearSVC(C=3.0)
    stack = make_transfer_stack(["tiny_resnet", "tiny_mobilenet"], head)
    heads = [pipeline["head"] for _, pipeline in stack.estimators]
    assert [h.C for h in heads] == [3.0, 3.0]
    assert heads[0] is not heads[1] and heads[0] is not head


def test_stack_is_scikit_learns_with_branches_named_by_backbone():
    stack = make_transfer_stack(
        ["resnet50", "timm:inception_resnet_v2"], cv=3, stack_method="decision_function", n_jobs=2
    )
    assert type(stack) is StackingClassifier
    assert [name for name, _ in stack.estimators] == ["resnet50", "timm_inception_resnet_v2"]
    assert isinstance(stack.final_estimator, MLPClassifier)
    assert (stack.cv, stack.stack_method, stack.n_jobs) == (3, "decision_function", 2)
    assert clone(stack).set_params(resnet50__head__dropout=0.3)


def test_branches_can_be_named():
    stack = make_transfer_stack([("small", "tiny_resnet"), ("large", "tiny_resnet")], cache=None)
    assert [name for name, _ in stack.estimators] == ["small", "large"]


def test_two_branches_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"Two branches have the same name.*\(name, backbone\)"):
        make_transfer_stack(["tiny_resnet", "tiny_resnet"])


@pytest.mark.parametrize("backbones", ["resnet50", [], nn.Sequential(nn.Flatten())])
def test_backbones_is_a_list(backbones):
    with pytest.raises(ValueError, match=r"'backbones' parameter|backbones is empty"):
        make_transfer_stack(backbones)


def test_a_custom_module_is_named_after_its_class(tmp_path):
    stack = make_transfer_stack([CountingBackbone(tmp_path / "log"), "tiny_resnet"])
    assert [name for name, _ in stack.estimators] == ["CountingBackbone", "tiny_resnet"]


def test_progress_reaches_embedders_and_heads(capsys):
    shapes = make_shapes(24, random_state=0)
    branches = [("a", "tiny_resnet"), ("b", "tiny_mobilenet")]
    params = {"image_size": 32, "engine": "torch", "verbose": 1, "cv": 2}
    make_transfer_stack(branches, **params).fit(shapes.data, shapes.target)
    bars = Counter(
        re.findall(r"^([^:\n]+): 100%", capsys.readouterr().err.replace("\r", "\n"), re.M)
    )
    assert bars["tiny_resnet"] and bars["tiny_mobilenet"]
    for n_features in (768, 576):
        assert bars[f"Head of {n_features} features, 24 samples"]
        assert bars[f"Head of {n_features} features, 12 samples"] >= 2
    views = make_transfer_pipeline(
        head=HeadClassifier(verbose=2), augmentation="flip", n_views=2, verbose=1
    )
    assert (views["embedder"].verbose, views["head"].estimator.verbose) == (1, 2)


@pytest.mark.parametrize("views", [{"n_views": 4}, {"n_test_views": 4}])
def test_a_head_is_wrapped_where_there_are_views(views):
    stack = make_transfer_stack(["tiny_resnet"], LinearSVC(C=3.0), augmentation="crop", **views)
    ((_, pipeline),) = stack.estimators
    assert type(pipeline["head"]) is MultiViewClassifier
    assert stack.get_params()["tiny_resnet__head__estimator__C"] == 3.0
    assert pipeline["embedder"].augmentation == "crop"
    for name, number in views.items():
        assert getattr(pipeline["embedder"], name) == number


def test_a_head_that_takes_views_is_not_wrapped_again():
    search = GridSearchCV(MultiViewClassifier(LinearSVC()), {"estimator__C": [1.0]})
    for head in (search, search.estimator, StackingClassifier([("a", search.estimator)])):
        pipeline = make_transfer_pipeline(head=head, augmentation="crop", n_views=4)
        assert type(pipeline["head"]) is type(head)


def test_an_augmentation_without_views_is_refused():
    with pytest.raises(ValueError, match=r"Pass the number of views too, for example n_views=4"):
        make_transfer_pipeline(augmentation="crop")
    with pytest.raises(ValueError, match="has no effect"):
        make_transfer_stack(["tiny_resnet"], augmentation="crop", n_test_views=1)


SMALL = {"image_size": 32, "engine": "torch"}


def spots(n=80):
    """Grey images with a spot, its size, and the brightness of the image."""
    rng = np.random.default_rng(0)
    size, background = rng.uniform(2, 14, n), rng.uniform(0, 120, n)
    distance = np.hypot(*(np.mgrid[:32, :32] - 15.5))
    images = np.where(distance < size[:, None, None], 250, background[:, None, None])
    return images.astype(np.uint8), np.column_stack([size, images.mean(axis=(1, 2))])


def test_regression_of_the_size_of_a_spot_and_of_brightness():
    images, y = spots()
    model = make_transfer_pipeline("tiny_resnet", HeadRegressor(random_state=0), **SMALL)
    model.fit(images[:60], y[:60])
    assert model.predict(images[60:]).shape == (20, 2)
    assert model.score(images[60:], y[60:]) > 0.7
    views = make_transfer_pipeline(head=Ridge(), augmentation="flip", n_views=2, **SMALL)
    assert type(views["head"]) is MultiViewRegressor
    assert views.fit(images[:60], y[:60]).predict(images[60:]).shape == (20, 2)


def test_a_stack_of_regressors():
    images, y = spots(60)
    backbones = ["tiny_resnet", "tiny_mobilenet"]
    stack = make_transfer_stack(backbones, HeadRegressor(max_epochs=20), cv=2, **SMALL)
    assert type(stack) is StackingRegressor
    assert stack.fit(images, y[:, 1]).score(images, y[:, 1]) > 0.7
    with pytest.raises(ValueError, match="stack_method='predict_proba' is not for regressors"):
        make_transfer_stack(backbones, HeadRegressor(), stack_method="predict_proba")


@pytest.mark.parametrize("n_labels", [2, 3])
def test_a_stack_predicts_several_labels_per_image(n_labels):
    images, y = spots(60)
    labels = np.column_stack([y > np.median(y, axis=0), images[:, 0, 0] > 60])[:, :n_labels]
    stack = make_transfer_stack(
        ["tiny_resnet", "tiny_mobilenet"], cv=2, stack_method="decision_function", **SMALL
    ).fit(images, labels.astype(int))
    assert (stack.predict(images) == labels).mean() > 0.85
    proba = stack.final_estimator_.predict_proba(stack.transform(images))
    np.testing.assert_array_equal(proba > 0.5, stack.predict(images))


def test_the_default_final_estimator_is_a_logistic_regression():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300] / 16, y[:300]
    final = make_transfer_stack(["tiny_resnet"]).final_estimator.fit(X, y)
    expected = LogisticRegression(max_iter=1000, tol=1e-6).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(final.predict_proba(X), expected, atol=0.01)


@pytest.mark.parametrize("head", [[], {}, "logistic"])
def test_a_head_is_an_estimator(head):
    for make in (make_transfer_pipeline, lambda head: make_transfer_stack(["tiny_resnet"], head)):
        with pytest.raises(TypeError, match="object implementing 'fit'"):
            make(head=head)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"imagesize": 64}, "Did you mean 'image_size'"),
        ({"lr": 0.1}, r"head=HeadClassifier\(lr=0.1\)"),
        ({"tta": 4}, r"Expected one of \['backbone.*'weights'\]"),
    ],
)
def test_unknown_keywords_are_refused_in_the_name_of_the_function(given, hint):
    for make, first in ((make_transfer_pipeline, "a"), (make_transfer_stack, ["a"])):
        message = rf"^{make.__name__}\(\) .* '{next(iter(given))}'.*{hint}"
        with pytest.raises(TypeError, match=message):
            make(first, **given)
    with pytest.raises(TypeError, match=r"make_transfer_stack\(\).*Did you mean 'backbones'"):
        make_transfer_stack(["a"], backbone="b")
