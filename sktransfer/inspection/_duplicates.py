"""Images that occur more than once in a data set."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import Bunch, check_consistent_length
from sklearn.utils.validation import column_or_1d

from .._utils._optional import import_optional
from .._utils._threads import thread_share
from .._utils._typing import ArrayLike, Images
from ..images import check_images, digest_images, image_name
from ._embedding import embed

__all__ = ["find_duplicates"]

_N_NEIGHBORS = 10


def find_duplicates(
    X: Images,
    *,
    splits: ArrayLike | None = None,
    embedder: Any = None,
    threshold: float = 0.4,
) -> Bunch:
    """Find images that occur more than once, and pairs that leak from one split to another.

    Exact duplicates have the same content. Near duplicates are re-encoded, resized, mirrored or
    slightly cropped copies, or photographs of the same scene.

    Parameters
    ----------
    X : array-like of images
        Images, see :func:`~sktransfer.images.check_images`.
    splits : array-like of shape (n_samples,) or None, default=None
        Name or number of the split of each image, such as ``"train"`` and ``"test"``.
    embedder : transformer or None, default=None
        Embeds the images; None uses ``ImageEmbedder(image_size=64, on_error="nan")``, whose small
        input ignores what compression and resizing change.
    threshold : float, default=0.4
        Largest relative distance of near duplicates, see Notes. 0 finds exact duplicates only.

    Returns
    -------
    sklearn.utils.Bunch
        pairs : pandas.DataFrame
            The pairs, closest first, with the columns ``first`` and ``second`` (rows in `X`),
            ``first_path``, ``second_path``, ``distance`` (relative; 0 for exact duplicates),
            ``exact`` and, with `splits`, ``crosses``: whether the two are in different splits.
            Exact duplicates are listed with the first of them only.
        groups : ndarray of shape (n_samples,) and dtype int
            Number of the group of each image; images that are connected by pairs share one. Pass
            it as `groups` to :class:`~sklearn.model_selection.StratifiedGroupKFold`.

    Notes
    -----
    How similar two embeddings of different images are depends on the backbone and on the images.
    So the distance of two images is measured in relation to their neighborhoods, as in [1]_: their
    cosine distance, divided by the geometric mean of the cosine distances from each of them to its
    10th neighbor. It is about 1 for images that are not special to each other, on any data set
    and with any backbone.

    An image with ten or more near duplicates hides them, since they are its neighborhood. An image
    that cannot be read is a group of its own, unless it has the same content as another.

    References
    ----------
    .. [1] L. Zelnik-Manor and P. Perona, "Self-Tuning Spectral Clustering", NIPS 2004.

    Examples
    --------
    >>> from sktransfer.datasets import make_shapes
    >>> from sktransfer.inspection import find_duplicates
    >>> X = make_shapes(n_samples=40, random_state=0).data
    >>> found = find_duplicates([*X, X[7], X[3][:, ::-1]], splits=["train"] * 40 + ["test"] * 2)
    >>> found.pairs.query("crosses")[["first", "second", "exact"]]
       first  second  exact
    0      7      40   True
    1      3      41  False
    """
    pandas = import_optional("pandas", "report", "find_duplicates")
    images = check_images(X)
    n_samples = len(images)
    digests = digest_images(images, n_threads=thread_share())
    codes, _ = pandas.factorize(np.array(digests, dtype=object))
    _, originals, copies = np.unique(codes, return_index=True, return_inverse=True)
    pairs = [(originals[copies], np.arange(n_samples), np.zeros(n_samples))]
    if threshold > 0 and len(originals) > 2:
        near = _near_pairs(embed(embedder, [images[index] for index in originals]), threshold)
        pairs.append((originals[near[0]], originals[near[1]], near[2]))
    first, second, distance = map(np.concatenate, zip(*pairs, strict=True))
    first, second, distance = (values[first != second] for values in (first, second, distance))
    exact = copies[first] == copies[second]
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(n_samples, n_samples))
    paths = np.array([image_name(image) for image in images], dtype=object)
    table = pandas.DataFrame(
        {
            **{"first": first, "second": second},
            **{"first_path": paths[first], "second_path": paths[second]},
            **{"distance": distance, "exact": exact},
        }
    )
    if splits is not None:
        splits = column_or_1d(splits)
        check_consistent_length(images, splits)
        table["crosses"] = splits[first] != splits[second]
    table = table.sort_values(["distance", "exact"], ascending=[True, False], kind="stable")
    return Bunch(
        pairs=table.reset_index(drop=True),
        groups=connected_components(graph, directed=False)[1].astype(int),
    )


def _near_pairs(rows, threshold):
    """Return the first row, the second row and the relative distance of near duplicates."""
    readable = np.flatnonzero(~np.isnan(rows).any(axis=1))
    n_neighbors = min(_N_NEIGHBORS, len(readable) - 1)
    index = NearestNeighbors(n_neighbors=n_neighbors, metric="cosine").fit(rows[readable])
    distances, neighbors = index.kneighbors()
    first, second = np.repeat(np.arange(len(readable)), n_neighbors), neighbors.ravel()
    distances, scale = distances.ravel(), distances[:, -1]
    scale = np.maximum(np.sqrt(scale[first] * scale[second]), np.finfo(rows.dtype).eps)
    relative = distances / scale
    # Each pair once: it may be seen from one of its images only.
    pairs = np.sort(np.column_stack([first, second]), axis=1)[relative <= threshold]
    pairs, at = np.unique(pairs, axis=0, return_index=True)
    return *readable[pairs.T], relative[relative <= threshold][at]
