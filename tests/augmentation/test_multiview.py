"""`MultiViewClassifier` trains any classifier on views and averages over them."""

import pickle
from typing import ClassVar

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import (
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    RidgeCV,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktransfer import (
    HeadClassifier,
    HeadRegressor,
    MultiViewClassifier,
    MultiViewRegressor,
    make_transfer_pipeline,
)
from sktransfer.datasets import make_shapes

pytestmark = pytest.mark.usefixtures("one_thread")

N, VIEWS = 60, 3


def make_blobs(n_classes=3):
    """Samples whose views scatter around them, and string targets."""
    rng = np.random.default_rng(0)
    codes = np.arange(N) % n_classes
    centers = rng.normal(scale=3, size=(n_classes, 4))
    X = centers[codes][:, None] + rng.normal(size=(N, VIEWS, 4))
    return X.astype(np.float32), np.array(["cat", "dog", "owl", "yak"])[codes]


@pytest.fixture
def blobs():
    return make_blobs()


class Recorder(ClassifierMixin, BaseEstimator):
    """Votes by the first feature and keeps what it was given."""

    def fit(self, X, y, **fit_params):
        self.X_, self.y_, self.given_ = X, np.asarray(y), fit_params
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return self.classes_[X[:, 0].astype(int)]


class GroupRecorder(Recorder):
    """Also takes weights, groups and validation rows."""

    __metadata_request__fit: ClassVar = {"groups": True}

    def fit(self, X, y, sample_weight=None, *, groups=None, X_val=None, y_val=None):
        given = {"sample_weight": sample_weight, "groups": groups, "X_val": X_val, "y_val": y_val}
        return super().fit(X, y, **given)


# --------------------------------------------------------------------------------------------
# scikit-learn's checks
# --------------------------------------------------------------------------------------------


def expected_failed_checks(model):
    return (
        {
            "check_sample_weight_equivalence_on_dense_data": "not of the inner classifier either",
            "check_sample_weight_equivalence_on_sparse_data": "not of the inner classifier either",
        }
        if isinstance(model.estimator, LinearSVC)
        else {}
    )


@parametrize_with_checks(
    [
        MultiViewClassifier(LogisticRegression()),
        MultiViewClassifier(DecisionTreeClassifier(random_state=0)),
        MultiViewClassifier(LinearSVC(random_state=0)),
    ],
    expected_failed_checks=expected_failed_checks,
)
@pytest.mark.filterwarnings("ignore")
def test_common_checks(estimator, check):
    check(estimator)


@parametrize_with_checks([MultiViewRegressor(Ridge())])
@pytest.mark.filterwarnings("ignore")
def test_common_checks_of_regressors(estimator, check):
    check(estimator)


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_predictions_of_regressors_are_averaged_over_views(n_outputs):
    X = np.random.default_rng(0).normal(size=(60, 3, 4))
    y = X.mean(axis=1)[:, :n_outputs].squeeze() + 5
    for inner in (Ridge(), HeadRegressor(max_epochs=5, random_state=0)):
        model = MultiViewRegressor(inner).fit(X, y)
        mean = np.mean([model.estimator_.predict(X[:, view]) for view in range(3)], axis=0)
        np.testing.assert_allclose(model.predict(X), mean, rtol=1e-6)
    search = GridSearchCV(MultiViewRegressor(Ridge()), {"estimator__alpha": [0.1, 1.0]})
    assert search.fit(X, y).score(X, y) > 0.5
    with pytest.raises(ValueError, match=r"RidgeCV inside MultiViewRegressor .* GridSearchCV\("):
        MultiViewRegressor(RidgeCV()).fit(X, y)
    model = MultiViewRegressor(SGDRegressor(random_state=0))
    if n_outputs == 1:
        assert model.partial_fit(X, y).partial_fit(X, y).predict(X).shape == (60,)


def test_tags_are_those_of_the_classifier():
    tags = get_tags(MultiViewClassifier(KNeighborsClassifier()))
    assert tags.classifier_tags.multi_label and tags.input_tags.three_d_array
    assert tags.estimator_type == "classifier"
    assert get_tags(MultiViewClassifier(SVC(kernel="precomputed"))).input_tags.pairwise


def test_two_dimensions_pass_straight_through(blobs):
    X, y = blobs[0][:, 0], blobs[1]
    for inner in (LogisticRegression(), LinearSVC(random_state=0), SGDClassifier(random_state=0)):
        model = MultiViewClassifier(inner).fit(X, y)
        plain = clone(inner).fit(X, y)
        for method in ("predict", "predict_proba", "decision_function"):
            assert hasattr(model, method) == hasattr(plain, method)
            if hasattr(plain, method):
                np.testing.assert_array_equal(getattr(model, method)(X), getattr(plain, method)(X))


def test_an_estimator_that_splits_rows_may_have_one_view(blobs):
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)
    assert MultiViewClassifier(search).fit(blobs[0][:, 0], blobs[1]).estimator_.best_params_


def test_clone_and_pickle(blobs):
    model = MultiViewClassifier(LogisticRegression(C=0.3))
    assert clone(model).get_params()["estimator__C"] == 0.3
    assert not hasattr(model, "n_features_in_") and not hasattr(model, "classes_")
    model.fit(*blobs)
    assert model.n_features_in_ == 4 and model.classes_.tolist() == ["cat", "dog", "owl"]
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(blobs[0]), model.predict_proba(blobs[0]))


# --------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------


def test_each_view_is_a_row_with_the_target_of_its_sample(blobs):
    X, y = blobs
    for targets in (y, list(y)):
        inner = MultiViewClassifier(Recorder()).fit(X, targets).estimator_
        np.testing.assert_array_equal(inner.X_, X.reshape(-1, 4))
        assert inner.y_.tolist() == np.repeat(y, VIEWS).tolist()
        assert inner.given_ == {}


def test_parameters_of_fit_are_repeated(blobs):
    X, y = blobs
    weight = np.arange(float(N))
    model = MultiViewClassifier(Recorder())
    given = model.fit(
        X, y, weight, costs=list(weight), name="x" * N, other=[1, 2]
    ).estimator_.given_
    assert given["sample_weight"].tolist() == np.repeat(weight, VIEWS).tolist()
    assert given["costs"] == np.repeat(weight, VIEWS).tolist()
    assert (given["name"], given["other"]) == ("x" * N, [1, 2])
    flat = model.fit(X[:, 0], y, weight).estimator_
    assert flat.X_.shape == (N, 4) and flat.given_["sample_weight"] is weight


def test_groups_say_which_rows_are_views_of_one_image(blobs):
    X, y = blobs
    expected = np.repeat(np.arange(N), VIEWS).tolist()
    assert MultiViewClassifier(GroupRecorder()).fit(X, y).estimator_.given_["groups"].tolist() == (
        expected
    )
    piped = make_pipeline(StandardScaler(), GroupRecorder())
    for routing in (False, True):
        with sklearn.config_context(enable_metadata_routing=routing):
            inner = MultiViewClassifier(piped).fit(X, y).estimator_[-1]
        assert inner.given_["groups"].tolist() == expected
    own = np.arange(N) // 2
    inner = MultiViewClassifier(GroupRecorder()).fit(X, y, groups=own).estimator_
    assert inner.given_["groups"].tolist() == np.repeat(own, VIEWS).tolist()
    assert MultiViewClassifier(GroupRecorder()).fit(X[:, 0], y).estimator_.given_["groups"] is None


@pytest.mark.parametrize("n_val", [20, N])
def test_validation_rows_may_have_views_too(blobs, n_val):
    X, y = blobs
    model = MultiViewClassifier(GroupRecorder())
    for train in (X, X[:, 0]):
        given = model.fit(train, y, X_val=X[:n_val, :2], y_val=y[:n_val]).estimator_.given_
        assert given["X_val"].shape == (2 * n_val, 4)
        assert given["y_val"].tolist() == np.repeat(y[:n_val], 2).tolist()
    step = {"grouprecorder__X_val": X[:n_val, :2], "grouprecorder__y_val": y[:n_val]}
    piped = MultiViewClassifier(make_pipeline(GroupRecorder())).fit(X, y, **step)
    assert piped.estimator_[-1].given_["X_val"].shape == (2 * n_val, 4)
    assert piped.estimator_[-1].given_["y_val"].tolist() == np.repeat(y[:n_val], 2).tolist()
    given = model.fit(X, y, X_val=X[:n_val, 0], y_val=y[:n_val]).estimator_.given_
    assert given["X_val"].shape == (n_val, 4) and len(given["y_val"]) == n_val


def test_sample_weights_are_routed_through_a_search(blobs):
    weight = np.where(blobs[1] == "owl", 0.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        head = LogisticRegression().set_fit_request(sample_weight=True)
        scoring = MultiViewClassifier(head).set_score_request(sample_weight=True)
        search = GridSearchCV(scoring, {"estimator__C": [0.1, 1.0]}, error_score="raise")
        search.fit(*blobs, sample_weight=weight)
    assert "owl" not in search.predict(blobs[0])


def test_sample_weights_that_nobody_asked_for_are_refused(blobs):
    model = MultiViewClassifier(LogisticRegression())
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(ValueError, match=r"sample_weight.*not explicitly set"),
    ):
        model.fit(*blobs, sample_weight=np.ones(N))


def test_partial_fit(blobs):
    X, y = blobs
    model = MultiViewClassifier(SGDClassifier(loss="log_loss", random_state=0))
    plain = SGDClassifier(loss="log_loss", random_state=0)
    classes = np.unique(y)
    for part in (slice(0, 30), slice(30, 60)):
        weight = np.arange(1.0, 31.0)
        model.partial_fit(X[part], y[part], classes=classes, sample_weight=weight)
        rows, targets, weights = (
            X[part].reshape(-1, 4),
            *(np.repeat(values, VIEWS) for values in (y[part], weight)),
        )
        plain.partial_fit(rows, targets, classes=classes, sample_weight=weights)
    np.testing.assert_array_equal(model.estimator_.coef_, plain.coef_)
    assert not hasattr(MultiViewClassifier(LogisticRegression()), "partial_fit")


def test_wrong_targets_are_refused(blobs):
    X, y = blobs
    model = MultiViewClassifier(LogisticRegression())
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(X, y[:-1])
    with pytest.raises(ValueError, match="requires y to be passed"):
        model.fit(X, None)
    with pytest.raises(ValueError, match="'estimator' parameter"):
        MultiViewClassifier("crop").fit(X, y)
    with pytest.raises(TypeError, match="X holds images, but MultiViewClassifier learns"):
        model.fit(["a.jpg", "b.jpg"], ["cat", "dog"])


def test_an_estimator_of_the_other_kind_is_refused(blobs):
    X, y = blobs
    with pytest.raises(ValueError, match=r"but Ridge is a regressor\. Use MultiViewRegressor"):
        MultiViewClassifier(Ridge()).fit(X, y)
    with pytest.raises(ValueError, match=r"but SGDClassifier is a classifier\. Use MultiViewC"):
        MultiViewRegressor(SGDClassifier()).partial_fit(X, y == "cat", classes=[False, True])
    with pytest.raises(TypeError, match=r"^MultiViewRegressor\.__init__"):
        MultiViewRegressor()


@pytest.mark.parametrize("inner", [LogisticRegression(), HeadClassifier(max_epochs=1)])
def test_images_that_could_not_be_read_are_counted_by_image(blobs, inner):
    X, y = blobs
    fitted = MultiViewClassifier(inner).fit(X, y)
    X = X.copy()
    X[[7, 40]] = np.nan
    for method in (fitted.predict, fitted.predict_proba, lambda X: fitted.fit(X, y)):
        with pytest.raises(ValueError, match=r"NaN in 2 of 60 images, first in image 7\..*errors_"):
            method(X)
    lenient = MultiViewClassifier(DecisionTreeClassifier(random_state=0)).fit(X, y)
    assert len(lenient.predict(X)) == N


# --------------------------------------------------------------------------------------------
# Prediction
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
def test_outputs_are_averaged_over_views(n_classes):
    X, y = make_blobs(n_classes)
    model = MultiViewClassifier(LogisticRegression()).fit(X, y)
    inner = LogisticRegression().fit(X.reshape(-1, 4), np.repeat(y, VIEWS))
    for method in ("predict_proba", "decision_function"):
        mean = np.mean([getattr(inner, method)(X[:, view]) for view in range(VIEWS)], axis=0)
        np.testing.assert_allclose(getattr(model, method)(X), mean, rtol=1e-5, atol=1e-6)
    proba = model.predict_proba(X)
    np.testing.assert_array_equal(model.predict(X), model.classes_[proba.argmax(axis=1)])
    assert model.score(X, y) > 0.9


@pytest.mark.parametrize("n_classes", [2, 3])
def test_decision_values_decide_where_there_are_no_probabilities(n_classes):
    X, y = make_blobs(n_classes)
    model = MultiViewClassifier(RidgeClassifier()).fit(X, y)
    assert not hasattr(model, "predict_proba")
    values = model.decision_function(X)
    codes = values.argmax(axis=1) if values.ndim == 2 else (values > 0).astype(int)
    np.testing.assert_array_equal(model.predict(X), model.classes_[codes])


def test_views_vote_where_there_is_nothing_to_average(blobs):
    X, y = blobs
    X = X.copy()
    X[:, :, 0] = [[0, 1, 1], [2, 0, 2], [0, 0, 1]] * 20
    model = MultiViewClassifier(Recorder()).fit(X, y)
    assert model.predict(X)[:3].tolist() == ["dog", "owl", "cat"]
    assert not hasattr(model, "decision_function")


@pytest.mark.parametrize("n_classes", [2, 3, 4])
@pytest.mark.parametrize("wrap", [clone, make_pipeline])
def test_views_vote_where_columns_are_of_pairs_of_classes(n_classes, wrap):
    X, y = make_blobs(n_classes)
    model = MultiViewClassifier(wrap(SVC(decision_function_shape="ovo"))).fit(X, y)
    assert model.score(X, y) > 0.9
    assert len(model.decision_function(X)) == N


class OneVersusOneWithProbabilities(SVC):
    """Votes and mean probabilities of its views differ."""

    def predict_proba(self, X):
        return np.tile(np.eye(3)[1], (len(X), 1))


def test_probabilities_come_before_votes(blobs):
    X, y = blobs
    inner = OneVersusOneWithProbabilities(decision_function_shape="ovo")
    assert (MultiViewClassifier(inner).fit(X, y).predict(X) == "dog").all()


LABELS = np.stack([np.arange(N) % 3 == 0, np.arange(N) % 3 > 0, np.arange(N) % 2 == 0], axis=1)


@pytest.mark.parametrize(
    "inner",
    [
        HeadClassifier(random_state=0),
        OneVsRestClassifier(LogisticRegression()),
        OneVsRestClassifier(RidgeClassifier()),
        RandomForestClassifier(n_estimators=5, random_state=0),
        ClassifierChain(LogisticRegression()),
        make_pipeline(ClassifierChain(LogisticRegression())),
    ],
    ids=lambda inner: type(inner).__name__,
)
@pytest.mark.parametrize("n_labels", [2, 3])
def test_several_labels(blobs, inner, n_labels):
    X, Y = blobs[0], LABELS[:, :n_labels].astype(int)
    model = MultiViewClassifier(inner).fit(X, Y)
    predicted = model.predict(X)
    assert predicted.shape == Y.shape and set(np.unique(predicted)) == {0, 1}
    assert (predicted[:, 0] == Y[:, 0]).mean() > 0.9
    if hasattr(model, "predict_proba") and not isinstance(model.predict_proba(X), list):
        np.testing.assert_array_equal(predicted, model.predict_proba(X) > 0.5)


def test_views_vote_on_several_labels(blobs):
    class Labels(Recorder):
        def predict(self, X):
            return np.stack([X[:, 0] > 0, X[:, 0] <= 0], axis=1).astype(int)

    X = blobs[0].copy()
    X[:, :, 0] = [[1, 1, -1], [-1, 1, -1], [1, 1, 1]] * 20
    model = MultiViewClassifier(Labels()).fit(X, LABELS[:, :2].astype(int))
    assert model.predict(X)[:3].tolist() == [[1, 0], [0, 1], [1, 0]]


# --------------------------------------------------------------------------------------------
# In a pipeline
# --------------------------------------------------------------------------------------------


def test_more_views_for_prediction_than_for_training():
    shapes = make_shapes(n_samples=48, random_state=0)
    scores = {}
    for n_views, n_test_views in ((1, 4), (4, 1), (2, 4)):
        model = make_transfer_pipeline(
            head=HeadClassifier(random_state=0),
            augmentation="crop",
            n_views=n_views,
            n_test_views=n_test_views,
            image_size=32,
            engine="torch",
        )
        result = cross_validate(model, shapes.data, shapes.target, cv=2, error_score="raise")
        scores[n_views, n_test_views] = result["test_score"].mean()
    assert min(scores.values()) > 0.35  # four classes


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("wrap", [clone, lambda head: make_pipeline("passthrough", head)])
def test_the_automatic_penalty_leaves_out_whole_images(wrap, routing):
    shapes = make_shapes(n_samples=80, noise=0.5, random_state=0)
    decay = {}
    for n_views in (1, 4):
        head = HeadClassifier(max_epochs=1, random_state=0)
        views = {"augmentation": "crop", "n_views": n_views, "n_test_views": 2}
        model = make_transfer_pipeline(head=wrap(head), image_size=48, engine="torch", **views)
        with sklearn.config_context(enable_metadata_routing=routing):
            model.fit(shapes.data, shapes.target)
        fitted = model["head"].estimator_
        fitted = fitted[-1] if isinstance(fitted, Pipeline) else fitted
        decay[n_views] = fitted.net_.optimizer_.param_groups[0]["weight_decay"]
    assert decay[1] / 3 < decay[4] < 3 * decay[1]


def test_early_stopping_validates_on_whole_images(blobs):
    """With targets that only the image tells, validation on other views would be perfect."""
    X = np.repeat(blobs[0][:, :1], VIEWS, axis=1)
    y = np.random.default_rng(0).permutation(blobs[1])
    head = HeadClassifier(
        hidden_units=64, early_stopping=True, validation_fraction=0.3, max_epochs=60, random_state=0
    )
    model = MultiViewClassifier(head).fit(X, y)
    assert model.estimator_.history_[-1]["valid_loss"] > 0.9
