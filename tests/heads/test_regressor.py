"""HeadRegressor: targets in their own units, losses, validation, pickles, errors."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_regression
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktransfer import HeadClassifier, HeadRegressor

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def numbers():
    X, y = make_regression(300, 20, n_informative=8, noise=20, random_state=0)
    return X, 3 * y + 1000


def weights_are_not_repetitions(estimator):
    """Name the check that scikit-learn expects its own SGDRegressor to fail."""
    return {
        "check_sample_weight_equivalence_on_dense_data": (
            "sample_weight is not equivalent to removing/repeating samples."
        )
    }


@parametrize_with_checks(
    [HeadRegressor(), HeadRegressor(64, loss="huber")],
    expected_failed_checks=weights_are_not_repetitions,
)
def test_common_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("loss", ["squared_error", "huber"])
def test_default_is_as_good_as_a_tuned_ridge_regression(numbers, loss):
    X, y = numbers
    head = HeadRegressor(loss=loss, random_state=0).fit(X[:200], y[:200])
    ridge = RidgeCV(np.logspace(-3, 3, 13)).fit(X[:200], y[:200])
    assert head.score(X[200:], y[200:]) > ridge.score(X[200:], y[200:]) - 0.01


def test_huber_resists_outliers(numbers):
    X, y = numbers
    wrong = np.where(np.arange(300) % 15 == 0, 1e6, y)
    error = {
        loss: np.abs(
            HeadRegressor(loss=loss, max_epochs=100, random_state=0).fit(X, wrong).predict(X) - y
        )
        for loss in ("squared_error", "huber")
    }
    assert np.median(error["huber"]) < 0.5 * np.median(error["squared_error"])


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e9])
def test_units_of_the_targets_do_not_matter(numbers, factor):
    X, y = numbers
    head, same = (HeadRegressor(8, max_epochs=3, random_state=0) for _ in "ab")
    np.testing.assert_allclose(
        head.fit(X, factor * (y - 1000)).predict(X) / factor + 1000,
        same.fit(X, y).predict(X),
        rtol=1e-4,
    )


def test_several_targets(numbers):
    X, y = numbers
    both = np.column_stack([y, -1e6 * y])
    head = HeadRegressor(random_state=0).fit(X, both)
    assert head.predict(X).shape == (300, 2) and head.target_scale_.shape == (2,)
    np.testing.assert_allclose(head.predict(X)[:, 0], -1e-6 * head.predict(X)[:, 1], rtol=0.05)
    assert head.score(X, both) > 0.9
    assert HeadRegressor(max_epochs=1).fit(X, y[:, None]).predict(X).shape == (300, 1)


@pytest.mark.parametrize("scoring", ["loss", "r2", "neg_mean_absolute_error"])
def test_early_stopping(numbers, scoring):
    X, y = numbers
    head = HeadRegressor(
        32, early_stopping=True, scoring=scoring, n_iter_no_change=3, max_epochs=100, tol=0,
        random_state=0,
    ).fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])  # fmt: skip
    values = [row[f"valid_{scoring}"] for row in head.history_]
    best = np.argmin(values) if scoring == "loss" else np.argmax(values)
    assert head.best_epoch_ == best + 1
    assert set(head.history_[0]) == {
        "epoch", "lr", "seconds", "train_loss", "valid_loss", f"valid_{scoring}",
    }  # fmt: skip
    if scoring == "r2":
        assert values[best] == pytest.approx(head.score(X[200:], y[200:]), abs=1e-5)
    if scoring == "neg_mean_absolute_error":
        error = np.abs(head.predict(X[200:]) - y[200:]).mean()
        assert values[best] == pytest.approx(-error, rel=1e-4)


@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.SmallValidationWarning")
def test_a_fraction_keeps_groups_together(numbers):
    X, y = numbers
    head = HeadRegressor(early_stopping=True, max_epochs=2, random_state=0)
    head.fit(X.repeat(2, axis=0), y.repeat(2), groups=np.arange(300).repeat(2))
    assert "valid_loss" in head.history_[0]


def test_weights_count(numbers):
    X, y = numbers
    weight = np.arange(300) < 200
    head = HeadRegressor(8, max_epochs=3, random_state=0)
    weighted = clone(head).fit(X, y, sample_weight=weight).predict(X)
    np.testing.assert_array_equal(weighted, clone(head).fit(X[:200], y[:200]).predict(X))


def test_partial_fit_and_pickle(numbers):
    X, y = numbers
    head = HeadRegressor(optimizer="sgd", optimizer_params={"momentum": 0}, random_state=0)
    for _ in range(20):
        head.partial_fit(X, y)
    assert head.score(X, y) > 0.9 and head.n_epochs_ == 20
    loaded = pickle.loads(pickle.dumps(head))
    np.testing.assert_array_equal(loaded.predict(X), head.predict(X))
    loaded.set_params(loss="huber").partial_fit(X, y)
    assert loaded.net_.criterion_.losses is torch.nn.functional.huber_loss
    with pytest.raises(ValueError, match=r"shape \(300, 2\), but .* one number per sample"):
        head.partial_fit(X, np.column_stack([y, y]))


@pytest.mark.parametrize("linear", [0, None, []])
def test_widths_that_mean_linear(numbers, linear):
    heads = [HeadRegressor(units, max_epochs=2, random_state=0) for units in (linear, ())]
    one, other = (head.fit(*numbers).predict(numbers[0]) for head in heads)
    assert np.array_equal(one, other)
    labels = numbers[1] > 1000
    assert HeadClassifier(linear, max_epochs=1).fit(numbers[0], labels).n_epochs_ == 1


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["cat", "dog"], "must consist of numbers .* use HeadClassifier"),
        ([1.0, None], "must consist of numbers|contains NaN"),
        ([1.0, np.nan], "y contains NaN"),
        ([1e300, -1e300], "too large"),
        (None, "requires y to be passed"),
        ([[1, 2], [3]], "must consist of numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_targets_that_are_no_numbers(y, message):
    head = HeadRegressor()
    with pytest.raises(ValueError, match=message):
        head.fit(np.eye(2), y)
    with pytest.raises(NotFittedError):
        head.predict(np.eye(2))


def test_targets_that_do_not_vary():
    X = np.random.default_rng(0).normal(size=(20, 3))
    for y in (np.full(20, 7.0), torch.full((20,), 7.0, requires_grad=True)):
        np.testing.assert_allclose(
            HeadRegressor(max_epochs=300).fit(X, y).predict(X), 7.0, atol=0.05
        )


def test_the_docstring_describes_all_parameters():
    doc = HeadRegressor.__doc__
    assert "dropout : float in [0, 1), default=0.0\n    Fraction of units" in doc
    assert 'such as "r2"' in doc and "label_smoothing" not in doc
