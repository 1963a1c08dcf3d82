"""Maps of what matters to a prediction, by hiding it."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_scalar
from torch.nn.functional import interpolate

from .._utils._optional import import_optional
from .._utils._typing import ArrayLike, Images
from ..exceptions import UnreadableImageError
from ..images import check_images
from ._grid import ImageGridDisplay, thumbnail

__all__ = ["OcclusionDisplay"]

_SIDE = 320  # pixels of the longer side of an image that is occluded
_WIDTH = 0.68  # standard deviation of what hides, in cells of the map


class OcclusionDisplay(ImageGridDisplay):
    """Grid of images that are bright where hiding a place lowers the probability of the class.

    Create it with :meth:`from_estimator`. Parameters and attributes are those of
    :class:`ImageGridDisplay`, and `maps_`, an array of shape (n_images, n_steps, n_steps): by how
    much the probability drops when the place is hidden.

    Examples
    --------
    >>> from sktransfer import make_transfer_pipeline
    >>> from sktransfer.datasets import make_shapes
    >>> from sktransfer.inspection import OcclusionDisplay
    >>> shapes = make_shapes(n_samples=40, random_state=0)
    >>> model = make_transfer_pipeline("tiny_mobilenet", cache=None)
    >>> model = model.fit(shapes.data, shapes.target)
    >>> OcclusionDisplay.from_estimator(model, shapes.data[:2]).maps_.shape
    (2, 8, 8)
    """

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Images,
        *,
        classes: ArrayLike | None = None,
        n_steps: int = 8,
        figure: Any = None,
    ) -> OcclusionDisplay:
        """Hide one place after another and draw how the prediction changes.

        Parameters
        ----------
        estimator : classifier
            A fitted classifier of images with ``predict_proba``: a pipeline, a stack, a search.
        X : array-like of images
            A few images, see :func:`~sktransfer.images.check_images`. For each, ``n_steps**2``
            copies of at most 320 pixels are predicted and cached like other images.
        classes : array-like of shape (n_samples,) or None, default=None
            Classes to explain; None explains the predicted ones.
        n_steps : int, default=8
            Number of places along each side.
        figure : matplotlib.figure.Figure, matplotlib.figure.SubFigure or None, default=None
            Figure to draw in; None creates one.

        Returns
        -------
        OcclusionDisplay
            The display.

        Raises
        ------
        UnreadableImageError
            If an image cannot be read.
        """
        matplotlib = import_optional("matplotlib", "report", "OcclusionDisplay")
        check_scalar(n_steps, "n_steps", Integral, min_val=2)
        images = [thumbnail(image, _SIDE) for image in check_images(X)]
        if reasons := [image for image in images if isinstance(image, str)]:
            raise UnreadableImageError(reasons[0])
        occluded = [copy for image in images for copy in _occlude(image, n_steps)]
        found = np.asarray(estimator.predict_proba([*images, *occluded]))
        codes = found[: len(images)].argmax(axis=1)
        if classes is not None:
            codes = np.array([list(estimator.classes_).index(name) for name in classes])
        each = np.arange(len(images))
        hidden = found[len(images) :].reshape(len(images), n_steps, n_steps, -1)
        maps = found[each, codes][:, None, None] - hidden[each, :, :, codes]
        shown, captions = [], []
        for image, drops, row, code in zip(images, maps, found, codes, strict=False):
            heat = torch.from_numpy(drops.clip(0) / max(drops.max(), 1e-12))[None, None]
            heat = interpolate(heat, image.shape[:2], mode="bilinear")[0, 0].numpy()
            color = matplotlib.colormaps["inferno"](heat)[:, :, :3]
            gray = image.mean(axis=2, keepdims=True) / 255
            shown.append(np.rint(255 * (0.4 * gray + 0.6 * color)).astype(np.uint8))
            numbers = [("probability", f"{row[code]:.0%}"), ("largest drop", f"{drops.max():.0%}")]
            captions.append([("class", estimator.classes_[code]), *numbers])
        display = cls(images=shown, captions=captions)
        display.maps_ = maps
        return display.plot(figure, n_cols=4)


def _occlude(image, n_steps):
    """Yield copies of an image that fade, in one place each, to the mean color."""
    # Soft edges: to a network, a patch with hard edges is an object.
    centers = np.arange(n_steps)[:, None] + 0.5
    rows, columns = (
        np.exp(-0.5 * (((np.arange(n) + 0.5) / n * n_steps - centers) / _WIDTH) ** 2)
        for n in image.shape[:2]
    )
    towards_mean = image.mean(axis=(0, 1)) - image
    for row in rows:
        for column in columns:
            yield np.rint(image + np.outer(row, column)[:, :, None] * towards_mean).astype(np.uint8)
