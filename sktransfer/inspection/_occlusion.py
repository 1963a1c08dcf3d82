"""Maps of what matters to a prediction, by hiding it."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._utils._optional import import_optional
from .._utils._sklearn import Interval, checked
from .._utils._typing import ArrayLike, Images
from ..exceptions import UnreadableImageError
from ..images import check_images
from ._grid import FIGURE, MODEL, ImageGridDisplay, thumbnail

_SIDE = 320  # pixels of the longer side of an image that is occluded
_MAP = 64  # points along each side of a map
_WIDTH = 0.85  # standard deviation of what hides, in steps
_PENALTY = 10


class OcclusionDisplay(ImageGridDisplay):
    """Grid of images that are bright where the predicted probability comes from.

    Create it with :meth:`from_estimator`. Parameters and attributes are those of
    :class:`ImageGridDisplay`, and `maps_`, an array of shape (n_images, 64, 64).

    Notes
    -----
    Copies of an image fade to its median color, usually that of the background, in one place each.
    The places overlap: a map has the coefficients of a ridge regression of the drop in probability
    on how much of each point is hidden, as in [1]_.

    References
    ----------
    .. [1] M. T. Ribeiro, S. Singh and C. Guestrin, "Why Should I Trust You? Explaining the
       Predictions of Any Classifier", KDD 2016.

    Examples
    --------
    >>> from sktransfer import make_transfer_pipeline
    >>> from sktransfer.datasets import make_shapes
    >>> from sktransfer.inspection import OcclusionDisplay
    >>> shapes = make_shapes(n_samples=40, random_state=0)
    >>> model = make_transfer_pipeline("tiny_mobilenet", cache=None)
    >>> model = model.fit(shapes.data, shapes.target)
    >>> OcclusionDisplay.from_estimator(model, shapes.data[:2]).maps_.shape
    (2, 64, 64)
    """

    @classmethod
    @checked(estimator=MODEL, figure=FIGURE, n_steps=[Interval(Integral, 2, 99, closed="both")])
    def from_estimator(
        cls,
        estimator: Any,
        X: Images,
        *,
        classes: ArrayLike | None = None,
        n_steps: int = 12,
        figure: Any = None,
    ) -> OcclusionDisplay:
        """Hide one place after another and draw how the prediction changes.

        Parameters
        ----------
        estimator : classifier
            A fitted classifier of images with ``predict_proba``.
        X : array-like of images
            A few images, see :func:`~sktransfer.images.check_images`. For each, ``n_steps**2``
            copies of at most 320 pixels are predicted and cached like other images.
        classes : array-like of shape (n_samples,) or None, default=None
            Classes to explain; None explains the predicted ones.
        n_steps : int, default=12
            Number of places along each side, from 2 to 99.
        figure : optional
            See :meth:`~sktransfer.inspection.ImageGridDisplay.plot`.

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
        images = [thumbnail(image, _SIDE) for image in check_images(X)]
        if reasons := [image for image in images if isinstance(image, str)]:
            raise UnreadableImageError(reasons[0])
        occluded = [copy for image in images for copy in _occlude(image, n_steps)]
        found = np.asarray(estimator.predict_proba([*images, *occluded]))
        codes = found[: len(images)].argmax(axis=1)
        if classes is not None:
            check_consistent_length(images, classes)
            matches = column_or_1d(classes)[:, None] == estimator.classes_
            if not matches.any(axis=1).all():
                raise ValueError(f"classes must be among {list(estimator.classes_)}.")
            codes = matches.argmax(axis=1)
        each = np.arange(len(images))
        hidden = found[len(images) :].reshape(len(images), n_steps**2, -1)[each, :, codes]
        whole = found[each, codes]
        drops = whole[:, None] - hidden
        places = np.kron(_places(n_steps, _MAP), _places(n_steps, _MAP))
        maps = Ridge(_PENALTY, fit_intercept=False).fit(places, drops.T).coef_
        maps = maps.reshape(-1, _MAP, _MAP)
        shown, captions = [], []
        for image, values, probability, code in zip(images, maps, whole, codes, strict=True):
            heat = Image.fromarray(np.float32(values.clip(0) / max(values.max(), 1e-12)))
            heat = np.asarray(heat.resize(image.shape[1::-1], Image.Resampling.BILINEAR))
            color, alpha = matplotlib.colormaps["inferno"](heat)[:, :, :3], 0.8 * heat[:, :, None]
            gray = 0.6 / 255 * image.mean(axis=2, keepdims=True)
            shown.append(np.rint(255 * (gray + alpha * (color - gray))).astype(np.uint8))
            captions.append([("class", estimator.classes_[code], f"{probability:.0%}")])
        display = cls(images=shown, captions=captions, n_cols=4)
        display.maps_ = maps
        return display.plot(figure)


def _places(n_steps, n_points):
    """Return how much of each point along a side is hidden in each step."""
    # Soft edges: to a network, a patch with hard edges is an object.
    points = (np.arange(n_points) + 0.5) / n_points * n_steps
    return np.exp(-0.5 * ((points - np.arange(n_steps)[:, None] - 0.5) / _WIDTH) ** 2)


def _occlude(image, n_steps):
    """Yield copies of an image that fade, in one place each, to the median color."""
    fading = np.median(image, axis=(0, 1)) - image
    rows, columns = (_places(n_steps, n) for n in image.shape[:2])
    for row in rows:
        for column in columns:
            yield np.rint(image + np.outer(row, column)[:, :, None] * fading).astype(np.uint8)
