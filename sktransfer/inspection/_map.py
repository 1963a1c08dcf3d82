"""Maps of a data set."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import column_or_1d

from .._utils._optional import import_optional
from .._utils._sklearn import HasMethods, checked
from .._utils._typing import ArrayLike, Images
from ..images import check_images
from ._embedding import embed
from ._grid import AX, COUNT, thumbnail

# Colors of Okabe and Ito, which color-blind readers tell apart, times markers.
_COLORS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#000000"]
_MARKERS = ["o", "^", "s"]
_SIDE = 40  # pixels of a thumbnail


class EmbeddingMapDisplay:
    """Points in the plane for embeddings, some of them drawn as their image.

    Create it with :meth:`from_estimator`. Up to 24 classes are told apart by color and marker; more
    are drawn in gray.

    Parameters
    ----------
    points, images, y : ndarray of shape (n_samples, 2), list of images, array or None
        The points, their images and their labels.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        The axes and their figure.

    Examples
    --------
    >>> from sktransfer import ImageEmbedder
    >>> from sktransfer.datasets import make_shapes
    >>> from sktransfer.inspection import EmbeddingMapDisplay
    >>> shapes = make_shapes(n_samples=40, random_state=0)
    >>> display = EmbeddingMapDisplay.from_estimator(ImageEmbedder(), shapes.data, shapes.target)
    >>> display.points.shape
    (40, 2)
    """

    def __init__(self, *, points, images, y=None):
        self.points = points
        self.images = images
        self.y = y

    @classmethod
    @checked(projection=[HasMethods("fit_transform"), None])
    def from_estimator(
        cls, embedder: Any, X: Images, y: ArrayLike | None = None, *, projection: Any = None
    ) -> EmbeddingMapDisplay:
        """Embed images, project the embeddings to the plane and draw them.

        Parameters
        ----------
        embedder : transformer
            Embeds images: an :class:`~sktransfer.ImageEmbedder` or ``model[:-1]``, fitted or not.
        X : array-like of images
            Images, see :func:`~sktransfer.images.check_images`.
        y : array-like of shape (n_samples,) or None, default=None
            Labels.
        projection : transformer or None, default=None
            Projects embeddings to two columns, such as ``TSNE()`` or ``umap.UMAP()``; None is a
            principal component analysis.

        Returns
        -------
        EmbeddingMapDisplay
            The display.
        """
        images = check_images(X)
        y = None if y is None else column_or_1d(y)
        check_consistent_length(images, y)
        projection = PCA(2, random_state=0) if projection is None else projection
        points = projection.fit_transform(embed(embedder, images))
        return cls(points=points, images=images, y=y).plot()

    @checked(ax=AX, n_thumbnails=COUNT)
    def plot(self, ax: Any = None, *, n_thumbnails: int = 40) -> EmbeddingMapDisplay:
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None, default=None
            Axes to draw in; None creates a figure.
        n_thumbnails : int, default=40
            Maximum number of thumbnails; fewer are drawn where they would overlap.

        Returns
        -------
        EmbeddingMapDisplay
            The display itself.
        """
        plt = import_optional("matplotlib.pyplot", "report", "EmbeddingMapDisplay")
        from matplotlib.offsetbox import AnnotationBbox, OffsetImage

        if ax is None:
            _, ax = plt.subplots(figsize=(9, 6), layout="constrained")
        labels = [] if self.y is None else np.unique(self.y)
        colors, styles = np.full(len(self.points), "#888888"), list(product(_MARKERS, _COLORS))
        if 0 < len(labels) <= len(styles):
            for label, (marker, color) in zip(labels, styles, strict=False):
                of_class = self.y == label
                colors[of_class] = color
                ax.scatter(*self.points[of_class].T, s=14, color=color, marker=marker, label=label)
            ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize="small")
        else:
            ax.scatter(*self.points.T, s=14, color=colors)
        ax.set(xticks=[], yticks=[])
        ax.figure.draw_without_rendering()  # the layout decides on the size of the axes
        places = ax.transData.transform(self.points) * 72 / ax.figure.dpi
        drawn = []
        for index in check_random_state(0).permutation(len(places)):
            apart = np.abs(places[drawn] - places[index]).max(axis=1, initial=0)
            if len(drawn) < n_thumbnails and (apart > _SIDE + 4).all():
                drawn.append(index)
                image = OffsetImage(thumbnail(self.images[index], _SIDE), zoom=1)
                frame = {"edgecolor": colors[index], "linewidth": 1.5}
                box = AnnotationBbox(image, self.points[index], pad=0.1, bboxprops=frame)
                ax.add_artist(box)
        self.ax_, self.figure_ = ax, ax.figure
        return self
