"""Backbones ranked by leave-one-out scores."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.preprocessing import StandardScaler

from sktransfer import ImageEmbedder, cache_info
from sktransfer.datasets import make_shapes
from sktransfer.inspection import rank_backbones

pytest.importorskip("pandas")

SMALL = {"image_size": 32}


class MeanColor(TransformerMixin, BaseEstimator):
    """A transformer that says little about shapes."""

    def fit(self, X, y=None):
        self.n_colors_ = 3
        return self

    def transform(self, X):
        return np.stack([image.mean(axis=(0, 1)) for image in X])


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(60, random_state=0)


def test_the_best_comes_first(shapes):
    backbones = [("color", MeanColor()), "tiny_mobilenet", ("small", "tiny_resnet")]
    table = rank_backbones(shapes.data, shapes.target, backbones, image_size=64)
    assert set(table["backbone"]) == {"color", "tiny_mobilenet", "small"}
    assert table["backbone"].iloc[-1] == "color" and table["n_features"].iloc[-1] == 3
    assert table["score"].is_monotonic_decreasing and table["score"].iloc[0] > 0.8


def test_the_score_is_that_of_leaving_one_out(shapes):
    embedder = ImageEmbedder(image_size=32)
    table = rank_backbones(shapes.data, shapes.target, [embedder])
    assert table["backbone"].tolist() == ["ImageEmbedder"]
    rows = StandardScaler().fit_transform(embedder.fit_transform(shapes.data))
    ridge = RidgeClassifier(alpha=table["penalty"].iloc[0])
    expected = cross_val_score(ridge, rows, shapes.target, cv=LeaveOneOut()).mean()
    assert table["score"].iloc[0] == pytest.approx(expected, abs=0.02)


def test_embeddings_stay_in_the_cache(shapes):
    rank_backbones(shapes.data, shapes.target, ["tiny_mobilenet"], **SMALL)
    assert sum(entry.n_rows for entry in cache_info().backbones) == 60


def test_another_score(shapes):
    y = np.where(shapes.target == "circle", "circle", "other")
    scores = [
        rank_backbones(shapes.data, y, [MeanColor()], metric=metric)["score"].iloc[0]
        for metric in (accuracy_score, balanced_accuracy_score)
    ]
    assert scores[0] > 0.7 > scores[1]
