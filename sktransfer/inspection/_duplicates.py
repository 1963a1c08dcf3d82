"""Images that occur more than once in a data set."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import Bunch, check_consistent_length
from sklearn.utils.validation import column_or_1d

from .._utils._files import printable
from .._utils._optional import import_optional
from .._utils._sklearn import Interval, checked
from .._utils._typing import ArrayLike, Images
from ..images import check_images, digest_images, image_name
from ._embedding import embed, fitted

_N_NEIGHBORS = 10


@checked(threshold=[Interval(Real, 0, 1e30, closed="both")])
def find_duplicates(
    X: Images, *, splits: ArrayLike | None = None, embedder: Any = None, threshold: float = 0.4
) -> Bunch:
    """Find images that occur more than once, and pairs that leak from one split to another.

    Exact duplicates have the same content. Near duplicates are re-encoded, resized, mirrored or
    slightly cropped copies, or photographs of one scene. Their distance is relative, as in [1]_:
    the cosine distance of their embeddings, divided by the geometric mean of the cosine distances
    from each of them to its 10th neighbor. It is about 1 for unrelated images.

    Parameters
    ----------
    X : array-like of images
        Images, see :func:`~sktransfer.images.check_images`.
    splits : array-like of shape (n_samples,) or None, default=None
        Name or number of the split of each image, such as ``"train"`` and ``"test"``.
    embedder : transformer or None, default=None
        Embeds the images; None uses ``ImageEmbedder(image_size=64, on_error="nan")``.
    threshold : float, default=0.4
        Largest relative distance of near duplicates. 0 finds exact duplicates only.

    Returns
    -------
    sklearn.utils.Bunch
        pairs : pandas.DataFrame
            The pairs, closest first, with the columns ``first`` and ``second`` (rows in `X`),
            ``distance`` (relative; 0 for exact duplicates), ``exact``, ``first_path``,
            ``second_path`` and, with `splits`, ``crosses``: whether the two are in different
            splits. Exact duplicates are listed with the first of them only.
        groups : ndarray of shape (n_samples,) and dtype int
            Number of the group of each image; images that are connected by pairs share one.
        ``errors_`` : list of ImageProblem
            The images that `embedder` could not read.

    Notes
    -----
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
    rows = np.arange(len(images))
    digests = np.array(digest_images(images), dtype=object)
    codes, _ = pandas.factorize(digests)  # 0 for the first content, 1 for the second
    originals = np.unique(codes, return_index=True)[1]
    same = {"first": originals[codes], "second": rows, "distance": 0.0, "exact": True}
    table = pandas.DataFrame(same).query("first != second")
    errors = []
    if threshold > 0 and len(originals) > 2:
        embedder = fitted(embedder, images)
        embeddings = embed(embedder, images)[originals]  # all, so that errors have the rows of X
        errors = getattr(embedder, "errors_", [])
        readable = np.flatnonzero(~np.isnan(embeddings).any(axis=1))
        search = NearestNeighbors(n_neighbors=min(_N_NEIGHBORS, len(readable) - 1), metric="cosine")
        distances, neighbors = search.fit(embeddings[readable]).kneighbors()
        scale = np.sqrt(distances[:, -1:] * distances[neighbors, -1])
        distances = distances / np.maximum(scale, np.finfo(embeddings.dtype).eps)
        at, rank = np.nonzero(distances <= threshold)
        first, second = originals[np.sort(readable[[at, neighbors[at, rank]]], axis=0)]
        near = {"first": first, "second": second, "distance": distances[at, rank].astype(float)}
        near = pandas.DataFrame({**near, "exact": False}).drop_duplicates(["first", "second"])
        table = pandas.concat([table, near]).sort_values("distance", kind="stable")
    table = table.reset_index(drop=True)
    paths = np.array([printable(image_name(image)) for image in images], dtype=object)
    pairs = table[["first", "second"]].to_numpy().T
    table["first_path"], table["second_path"] = paths[pairs]
    if splits is not None:
        splits = column_or_1d(splits)
        check_consistent_length(images, splits)
        table["crosses"] = np.not_equal(*splits[pairs])
    graph = coo_array((np.ones(len(table)), tuple(pairs)), shape=(len(images), len(images)))
    groups = connected_components(graph, directed=False)[1].astype(int)
    return Bunch(pairs=table, groups=groups, errors_=errors)
