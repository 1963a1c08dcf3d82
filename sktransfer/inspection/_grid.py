"""Grids of images with lines of text above each."""

from __future__ import annotations

from collections import defaultdict
from itertools import count
from numbers import Integral
from textwrap import wrap
from typing import Any

import numpy as np
from PIL import Image
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, column_or_1d
from torch import nn

from .._utils._optional import import_optional
from .._utils._parameters import MAX_VIEWS
from .._utils._sklearn import HasMethods, Interval, checked
from .._utils._typing import ArrayLike, Images, Seed
from ..augmentation import Views, resolve_augmentation
from ..exceptions import UnreadableImageError
from ..images import check_images, decode_image, digest_image

_WIDTH, _CELL, _LINE = 11.5, 2.0, 0.17  # inches: a full row, the highest cell, a line of text
_LETTERS_PER_INCH = 13  # of the small font, with some room to the next cell

#: What parameters may be.
MODEL = [HasMethods("predict_proba")]
COUNT = [Interval(Integral, 1, 1_000_000, closed="both")]
FIGURE = [HasMethods(["subplots", "get_layout_engine"]), None]
AX = [HasMethods(["plot", "scatter", "add_artist"]), None]


class ImageGridDisplay:
    """Grid of images with a few lines of text above each.

    Create it with :meth:`from_data` or :meth:`from_augmentation`.

    Parameters
    ----------
    images : list of (ndarray of shape (H, W, 3) and dtype uint8, or str)
        Thumbnails; a text is the reason why an image cannot be read.
    captions : list of list of tuple
        The lines above each image: (label, value) or (label, value, number). Long values are cut.
    indices : ndarray or None, default=None
        Rows of the images in ``X``.
    colors : list of color or None, default=None
        Color of each caption; None draws them in black.
    n_cols : int, default=5
        Number of columns.

    Attributes
    ----------
    figure_, axes_ : matplotlib.figure.Figure, ndarray of shape (n_rows, n_cols)
        The figure and its cells; those beyond the last image are hidden.

    Examples
    --------
    >>> from sktransfer.datasets import make_shapes
    >>> from sktransfer.inspection import ImageGridDisplay
    >>> shapes = make_shapes(n_samples=40, random_state=0)
    >>> ImageGridDisplay.from_data(shapes.data, shapes.target, max_images=10).axes_.shape
    (2, 5)
    """

    @checked(n_cols=COUNT)
    def __init__(self, *, images, captions, indices=None, colors=None, n_cols=5):
        self.images = images
        self.captions = captions
        self.indices = indices
        self.colors = colors
        self.n_cols = n_cols

    @classmethod
    @checked(max_images=COUNT)
    def from_data(
        cls, X: Images, y: ArrayLike | None = None, *, max_images: int = 20, random_state: Seed = 0
    ) -> ImageGridDisplay:
        """Draw a random sample of a data set.

        Parameters
        ----------
        X : array-like of images
            Images, see :func:`~sktransfer.images.check_images`.
        y : array-like of shape (n_samples,) or None, default=None
            Labels: the sample has one image of each class, then a second one, and so on.
        max_images : int, default=20
            Maximum number of images.
        random_state : int, RandomState instance or None, default=0
            Determines the sample.

        Returns
        -------
        ImageGridDisplay
            The display.
        """
        images = check_images(X)
        check_consistent_length(images, y)
        indices = check_random_state(random_state).permutation(len(images))
        if y is not None:
            y = column_or_1d(y)
            seen = defaultdict(count)  # 0 for the first image of a class, 1 for the second
            turns = [next(seen[label]) for label in y[indices]]
            indices = indices[np.argsort(turns, kind="stable")][:max_images]
            indices = indices[np.argsort(y[indices], kind="stable")]
        indices = indices[:max_images]
        captions = [[("", index if y is None else y[index])] for index in indices]
        shown = [thumbnail(images[index]) for index in indices]
        return cls(images=shown, captions=captions, indices=indices).plot()

    @classmethod
    @checked(
        augmentation=[str, nn.Module],
        n_views=[Interval(Integral, 1, MAX_VIEWS, closed="both")],
        random_state=[Integral],
    )
    def from_augmentation(
        cls, image: Any, augmentation: Any = "crop", *, n_views: int = 10, random_state: int = 0
    ) -> ImageGridDisplay:
        """Draw the views of one image.

        Parameters
        ----------
        image : path, bytes, PIL.Image.Image, ndarray or torch.Tensor
            One image.
        augmentation, n_views, random_state : optional
            As for :class:`~sktransfer.ImageEmbedder`, which then uses the same views.

        Returns
        -------
        ImageGridDisplay
            The display.
        """
        views = Views(resolve_augmentation(augmentation), n_views, random_state)
        pixels, digest = decode_image(image), digest_image(image)
        shown = [thumbnail(views.apply(pixels, digest, view)) for view in range(n_views)]
        captions = [[("view", view)] for view in range(n_views)]
        return cls(images=shown, captions=captions).plot()

    @checked(figure=FIGURE)
    def plot(self, figure: Any = None) -> ImageGridDisplay:
        """Draw the images.

        Parameters
        ----------
        figure : matplotlib.figure.Figure, matplotlib.figure.SubFigure or None, default=None
            Figure to draw in; None creates one.

        Returns
        -------
        ImageGridDisplay
            The display itself.
        """
        plt = import_optional("matplotlib.pyplot", "report", type(self).__name__)
        if not len(self.images):
            raise ValueError("There are no images to show.")
        n_cols = min(self.n_cols, len(self.images))
        n_rows = -(-len(self.images) // n_cols)
        if figure is None:
            width = _WIDTH / max(4, self.n_cols)
            shapes = [image.shape for image in self.images if not isinstance(image, str)]
            height = min(_CELL, width * max((high / wide for high, wide, _ in shapes), default=1))
            height += _LINE * (1 + max(map(len, self.captions)))
            size = (width * n_cols, height * n_rows)
            figure = plt.figure(figsize=size, layout="constrained")
        axes = figure.subplots(n_rows, n_cols, squeeze=False)
        width = figure.bbox.width / figure.dpi
        if figure.get_layout_engine() is None:
            width *= figure.subplotpars.right - figure.subplotpars.left
        n_letters = int(_LETTERS_PER_INCH * width / n_cols)
        for ax in axes.flat:
            ax.set_axis_off()
        style = {"fontsize": "small", "parse_math": False}  # a dollar sign begins no formula
        colors = self.colors or ["black"] * len(self.images)
        cells = zip(axes.flat, self.images, self.captions, colors, strict=False)
        for ax, image, caption, color in cells:
            text = "\n".join(_line(n_letters, *line) for line in caption)
            ax.set_title(text, loc="left", color=color, **style)
            if isinstance(image, str):
                lines = wrap(f"cannot be read: {image}", n_letters, max_lines=8, placeholder="…")
                ax.text(0, 1, "\n".join(lines), va="top", **style)
            else:
                ax.imshow(image)
                ax.set_anchor("NW")  # keeps the captions of a row aligned, for any image shape
        self.figure_, self.axes_ = figure, axes
        return self


def _line(n_letters, label, value, number=""):
    """Return a line with a value cut in the middle: names of classes often differ at the end."""
    label, value = f"{label}: " if label else "", " ".join(str(value).split())
    n_letters = max(5, n_letters - len(f"{label} {number}"))
    if len(value) > n_letters:
        end = n_letters // 3
        value = f"{value[: n_letters - end - 1]}…{value[-end:]}"
    return f"{label}{value} {number}".rstrip()


def thumbnail(image, side=192):
    """Return pixels with at most ``side`` on the longer side, or why the image is unreadable."""
    try:
        pixels = decode_image(image)
    except UnreadableImageError as error:
        return str(error)
    small = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    small.thumbnail((side, side))
    return np.asarray(small)
