"""Views of one image are on one side of every split, whoever makes it."""

from typing import ClassVar

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
)
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from sktransfer import MultiViewClassifier, make_transfer_pipeline
from sktransfer.augmentation import _multiview
from sktransfer.backbones import Preprocessing

pytestmark = pytest.mark.usefixtures("one_thread")

N, VIEWS = 41, 3
#: All pixels of image i are i, so that every view tells which image it is of.
IMAGES = np.stack([np.full((8, 8), number, dtype=np.uint8) for number in range(N)])
# No class divides evenly, so that folds of single rows cut through images.
TARGETS = np.array(["cat", "dog", "owl", "cat"] * 11)[:N]


class Brightness(nn.Module):
    """A backbone that returns the number of an image."""

    preprocessing = Preprocessing(8, None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def forward(self, pixels):
        return 255 * pixels.mean(dim=(2, 3))


def image_numbers(rows):
    return np.rint(rows[:, 0]).astype(int)


class Witness(ClassifierMixin, BaseEstimator):
    """Fails when it is asked about an image that it was trained on, or trained on half of one."""

    splits: ClassVar = []  # (images trained on, images asked about), over all instances

    def __init__(self, C=1.0):
        self.C = C

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        images, counts = np.unique(image_numbers(X), return_counts=True)
        assert (counts % VIEWS == 0).all(), f"images {images[counts % VIEWS > 0]} lack views"
        counted = np.ones(len(X)) if sample_weight is None else sample_weight
        self.seen_ = set(image_numbers(X)[counted > 0])
        return self

    def predict_proba(self, X):
        asked = set(image_numbers(X))
        known = sorted(self.seen_ & asked)
        assert not known, f"images {known[:5]} are on both sides of a split"
        Witness.splits.append((self.seen_, asked))
        noise = np.random.RandomState(0).uniform(0.1, 1, (len(X), len(self.classes_)))
        return noise / noise.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


@pytest.fixture(autouse=True)
def no_splits():
    Witness.splits = []


class EveryThird:
    """A splitter that scikit-learn does not know."""

    def get_n_splits(self, X=None, y=None, groups=None):
        return 3

    def split(self, X, y=None, groups=None):
        for start in range(3):
            test = np.arange(start, len(X), 3)
            yield np.setdiff1d(np.arange(len(X)), test), test


class UnderSampled(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Trains on as many samples of each class, as resamplers of imbalanced-learn do."""

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y):
        least = np.unique(y, return_counts=True)[1].min()
        rng = np.random.RandomState(0)
        rows = [rng.choice(np.flatnonzero(y == c), least, replace=False) for c in np.unique(y)]
        rows = rng.permutation(np.concatenate(rows))
        self.estimator_ = clone(self.estimator).fit(X[rows], y[rows])
        self.classes_ = self.estimator_.classes_
        return self

    def predict(self, X):
        return self.estimator_.predict(X)


def pipeline(head=None):
    """An embedder with views, and a head; the factory wraps what does not know views."""
    head = Witness() if head is None else head
    return make_transfer_pipeline(Brightness(), head, augmentation="crop", n_views=VIEWS)


def search(estimator, parameter="head__estimator__C", kind=GridSearchCV, **options):
    options.setdefault("cv", StratifiedKFold(2, shuffle=True, random_state=0))
    return kind(estimator, {parameter: [1, 2]}, error_score="raise", **options)


def halving(estimator, parameter="head__estimator__C"):
    options = {"return_train_score": False, "random_state": 0, "min_resources": 20}
    return search(estimator, parameter, HalvingGridSearchCV, **options)


INNER = MultiViewClassifier(Witness())
INSIDE = "estimator__C"

SPLITTING = {
    "stack": lambda: StackingClassifier([("a", pipeline()), ("b", pipeline())]),
    "stack of folds": lambda: StackingClassifier(
        [("a", pipeline())], cv=list(KFold(4).split(IMAGES))
    ),
    "search": lambda: search(pipeline()),
    "halving search": lambda: halving(pipeline()),
    "calibration": lambda: CalibratedClassifierCV(pipeline(), cv=3),
    "one calibration": lambda: CalibratedClassifierCV(pipeline(), cv=3, ensemble=False),
    "third-party splitter": lambda: search(pipeline(), cv=EveryThird()),
    "search over stacks": lambda: search(
        StackingClassifier([("a", pipeline())], cv=2), "a__head__estimator__C"
    ),
    "stack of searches": lambda: StackingClassifier([("a", search(pipeline()))], cv=2),
    "search inside": lambda: pipeline(search(INNER, INSIDE)),
    "halving search inside": lambda: pipeline(halving(INNER, INSIDE)),
    "stack inside": lambda: pipeline(StackingClassifier([("a", INNER)], cv=3)),
    "calibration inside": lambda: pipeline(CalibratedClassifierCV(INNER, cv=3)),
    "third-party splitter inside": lambda: pipeline(search(INNER, INSIDE, cv=EveryThird())),
    "search inside and outside": lambda: search(
        pipeline(search(INNER, INSIDE)), "head__estimator__estimator__C"
    ),
    "search after resampling": lambda: pipeline(UnderSampled(search(INNER, INSIDE))),
    "stack of searches after resampling": lambda: StackingClassifier(
        [("a", pipeline(UnderSampled(search(INNER, INSIDE))))], cv=2
    ),
    "candidate of a search": lambda: GridSearchCV(
        pipeline(), {"head": [CalibratedClassifierCV(INNER, cv=2)]}, cv=2, error_score="raise"
    ),
}


@pytest.mark.parametrize("name", SPLITTING)
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_views_of_an_image_are_on_one_side_of_every_split(name):
    SPLITTING[name]().fit(IMAGES, TARGETS)
    assert len(Witness.splits) > 1
    assert not any(seen & asked for seen, asked in Witness.splits)


@pytest.mark.parametrize("inside", [False, True])
def test_a_threshold_is_tuned_on_other_images(inside):
    binary = np.where(TARGETS == "cat", 1, 0)
    options = {"cv": 0.25, "refit": False, "random_state": 0}
    if inside:
        model = pipeline(TunedThresholdClassifierCV(INNER, **options))
    else:
        model = TunedThresholdClassifierCV(pipeline(), **options)
    model.fit(IMAGES, binary)
    ((seen, asked),) = Witness.splits
    assert seen | asked == set(range(N))


def test_out_of_bag_scores_are_of_other_images():
    column = np.empty((N, 1), dtype=object)
    column[:, 0] = list(IMAGES)
    bags = BaggingClassifier(pipeline(), n_estimators=10, oob_score=True, random_state=0)
    bags.fit(column, np.unique(TARGETS, return_inverse=True)[1])
    assert len(Witness.splits) == 10


def test_cross_validation_around_it_all():
    branches = [("a", pipeline()), ("b", pipeline(search(INNER, INSIDE)))]
    model = VotingClassifier(branches, voting="soft")
    assert len(cross_val_predict(model, IMAGES, TARGETS, cv=EveryThird())) == N
    assert len(Witness.splits) > 6


def test_bagging_inside_draws_views():
    head = MultiViewClassifier(BaggingClassifier(LogisticRegression(), n_estimators=2))
    assert pipeline(head).fit(IMAGES, TARGETS).predict(IMAGES).shape == (N,)


REFUSED = {
    "search": (search(Witness(), "C"), "GridSearchCV"),
    "search in a pipeline": (
        make_pipeline(FunctionTransformer(), search(Witness(), "C")),
        "GridSearchCV",
    ),
    "pipeline in a search": (
        search(make_pipeline(FunctionTransformer(), Witness()), "witness__C"),
        "GridSearchCV",
    ),
    "stack": (StackingClassifier([("a", Witness())]), "StackingClassifier"),
    "calibration": (CalibratedClassifierCV(Witness()), "CalibratedClassifierCV"),
    "chain": (ClassifierChain(Witness(), cv=2), "ClassifierChain"),
    "leave one out": (RidgeClassifierCV(), "RidgeClassifierCV"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_split_views_is_refused(name):
    head, culprit = REFUSED[name]
    with pytest.raises(ValueError, match=rf"^{culprit} inside MultiViewClassifier would split"):
        pipeline(head).fit(IMAGES, TARGETS)


THRESHOLD = FixedThresholdClassifier(LogisticRegression(), threshold=0.02)
FITTED = FrozenEstimator(LogisticRegression().fit(np.ones((2, 3)) * [[0], [N]], [0, 1]))
TUNED = TunedThresholdClassifierCV(FITTED, cv="prefit", refit=False)


@pytest.mark.parametrize("head", [THRESHOLD, TUNED, make_pipeline(FunctionTransformer(), TUNED)])
def test_a_threshold_that_means_would_ignore_is_refused(head):
    binary = np.where(TARGETS == "cat", 1, 0)
    message = r"^\w+ThresholdClassifier\w* inside MultiViewClassifier .*\(make_transfer_pipeline\("
    with pytest.raises(ValueError, match=message):
        pipeline(head).fit(IMAGES, binary)
    model = pipeline(head).set_params(embedder__n_views=1, embedder__n_test_views=2)
    with pytest.raises(ValueError, match=message):
        model.fit(IMAGES, binary).predict(IMAGES)


def test_a_threshold_around_views_is_obeyed():
    binary = np.where(TARGETS == "cat", 1, 0)
    model = FixedThresholdClassifier(pipeline(LogisticRegression()), threshold=0.02)
    assert model.fit(IMAGES, binary).predict(IMAGES).all()


@pytest.mark.parametrize("name", ["search", "stack", "calibration"])
def test_the_witness_notices_split_views(name, monkeypatch):
    monkeypatch.setattr(_multiview._MultiView, "_check_splits_nothing", lambda self: None)
    monkeypatch.setattr(Witness, "fit", lambda self, X, y: fit_unchecked(self, X, y))
    with pytest.raises(AssertionError, match="on both sides of a split"):
        pipeline(REFUSED[name][0]).fit(IMAGES, TARGETS)


def fit_unchecked(self, X, y):
    self.classes_, self.seen_ = np.unique(y), set(image_numbers(X))
    return self
