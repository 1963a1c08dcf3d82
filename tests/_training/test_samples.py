"""Samples, batches, splits and labels."""

import numpy as np
import pandas as pd
import pytest
import torch

from sktransfer._training._samples import (
    Batches,
    EmbeddingDataset,
    class_factors,
    moments,
    split_groups,
)
from sktransfer._training._targets import ClassTargets, clean_labels


@pytest.mark.parametrize(("n_samples", "n_batches"), [(8, 2), (9, 2), (10, 3), (1, 1)])
def test_a_last_batch_of_one_sample_joins_the_one_before(n_samples, n_batches):
    data = EmbeddingDataset(torch.arange(n_samples)[:, None].float())
    for shuffle in (False, True):
        batches = Batches(data, batch_size=4, shuffle=shuffle)
        seen = [batch["X"].flatten().tolist() for batch, _ in batches]
        assert len(seen) == len(batches) == n_batches
        assert sorted(np.concatenate(seen)) == list(range(n_samples))


def test_moments_are_weighted_and_exact_far_from_zero():
    X = np.random.default_rng(0).normal(1e6, 1, size=(3000, 2))
    weight = np.random.default_rng(1).uniform(size=3000)
    mean, variance = moments(X, weight)
    expected = np.average(X, axis=0, weights=weight)
    np.testing.assert_allclose(mean, expected)
    np.testing.assert_allclose(variance, np.average((X - expected) ** 2, axis=0, weights=weight))


def test_groups_stay_together():
    group = np.repeat(np.arange(20), 3)
    train, valid = split_groups(group, group % 2, 0.3, 0)
    assert len(valid) == 18 and not set(group[train]) & set(group[valid])
    assert np.bincount(group[valid] % 2).tolist() == [9, 9]
    assert sorted([*train, *valid]) == list(range(60))


def test_each_side_of_a_split_has_every_class():
    labels = np.repeat([0, 1], [50, 4])
    for part in split_groups(np.arange(54), labels, 0.2, 0):
        assert set(labels[part]) == {0, 1}
    with pytest.raises(ValueError, match="each of the 2 classes on both sides"):
        split_groups(np.arange(51), np.repeat([0, 1], [50, 1]), 0.2, 0)


def test_balanced_classes_have_the_same_sum_of_weights():
    codes, weight = np.array([0, 0, 0, 1]), np.array([1.0, 2.0, 1.0, 3.0])
    factors = class_factors("balanced", np.arange(3), codes, weight)
    totals = np.bincount(codes, weight * factors[codes])
    assert totals[0] == pytest.approx(totals[1])
    assert factors[2] == 1  # there is no sample of the third class


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        ((1, 2), [1, 2]),
        (torch.tensor([1, 0]), [1, 0]),
        (pd.array(["a", "b"], dtype="string"), ["a", "b"]),
        (pd.Categorical([3, 4]), [3, 4]),
        (pd.array([True, False], dtype="boolean"), [True, False]),
        (np.array([1, 2.5], dtype=object), [1, 2.5]),
        ([[0, 1], [1, 1]], [[0, 1], [1, 1]]),
    ],
)
def test_labels_become_arrays_of_one_type(given, expected):
    labels = clean_labels(given)
    assert isinstance(labels, np.ndarray) and labels.tolist() == expected
    assert labels.dtype == np.array(expected).dtype or labels.dtype == object


def test_targets_go_to_codes_and_back():
    y = np.array(["b", "a", "c", "a"])
    targets = ClassTargets.learn(y, np.ones(4))
    assert targets.encode(y).tolist() == [1, 0, 2, 0]
    logits = np.eye(3)[targets.encode(y)]
    assert targets.decide(logits).tolist() == y.tolist()
    assert targets.n_right(torch.tensor(logits), torch.tensor([1, 0, 2, 1])) == 3
    several = ClassTargets.learn(np.array([[0, 1], [1, 1]]), np.ones(2))
    assert several.encode(np.array([[1, 0]])).dtype == np.float32
    right = several.n_right(torch.tensor([[-1.0, 2], [1, -2]]), torch.tensor([[0.0, 1], [1, 1]]))
    assert right == 1
    with pytest.raises(ValueError, match=r"y_val marks the labels .* by 0 and 1.*\[7\]"):
        several.encode(np.array([[0, 7]]), "y_val")
