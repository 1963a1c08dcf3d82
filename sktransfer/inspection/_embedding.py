"""Embeddings for comparing images."""

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from ..embedder import ImageEmbedder


def fitted(embedder, images):
    """Return a transformer, which need not be fitted, or the default one."""
    if embedder is None:
        # Small inputs hide what resizing and compression change in an image.
        embedder = ImageEmbedder(image_size=64, on_error="nan")
    try:
        check_is_fitted(embedder)
    except NotFittedError:
        embedder = clone(embedder).fit(images)
    return embedder


def embed(embedder, images):
    """Return one row for each image from a transformer, which need not be fitted, or by default."""
    rows = np.asarray(fitted(embedder, images).transform(images))
    return rows.mean(axis=1) if rows.ndim == 3 else rows  # the mean of several views
