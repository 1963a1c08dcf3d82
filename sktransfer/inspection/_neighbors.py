"""Images with the most similar images of a data set."""

from __future__ import annotations

from typing import Any

from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._utils._typing import ArrayLike, Images
from ..images import check_images
from ._embedding import embed
from ._grid import ImageGridDisplay, thumbnail


class NeighborsDisplay(ImageGridDisplay):
    """Grid with an image in each row, followed by the most similar images of a data set.

    Create it with :meth:`from_estimator`. Parameters and attributes are those of
    :class:`ImageGridDisplay`; `indices` has the shape (n_queries, n_neighbors).

    Examples
    --------
    >>> from sktransfer import ImageEmbedder
    >>> from sktransfer.datasets import make_shapes
    >>> from sktransfer.inspection import NeighborsDisplay
    >>> X = make_shapes(n_samples=40, random_state=0).data
    >>> NeighborsDisplay.from_estimator(ImageEmbedder(), X, queries=X[:3]).indices[:, 0]
    array([0, 1, 2])
    """

    @classmethod
    def from_estimator(
        cls,
        embedder: Any,
        X: Images,
        y: ArrayLike | None = None,
        *,
        queries: Images,
        n_neighbors: int = 4,
        figure: Any = None,
    ) -> NeighborsDisplay:
        """Find the neighbors of images by the cosine of embeddings, and draw them.

        Parameters
        ----------
        embedder : transformer
            Embeds images: an :class:`~sktransfer.ImageEmbedder` or ``model[:-1]``, fitted or not.
        X : array-like of images
            Where to search, see :func:`~sktransfer.images.check_images`.
        y : array-like of shape (n_samples,) or None, default=None
            Labels of `X`, written above the neighbors.
        queries : array-like of images
            The images whose neighbors are searched.
        n_neighbors : int, default=4
            Number of neighbors.
        figure : optional
            See :meth:`~sktransfer.inspection.ImageGridDisplay.plot`.

        Returns
        -------
        NeighborsDisplay
            The display.
        """
        images, queries = check_images(X), check_images(queries)
        check_consistent_length(images, y)
        names = range(len(images)) if y is None else column_or_1d(y)
        search = NearestNeighbors(n_neighbors=n_neighbors, metric="cosine")
        search.fit(embed(embedder, images))
        distances, indices = search.kneighbors(embed(embedder, queries))
        shown, captions = [], []
        for query, found, far in zip(queries, indices, distances, strict=True):
            shown += [thumbnail(query), *(thumbnail(images[index]) for index in found)]
            similar = [("similarity", f"{1 - distance:.2f}") for distance in far]
            lines = zip(found, similar, strict=True)
            captions += [[("", "query")], *([("", names[index]), line] for index, line in lines)]
        options = {"indices": indices, "n_cols": 1 + n_neighbors}
        return cls(images=shown, captions=captions, **options).plot(figure)
