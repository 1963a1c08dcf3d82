"""Training data: samples, batches, splits and weights."""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_class_weight
from torch.utils.data import Dataset

from ._parameters import LARGEST

#: Samples in a batch that is only predicted.
PREDICTION_BATCH = 4096

#: Rows that are converted to float64 at a time.
CHUNK = 1024


class Samples(NamedTuple):
    """Embeddings with encoded targets, positive weights, and the numbers of their groups."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    group: np.ndarray

    def take(self, indices):
        """Return the samples at the given indices."""
        return Samples(*(array[indices] for array in self))


class EmbeddingDataset(Dataset):
    """Embeddings held as tensors; ``is_scaled`` if the scaling of the module has been applied."""

    def __init__(self, X, y=None, weight=None, is_scaled=False):
        self.X, self.weight, self.is_scaled, self.device = X, weight, is_scaled, X.device
        self.y = torch.zeros(len(X), device=X.device) if y is None else y

    def __len__(self):
        return len(self.X)

    def start_epoch(self, epoch):
        """Do nothing: every epoch sees the same rows."""

    def __getitem__(self, indices):
        weight = None if self.weight is None else self.weight[indices]
        batch = {"X": self.X[indices], "is_scaled": self.is_scaled, "sample_weight": weight}
        return batch, self.y[indices]


class Batches:
    """Iterate over the batches of a dataset, in a new random order each time if ``shuffle``.

    A batch is a pair: a dict of the module's arguments and ``"sample_weight"``, and the targets.
    A ``DataLoader`` stacks single samples, which takes several times longer than training a head.
    Batch normalization cannot train on one sample, so a last one joins the batch before it.
    """

    def __init__(self, dataset, batch_size, shuffle=False):
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle

    def _starts(self):
        n_samples = len(self.dataset)
        starts = list(range(0, n_samples, self.batch_size))
        if len(starts) > 1 and n_samples - starts[-1] == 1:
            starts.pop()
        return starts

    def __len__(self):
        return len(self._starts())

    def __iter__(self):
        n_samples, starts = len(self.dataset), self._starts()
        order = torch.randperm(n_samples).to(self.dataset.device) if self.shuffle else None
        for start, end in zip(starts, [*starts[1:], n_samples], strict=True):
            yield self.dataset[slice(start, end) if order is None else order[start:end]]


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


def relative_weight(weight):
    """Return weights with a mean of one as float32, or None if all of them are equal."""
    if np.all(weight == weight[0]):
        return None
    return (weight / weight.mean()).astype(np.float32)


def class_factors(class_weight, classes, codes, weight):
    """Return a factor for the weights of each class; "balanced" makes their sums equal."""
    if codes.ndim == 2:
        raise ValueError(
            "class_weight does not apply to several labels per sample. Set class_weight=None and "
            "pass sample_weight to fit."
        )
    if not isinstance(class_weight, dict):
        totals = np.bincount(codes, weight, minlength=len(classes))
        present = totals > 0
        totals = np.where(present, totals, 1.0)
        return np.where(present, weight.sum() / (present.sum() * totals), 1.0)
    factors = compute_class_weight(class_weight, classes=classes, y=classes[codes])
    if not ((factors > 0) & (factors < LARGEST)).all():
        raise ValueError(
            f"class_weight={class_weight!r} must be positive and below {LARGEST:g} for every "
            "class. To ignore a class, drop its samples or give them a sample_weight of zero."
        )
    return factors


def split_groups(group, strata, fraction, seed):
    """Split samples into two parts with all strata; the second has a fraction of the groups."""
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    n, classes, sizes = len(first), [0], np.array([2])
    n_valid = int(np.ceil(fraction * n))
    if strata is not None:
        strata = strata[first]
        classes, sizes = np.unique(strata, return_counts=True)
    if sizes.min() >= 2 and len(classes) <= min(n_valid, n - n_valid):
        parts = train_test_split(
            np.arange(n), test_size=fraction, stratify=strata, random_state=seed
        )
        # Stratification rounds: a small class may be missing from the smaller part.
        if strata is None or all(len(np.unique(strata[part])) == len(classes) for part in parts):
            return tuple(np.flatnonzero(np.isin(group, part)) for part in parts)
    raise ValueError(
        f"validation_fraction={fraction} of {n} samples or groups is {n_valid}: too few to have "
        f"each of the {len(classes)} classes on both sides (the smallest class has "
        f"{sizes.min()}). Give more data, choose another validation_fraction, pass validation data "
        "with fit(X, y, X_val=..., y_val=...), or set early_stopping=False and choose max_epochs "
        "yourself."
    )
