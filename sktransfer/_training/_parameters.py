"""Checks that all estimators of a training share."""

import inspect
from collections.abc import Callable
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.metrics import get_scorer_names

from .._utils._sklearn import Interval, StrOptions, check_sample_weight
from ..images import holds_images

#: Largest number of epochs, and of units in a layer.
MAX_EPOCHS, MAX_UNITS = 1_000_000, 100_000

#: Upper bound of rates, penalties and weights, whose products must not overflow.
LARGEST = 1e100

_SETTINGS = Real, str, tuple, list, Callable, type(None)

#: Parameters that mean the same everywhere.
CONSTRAINTS = {
    "max_epochs": [Interval(Integral, 1, MAX_EPOCHS, closed="both")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "scoring": [StrOptions({"loss", *get_scorer_names()})],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "callbacks": [list, tuple, None],
    "device": [str, torch.device],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def name_of(function):
    """Return the name of a class or a function for an error."""
    return getattr(function, "__name__", None) or repr(function)


def check_arguments(function, given, name, ours=frozenset(), extra=frozenset()):
    """Check that a function takes the ``given`` arguments, or ``extra`` ones, but not ``ours``."""
    odd = [
        n
        for n, v in given.items()
        if not isinstance(v, _SETTINGS) or (isinstance(v, Integral) and abs(v) >= 2**63)
    ]
    if odd:
        raise ValueError(
            f"{name}={given!r} has values that no {name_of(function)} takes: {', '.join(odd)}."
        )
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = {n for n, p in parameters.items() if p.kind is not p.VAR_POSITIONAL} - ours
    unknown = sorted(map(repr, given.keys() - known - extra))
    if unknown:
        raise ValueError(
            f"{name} has {', '.join(unknown)}, which {name_of(function)} does not take. It takes "
            f"{', '.join(sorted(known))}."
        )


def check_weight(sample_weight, n_samples):
    """Return the weights of samples as float64, ones for None."""
    rows = np.empty((n_samples, 1))  # scikit-learn compares with an array, and images are none
    weight = check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
    if not 0 < weight.max() < LARGEST:  # NaN compares as False
        raise ValueError(
            f"Sample weights must be below {LARGEST:g}, and at least one must be positive."
        )
    return weight


def check_no_images(X, name):
    """Refuse images: the estimator with this name learns from embeddings."""
    if holds_images(X):
        raise TypeError(
            f"X holds images, but {name} learns from embeddings, which are rows of numbers. Put an "
            f"embedder in front: sktransfer.make_transfer_pipeline(head={name}(...)) takes images. "
            "To get the embeddings alone, use ImageEmbedder().fit_transform(X)."
        )


def check_readable(X):
    """Refuse embeddings of images that could not be read; X has a row or several views of each."""
    missing = np.flatnonzero(np.isnan(X).any(axis=tuple(range(1, X.ndim))))
    if len(missing):
        name = "row" if X.ndim == 2 else "image"
        raise ValueError(
            f"Input X contains NaN in {len(missing)} of {len(X)} {name}s, first in {name} "
            f'{missing[0]}. If X comes from ImageEmbedder(on_error="nan"), these images could not '
            "be read. The embedder's errors_ lists them with their index (in a pipeline: "
            'model["embedder"].errors_). Repair the files, or leave them out of X and y.'
        )


def check_validation(X_val, y_val):
    """Refuse validation samples without targets, and targets without samples."""
    if (X_val is None) != (y_val is None):
        raise ValueError("Pass both X_val and y_val, or neither of them.")
