"""Rows that a head trains on: merged, weighted, put in order, split, and told apart.

Equal rows with the same target become one row that carries their summed weight, and rows are put
in an order that depends on their content alone. A fit therefore depends on neither the order of
the rows nor on whether a row is given twice or with a weight of two, bit by bit, and the same
image never lies on both sides of a random validation split, nor do views of one image.
"""

from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_class_weight

__all__ = [
    "TrainingRows",
    "check_blocks",
    "class_factors",
    "digest_rows",
    "merge_rows",
    "moments",
    "sort_rows",
    "split_rows",
    "split_share",
]

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
    image : ndarray of shape (n_rows,), int64
        Which rows are views of one image; numbers grow from the first row on.
    """

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    image: np.ndarray

    def take(self, rows):
        """Return the rows with the given positions."""
        return TrainingRows(*(array[rows] for array in self))

    def first_images(self, n_rows):
        """Return all views of the first images, no more than so many rows but of one image."""
        ends = np.cumsum(np.bincount(self.image))
        n_samples = max(1, np.searchsorted(ends, n_rows, side="right"))
        return self.take(self.image < n_samples)

    def scaled_weight(self):
        """Return weights with a mean of one, or None where all of them are equal."""
        if np.all(self.weight == self.weight[0]):
            return None
        return (self.weight / self.weight.mean()).astype(np.float32)


def merge_rows(X, y, weight, rows_per_image=1):
    """Leave out rows of weight zero, merge equal rows and sort by content."""
    block = np.arange(len(X)) // rows_per_image
    kept = weight > 0
    if not kept.all():
        X, y, weight, block = X[kept], y[kept], weight[kept], block[kept]
    features, keys = row_keys(X, y)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    image = connected(features, block)
    weight = np.bincount(group, weights=weight)
    return TrainingRows(X[first], y[first], weight, renumbered(image[first]))


def connected(features, block):
    """Number the images: rows of one block, and equal rows, are of the same one."""
    _, features = np.unique(features, return_inverse=True)
    number, before = block, None
    while before is None or (number != before).any():  # twice, but where images share views
        before = number
        for group in (features, block):
            least = np.full(group.max() + 1, len(block))
            np.minimum.at(least, group, number)
            number = least[group]
    return number


def sort_rows(X, y, weight):
    """Leave out rows of weight zero and sort by content: for rows that are only looked at."""
    kept = np.flatnonzero(weight > 0)
    if not len(kept):
        raise ValueError("There are no validation rows with a positive weight.")
    kept = kept[np.argsort(row_keys(X[kept], y[kept])[1], kind="stable")]
    return TrainingRows(X[kept], y[kept], weight[kept], np.arange(len(kept)))


def renumbered(numbers):
    """Number groups in the order in which they first appear."""
    _, first, group = np.unique(numbers, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]


def check_blocks(n_rows, y, n_views):
    """Check that rows still are whole images, one after the other."""
    whole = n_rows % n_views == 0
    if whole and y is not None:
        y = np.asarray(y.todense() if hasattr(y, "todense") else y)
        blocks = y.reshape(-1, n_views, *y.shape[1:])
        whole = bool((blocks == blocks[:, :1]).all())
    if not whole:
        raise ValueError(
            f"The {n_rows} rows are no longer {n_views} views of each image, one image after "
            "the other, so the views of an image cannot be kept on one side of a split. Something "
            "between AugmentedClassifier and the head resamples or drops rows (bagging, a halving "
            "search, a resampler): put AugmentedClassifier inside of that instead of around it, or "
            "use n_views=1."
        )


def row_keys(X, y):
    """Return 16 bytes for the features of each row, and 16 for features and target."""
    targets = np.ascontiguousarray(y.reshape(len(y), -1))
    features, both = [], []
    for row, target in zip(np.ascontiguousarray(X), targets, strict=True):
        key = blake2b(row, digest_size=16)
        features.append(key.digest())
        key.update(target)
        both.append(key.digest())
    return tuple(np.frombuffer(b"".join(keys), dtype="S16") for keys in (features, both))


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
    """Split off a share of the images for validation, stratified by class."""
    images, first = np.unique(rows.image, return_index=True)
    parts = split_share(
        rows.y[first],
        fraction,
        random_state,
        "pass validation data with fit(X, y, X_val=..., y_val=...), ",
    )
    return tuple(rows.take(np.isin(rows.image, images[part])) for part in parts)


def split_share(labels, fraction, random_state, way_out=""):
    """Split positions into two parts, each of which has every class.

    Parameters
    ----------
    labels : ndarray of shape (n,) or (n, n_labels)
        Classes, by which the split is stratified; or several labels, by which it is not.
    fraction : float in (0, 1)
        Share of the second part.
    random_state : int
        Seed.
    way_out : str, default=""
        What else can be done, for the error: words that end with a comma and a space.

    Returns
    -------
    (ndarray of int, ndarray of int)
        Positions in the first and in the second part.

    Raises
    ------
    ValueError
        If there are too few of a class.
    """
    n, one_class = len(labels), labels.ndim == 1
    n_valid = int(np.ceil(fraction * n))
    classes, sizes = np.unique(labels, return_counts=True) if one_class else ([0], np.array([2]))
    if sizes.min() >= 2 and len(classes) <= min(n_valid, n - n_valid):
        stratify = labels if one_class else None
        parts = train_test_split(
            np.arange(n), test_size=fraction, stratify=stratify, random_state=random_state
        )
        # Stratifying rounds: a small class may have nothing left on the smaller side.
        if not one_class or all(len(np.unique(labels[part])) == len(classes) for part in parts):
            return parts
    raise ValueError(
        f"validation_fraction={fraction} of {n} different images is {n_valid}: too few for a "
        f"validation share with every one of the {len(classes)} classes on both sides (the "
        f"smallest class has {sizes.min()}). Give more images, choose another "
        f"validation_fraction, {way_out}or set early_stopping=False and choose max_epochs yourself."
    )


def class_factors(class_weight, classes, codes, weight):
    """Return the weight of each class, where rows have weights of their own.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        As scikit-learn takes it.
    classes : ndarray of shape (n_classes,)
        Class labels.
    codes : ndarray of shape (n_rows,)
        Position of each row's class in ``classes``.
    weight : ndarray of shape (n_rows,)
        Weights of rows: "balanced" gives each class the same sum of them.

    Returns
    -------
    ndarray of shape (n_classes,)
        All of them positive.

    Raises
    ------
    ValueError
        If a weight is not positive.
    """
    if class_weight is None:
        return np.ones(len(classes))
    if not isinstance(class_weight, dict):
        totals = np.bincount(codes, weight, minlength=len(classes))
        there = totals > 0
        return np.where(there, weight.sum() / (there.sum() * np.where(there, totals, 1.0)), 1.0)
    factors = compute_class_weight(class_weight, classes=classes, y=classes[codes])
    if not (factors > 0).all():
        raise ValueError(
            f"class_weight={class_weight!r} must be positive for every class. Leave out the rows "
            "of a class that is not to count, or give them a sample_weight of zero."
        )
    return factors
