"""Loaders of labeled images: class folders, tables, PyTorch datasets, drawn shapes."""

from ._bunch import IMAGE_EXTENSIONS
from ._dataset import load_image_dataset
from ._folder import images_below as images_below
from ._folder import load_image_folder
from ._shapes import make_shapes
from ._table import load_image_csv

# `images_below` is for the package only.
__all__ = [
    "IMAGE_EXTENSIONS",
    "load_image_csv",
    "load_image_dataset",
    "load_image_folder",
    "make_shapes",
]
