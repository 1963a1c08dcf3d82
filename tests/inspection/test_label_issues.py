"""Wrong labels are found, and copies of an image do not confirm them."""

import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from sktransfer import make_transfer_pipeline, make_transfer_stack
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import MissingExtraError
from sktransfer.inspection import find_label_issues

SMALL = {"image_size": 64}


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(120, random_state=0)


def flipped(y, rows):
    """Labels where those of a few rows are wrong."""
    y = y.copy()
    y[rows] = np.where(y[rows] == "circle", "cross", "circle")
    return y


def model():
    return make_transfer_pipeline(head=LogisticRegression(C=0.1, max_iter=500), **SMALL)


def test_wrong_labels_come_first(shapes):
    pytest.importorskip("cleanlab")
    rows = np.arange(3, 120, 20)
    table = find_label_issues(model(), shapes.data, flipped(shapes.target, rows))
    assert set(rows) <= set(table.index[:8])
    assert (table.loc[rows, "suggested"] == shapes.target[rows]).mean() > 0.8
    assert table["issue"].loc[rows].mean() > 0.8 and table["issue"].sum() < 12
    assert table["quality"].is_monotonic_increasing and table["quality"].between(0, 1).all()
    assert table["outlier"].between(0, 1).all() and table["path"].isna().all()
    assert sorted(table.index) == list(range(120))


def test_an_image_unlike_the_others_is_an_outlier(shapes):
    pytest.importorskip("cleanlab")
    X = [*shapes.data, np.zeros((64, 64, 3), np.uint8)]
    table = find_label_issues(model(), X, [*shapes.target, "circle"], cv=3)
    assert 120 in table["outlier"].nlargest(3).index


def test_groups_stay_together(shapes):
    pytest.importorskip("cleanlab")
    rows = np.arange(0, 40, 4)
    X = np.concatenate([shapes.data, np.repeat(shapes.data[rows], 3, axis=0)])
    wrong = flipped(shapes.target, rows)
    y = np.concatenate([wrong, np.repeat(wrong[rows], 3)])
    groups = np.concatenate([np.arange(120), np.repeat(rows, 3)])
    together = find_label_issues(model(), X, y, groups=groups)
    apart = find_label_issues(model(), X, y, cv=StratifiedKFold(5, shuffle=True, random_state=0))
    assert together["quality"].loc[rows].mean() < apart["quality"].loc[rows].mean() - 0.2


def test_a_stack_and_integers(shapes):
    pytest.importorskip("cleanlab")
    y = np.unique(shapes.target, return_inverse=True)[1]
    stack = make_transfer_stack(
        ["tiny_mobilenet", "tiny_resnet"],
        LogisticRegression(max_iter=500),
        cv=2,
        image_size=32,
    )
    table = find_label_issues(stack, shapes.data[:30], y[:30], cv=2)
    assert table["label"].dtype.kind == "i" and len(table) == 30


def test_without_cleanlab(shapes, monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    monkeypatch.setitem(sys.modules, "cleanlab.rank", None)
    with pytest.raises(MissingExtraError, match=r"sktransfer\[audit\]"):
        find_label_issues(model(), shapes.data, shapes.target)
