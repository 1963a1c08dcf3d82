"""Rows that a head trains on: merged, weighted, put in order, split, and told apart.

Equal rows with the same target become one row that carries their summed weight, and rows are put
in an order that depends on their content alone. A fit therefore depends on neither the order of
the rows nor on whether a row is given twice or with a weight of two, bit by bit, and the same
picture never lies on both sides of a random validation split.
"""

from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

__all__ = ["TrainingRows", "digest_rows", "merge_rows", "moments", "split_rows"]

#: Rows that are converted to float64 at a time.
CHUNK = 1024


class TrainingRows(NamedTuple):
    """Rows of embeddings with their targets and weights.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
        Embeddings.
    y : ndarray of shape (n_rows,), int64, or of shape (n_rows, n_labels), float32
        Codes of the classes, or label indicators.
    weight : ndarray of shape (n_rows,), float64
        Weights, all of them positive.
    """

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray

    def take(self, rows):
        """Return the rows with the given positions."""
        return TrainingRows(self.X[rows], self.y[rows], self.weight[rows])

    def scaled_weight(self):
        """Return weights with a mean of one, or None where all of them are equal."""
        if np.all(self.weight == self.weight[0]):
            return None
        return (self.weight / self.weight.mean()).astype(np.float32)


def merge_rows(X, y, weight):
    """Leave out rows of weight zero, merge equal rows and sort by content."""
    kept = weight > 0
    if not kept.all():
        X, y, weight = X[kept], y[kept], weight[kept]
    keys = np.frombuffer(b"".join(row_keys(X, y)), dtype="S16")
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    return TrainingRows(X[first], y[first], np.bincount(group, weights=weight))


def row_keys(X, y):
    """Yield 16 bytes for each row that depend on its features and its target only."""
    targets = np.ascontiguousarray(y.reshape(len(y), -1))
    for row, target in zip(np.ascontiguousarray(X), targets, strict=True):
        key = blake2b(row, digest_size=16)
        key.update(target)
        yield key.digest()


def digest_rows(rows, description):
    """Return a hexadecimal name for rows and a text that says what is done with them."""
    key = blake2b(description.encode(), digest_size=16)
    for array in rows:
        key.update(np.ascontiguousarray(array))
    return key.hexdigest()


def moments(X, weight):
    """Return the weighted mean and variance of each column, summed in float64."""
    shift = X[0].astype(np.float64)  # keeps the variance exact where the mean is large
    first = second = 0.0
    for start in range(0, len(X), CHUNK):
        chunk = X[start : start + CHUNK] - shift
        first = first + weight[start : start + CHUNK] @ chunk
        second = second + weight[start : start + CHUNK] @ chunk**2
    mean, square = first / weight.sum(), second / weight.sum()
    return mean + shift, np.maximum(square - mean**2, 0.0)


def split_rows(rows, fraction, random_state):
    """Split off a share of the rows for validation, stratified by class."""
    stratify = rows.y if rows.y.ndim == 1 else None
    check_share(rows, fraction)
    train, valid = train_test_split(
        np.arange(len(rows.X)), test_size=fraction, stratify=stratify, random_state=random_state
    )
    return rows.take(train), rows.take(valid)


def check_share(rows, fraction):
    """Check that every class can have a row on both sides of the split."""
    n_rows = len(rows.X)
    n_valid = int(np.ceil(fraction * n_rows))
    sizes = np.unique(rows.y, return_counts=True)[1] if rows.y.ndim == 1 else np.array([2])
    if sizes.min() >= 2 and len(sizes) <= min(n_valid, n_rows - n_valid):
        return
    raise ValueError(
        f"validation_fraction={fraction} of {n_rows} different rows is {n_valid}: too few rows for "
        f"a validation split with every one of the {len(sizes)} classes on both sides (the "
        f"smallest class has {sizes.min()}). Give more rows, raise validation_fraction, pass "
        "validation data with fit(X, y, X_val=..., y_val=...), or set early_stopping=False and "
        "choose max_epochs yourself."
    )
