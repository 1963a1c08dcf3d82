"""`summary`: layers, shapes, trainable and frozen parameters."""

import sys

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from sktransfer import (
    FineTuneClassifier,
    HeadClassifier,
    ImageEmbedder,
    MultiViewClassifier,
    make_transfer_pipeline,
    make_transfer_stack,
)
from sktransfer.backbones import backbone_stages, load_backbone, resolve_backbone
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import MissingExtraError
from sktransfer.inspection import summary

torchinfo = pytest.importorskip("torchinfo")


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(n_samples=24, random_state=0)


def n_parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(resolve_backbone("tiny_mobilenet"))


def test_embedder_is_frozen(backbone):
    found = summary(ImageEmbedder())
    assert isinstance(found, torchinfo.ModelStatistics)
    assert (found.trainable_params, found.total_params) == (0, n_parameters(backbone))
    assert "(backbone, license: bsd-3-clause)" in str(found)


@pytest.mark.parametrize("n_unfrozen", [1, 3])
def test_fine_tuned_classifier_shows_what_was_tuned(shapes, backbone, n_unfrozen):
    model = FineTuneClassifier(
        trainable_stages=n_unfrozen, tuned_fraction=1, max_epochs=1, image_size=32, cache=None
    )
    model.fit(shapes.data, shapes.target)
    stages = [module for _, module in backbone_stages(backbone)]
    head = n_parameters(model.head_.net_.module_)
    found = summary(model)
    assert found.total_params == n_parameters(backbone) + head
    assert found.trainable_params == n_parameters(*stages[-n_unfrozen:]) + head


def test_pipeline_trains_its_head_only(shapes):
    model = make_transfer_pipeline(head=HeadClassifier(hidden_units=8, max_epochs=1))
    model.fit(shapes.data, shapes.target)
    found = summary(model, batch_size=3)
    assert found.trainable_params == n_parameters(model[-1].net_.module_)
    assert "[3, 4]" in str(found)  # logits of four classes for three images
    assert summary(model[-1]).total_params == found.trainable_params


def test_summary_changes_nothing(backbone):
    before = [p.requires_grad for p in backbone.parameters()]
    summary(ImageEmbedder())
    assert [p.requires_grad for p in backbone.parameters()] == before
    assert not any(module._forward_hooks for module in backbone.modules())


def test_not_fitted():
    with pytest.raises(NotFittedError):
        summary(FineTuneClassifier())


@pytest.mark.parametrize(
    ("estimator", "hint"),
    [
        (LogisticRegression(), "takes an ImageEmbedder"),
        (make_transfer_pipeline(head=LogisticRegression()), r"pipeline\[0\]"),
        (make_transfer_stack(["tiny_mobilenet", "tiny_resnet"]), "one of its branches"),
    ],
)
def test_other_estimators(estimator, hint):
    with pytest.raises(TypeError, match=hint):
        summary(estimator)


def test_a_pipeline_with_views_is_that_of_its_head(shapes):
    head = HeadClassifier(max_epochs=1, random_state=0)
    model = make_transfer_pipeline(head=head, augmentation="flip", n_views=2)
    with pytest.raises(NotFittedError):
        summary(model)
    assert "Linear" in str(summary(model.fit(shapes.data, shapes.target)))


def test_what_is_inside_of_a_fitted_wrapper_is_named(shapes):
    wrapped = MultiViewClassifier(HeadClassifier(max_epochs=1))
    rows = np.reshape(shapes.data, (len(shapes.data), -1))[:, :8] / 255
    with pytest.raises(TypeError, match=r"Pass model\.estimator_\."):
        summary(wrapped.fit(rows, shapes.target))


def test_without_torchinfo(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchinfo", None)
    with pytest.raises(MissingExtraError, match=r"sktransfer\[report\]"):
        summary(ImageEmbedder())
