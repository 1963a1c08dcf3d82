"""scikit-learn's checks that need no data, and our own checks, of estimators of images."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils import estimator_checks

from sktransfer import (
    FineTuneClassifier,
    HeadClassifier,
    HeadRegressor,
    ImageEmbedder,
    make_transfer_pipeline,
    make_transfer_stack,
)
from sktransfer.estimator_checks import check_image_estimator

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"image_size": 32, "engine": "torch"}
HEAD = HeadClassifier(max_epochs=2)
ESTIMATORS = {
    "embedder": ImageEmbedder(**SMALL),
    "NaN": ImageEmbedder(**SMALL, on_error="nan"),
    "views": ImageEmbedder(**SMALL, augmentation="flip", n_views=3, n_test_views=2),
    "pipeline": make_transfer_pipeline(head=HeadClassifier(8, max_epochs=2), **SMALL),
    "NaN in a pipeline": make_transfer_pipeline(head=LogisticRegression(), on_error="nan", **SMALL),
    "views in a pipeline": make_transfer_pipeline(
        head=HEAD, augmentation="flip", n_views=2, **SMALL
    ),
    "regression": make_transfer_pipeline(head=HeadRegressor(max_epochs=2), **SMALL),
    "stack": make_transfer_stack(["tiny_resnet", "tiny_mobilenet"], HEAD, cv=2, **SMALL),
    "tuned": FineTuneClassifier(
        head=HEAD, trainable_stages=1, tuned_fraction=1, max_epochs=1, **SMALL
    ),
    "not tuned": FineTuneClassifier(head=HEAD, trainable_stages=0, **SMALL),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_image_checks(name):
    check_image_estimator(ESTIMATORS[name])


@pytest.mark.parametrize("estimator", [ImageEmbedder, FineTuneClassifier])
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_mixin_order,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_set_params,
        estimator_checks.check_valid_tag_types,
    ],
)
def test_common_checks(estimator, check):
    """scikit-learn runs no check on estimators that take no table, but these need no data."""
    check(estimator.__name__, estimator())


class Wrapper(TransformerMixin, BaseEstimator):
    """A wrapper of a user, with something wrong in it."""

    def __init__(self, wrong=None):
        self.wrong = wrong

    def fit(self, X, y=None):
        size = 32 + len(X) // 24 if self.wrong == "again" else 32
        self.embedder_ = ImageEmbedder(image_size=size, engine="torch", on_error="nan").fit(X)
        return self

    def get_feature_names_out(self, input_features=None):
        names = self.embedder_.get_feature_names_out()
        return names[:-1] if self.wrong == "names" else names

    def transform(self, X):
        rows = self.embedder_.transform(X)
        if self.wrong == "order":
            rows = rows[::-1]
        if self.wrong == "neighbors":
            rows = rows - rows.mean(axis=0)
        if self.wrong == "rows":
            rows = rows[np.isfinite(rows).all(axis=1)]
        if self.wrong == "zeros":
            rows = np.nan_to_num(rows)
        if self.wrong == "input" and isinstance(X, np.ndarray) and X.dtype != object:
            X //= 2
        if self.wrong == "list" and isinstance(X, list):
            X[0] = np.array(X[0])
        if self.wrong == "state":
            self.seen_ = getattr(self, "seen_", 0) + 1
            rows = rows + self.seen_
        return rows

    def __getstate__(self):
        state = super().__getstate__().copy()
        if self.wrong == "pickle":
            state.pop("embedder_", None)
        return state


def test_a_good_wrapper_passes():
    check_image_estimator(Wrapper())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("order", "Not equal to tolerance"),
        ("neighbors", "Not equal to tolerance"),
        ("rows", "dropped rows"),
        ("zeros", "not NaN"),
        ("input", "Not equal to tolerance|was changed"),
        ("list", "was changed"),
        ("state", "Not equal to tolerance"),
        ("pickle", "embedder_"),
        ("again", "embedded again"),
        ("names", "do not fit"),
    ],
)
def test_a_wrong_wrapper_fails(wrong, message):
    with pytest.raises((AssertionError, AttributeError), match=message):
        check_image_estimator(Wrapper(wrong))
