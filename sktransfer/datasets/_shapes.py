"""Drawn images of shapes, for examples and tests."""

import os
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from sklearn.utils import Bunch, check_random_state

from .._utils._sklearn import Interval, StrOptions, checked
from .._utils._typing import FilePath, Seed
from ._bunch import make_bunch

# The number of corners, and their distances from the center in turn.
_POLYGONS = {"square": (4, (1.0,)), "triangle": (3, (1.0,)), "star": (10, (1.0, 0.45))}
_SHAPES = ("circle", "square", "triangle", "cross", "star", "ring")
_OVERSAMPLING = 4


@checked(
    n_samples=[Interval(Integral, 1, 1_000_000, closed="both")],
    n_classes=[Interval(Integral, 2, len(_SHAPES), closed="both")],
    image_size=[Interval(Integral, 16, 4096, closed="both")],
    noise=[Interval(Real, 0, 1, closed="both")],
    folder=[str, os.PathLike, None],
    format=[StrOptions({"png", "jpg"})],
    random_state=["random_state"],
)
def make_shapes(
    n_samples: int = 200,
    *,
    n_classes: int = 4,
    image_size: int = 64,
    noise: float = 0.1,
    folder: FilePath | None = None,
    format: str = "png",
    random_state: Seed = None,
) -> Bunch:
    """Draw a small labeled data set: shapes of any color, size, position and rotation.

    The background color varies across the image, and every pixel is noisy. So raw pixels say
    little about the class, while a network recognizes it easily.

    Parameters
    ----------
    n_samples : int, default=200
        Number of images, at most 1,000,000. The classes are balanced.
    n_classes : int, default=4
        The first of circle, square, triangle, cross, star and ring; 2 to 6.
    image_size : int, default=64
        Height and width in pixels, from 16 to 4096.
    noise : float, default=0.1
        Standard deviation of the noise, as a fraction of the range from black to white.
    folder : str, os.PathLike or None, default=None
        Folder to write the images to, in one folder for each class; it is created if missing.
        `data` then contains their paths.
    format : {"png", "jpg"}, default="png"
        File format. Ignored without `folder`.
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same images in every call.

    Returns
    -------
    Bunch
        As from :func:`load_image_folder`. Without `folder`, `data` has the images: an ndarray of
        shape (n_samples, image_size, image_size, 3) and dtype uint8.

    Examples
    --------
    >>> from sktransfer.datasets import make_shapes
    >>> shapes = make_shapes(n_samples=12, random_state=0)
    >>> shapes.data.shape, shapes.target[:3].tolist()
    ((12, 64, 64, 3), ['triangle', 'cross', 'circle'])
    """
    if folder is not None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise ValueError(f"folder={folder!r} cannot be created: {error}.") from error
    rng = check_random_state(random_state)
    labels = [_SHAPES[code] for code in rng.permutation(np.arange(n_samples) % n_classes)]
    images = np.stack([_draw(label, image_size, noise, rng) for label in labels])
    if folder is None:
        return make_bunch("Drawn shapes", images, labels)
    digits = len(str(n_samples - 1))
    paths = []
    for number, (label, pixels) in enumerate(zip(labels, images, strict=True)):
        path = Path(folder, label, f"{number:0{digits}}.{format}")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        paths.append(str(path))
    return make_bunch("Drawn shapes", paths, labels)


def _draw(shape, size, noise, rng):
    """Return one image (size, size, 3) of uint8."""
    # How much of each pixel the shape covers.
    radius = rng.uniform(0.22, 0.38)
    center, turn = rng.uniform(radius, 1 - radius, 2), rng.uniform(0, 2 * np.pi)
    large = Image.new("L", (size * _OVERSAMPLING,) * 2)
    _fill(ImageDraw.Draw(large), shape, center * large.width, radius * large.width, turn)
    mask = np.asarray(large.reduce(_OVERSAMPLING), dtype=float)[:, :, None] / 255
    # The shape and both ends of the background differ clearly in lightness.
    dark, light = rng.uniform(0, 0.4, 3), rng.uniform(0.6, 1, 3)
    ink, paper = (dark, light) if rng.uniform() < 0.5 else (light, dark)
    far_paper = (paper + rng.uniform(-0.2, 0.2, 3)).clip(0, 1)
    # A plane that rises from 0 to at most 1 in a random direction.
    angle, steps = rng.uniform(0, 2 * np.pi), np.linspace(-0.5, 0.5, size)
    ramp = np.add.outer(np.cos(angle) * steps, np.sin(angle) * steps)[:, :, None]
    ramp = 0.5 + ramp / np.sqrt(2)
    clean = mask * ink + (1 - mask) * ((1 - ramp) * paper + ramp * far_paper)
    clean += noise * rng.standard_normal((size, size, 3))
    return np.rint(clean.clip(0, 1) * 255).astype(np.uint8)


def _fill(canvas, shape, center, radius, turn):
    if shape in ("circle", "ring"):
        canvas.ellipse([*(center - radius), *(center + radius)], fill=255)
        if shape == "ring":
            canvas.ellipse([*(center - 0.6 * radius), *(center + 0.6 * radius)], fill=0)
    elif shape == "cross":
        for angle in (turn, turn + np.pi / 2):  # two bars, three times as long as wide
            along = radius * np.array([np.cos(angle), np.sin(angle)])
            across = along[::-1] * (-1 / 3, 1 / 3)
            bar = [along + across, along - across, -along - across, across - along]
            canvas.polygon([tuple(center + corner) for corner in bar], fill=255)
    else:
        n_corners, distances = _POLYGONS[shape]
        angles = turn + 2 * np.pi * np.arange(n_corners) / n_corners
        reach = radius * np.resize(distances, n_corners)
        corners = center + reach[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
        canvas.polygon([tuple(corner) for corner in corners], fill=255)
