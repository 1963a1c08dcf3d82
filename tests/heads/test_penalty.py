"""The penalty of a linear head: what leaving samples out prefers, and odd data."""

import numpy as np
import pytest
import sklearn
from sklearn.datasets import make_classification
from sklearn.linear_model import Ridge

from sktransfer.heads import HeadClassifier
from sktransfer.heads._penalty import STRENGTHS, choose_penalty


@pytest.mark.parametrize("n_classes", [2, 3])
def test_automatic_penalty_is_the_one_that_leaving_samples_out_prefers(n_classes):
    X, y = make_classification(
        60, 20, n_informative=5, n_classes=n_classes, flip_y=0.2, random_state=0
    )
    weight = np.where(np.arange(60) < 20, 2.0, 1.0)
    norm = np.average(((X - np.average(X, axis=0, weights=weight)) ** 2).sum(1), weights=weight)
    targets = np.eye(n_classes)[y]
    right = []
    for alpha in STRENGTHS * norm * weight.mean():
        hits = 0.0
        for number in range(60):
            kept = np.arange(60) != number
            with sklearn.config_context(skip_parameter_validation=True, assume_finite=True):
                ridge = Ridge(alpha).fit(X[kept], targets[kept], sample_weight=weight[kept])
            predicted = (X[~kept] @ ridge.coef_.T + ridge.intercept_).argmax(axis=1)
            hits += weight[~kept] @ (predicted == y[~kept])
        right.append(hits)
    smooth = np.convolve(np.pad(right, 1, mode="edge"), np.ones(3), mode="valid")
    curvature = (1 - 1 / n_classes) / n_classes
    chosen = choose_penalty(X, y, weight) / norm / curvature
    nearest = np.abs(np.log2(STRENGTHS / chosen)).argmin()
    assert smooth[nearest] == smooth.max()


def test_automatic_penalty_takes_any_samples():
    rows, one = np.random.default_rng(0).normal(size=(30, 4)), np.ones(30)
    several = (rows[:, :2] > 0).astype(np.float32)
    assert choose_penalty(rows, several, one) > 0
    assert choose_penalty(rows[:1], np.array([0]), one[:1]) > 0
    assert choose_penalty(np.zeros((30, 4)), several, one) > 0
    assert choose_penalty(rows, np.zeros(30, int), one) > 0


def test_views_of_one_image_count_once(make_views=4):
    X, y = make_classification(200, 20, n_informative=5, flip_y=0.2, random_state=0)
    noise = np.random.default_rng(0).normal(0, 1e-3, size=(200, make_views, 20))
    noise[:, 0] = 0
    views = (X[:, None] + noise).reshape(-1, 20)
    alone = HeadClassifier(max_epochs=1, scaling=None).fit(X, y)
    together = HeadClassifier(max_epochs=1, scaling=None).fit(
        views, y.repeat(make_views), groups=np.arange(200).repeat(make_views)
    )
    apart = HeadClassifier(max_epochs=1, scaling=None).fit(views, y.repeat(make_views))
    assert together.weight_decay_ == pytest.approx(alone.weight_decay_, rel=1e-6)
    assert apart.weight_decay_ < 0.5 * alone.weight_decay_


def test_order_of_the_samples_does_not_bias_the_choice():
    X, y = make_classification(3000, 20, n_informative=5, n_classes=3, random_state=0)
    order = np.argsort(y, kind="stable")
    decays = [
        HeadClassifier(max_epochs=1, random_state=0).fit(X[rows], y[rows]).weight_decay_
        for rows in (np.arange(3000), order)
    ]
    assert 0.1 < decays[0] / decays[1] < 10
