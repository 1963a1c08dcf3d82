"""Loaders of labelled images."""

from ._datasets import IMAGE_EXTENSIONS, load_image_csv, load_image_folder, make_shapes

__all__ = [
    "IMAGE_EXTENSIONS",
    "load_image_csv",
    "load_image_folder",
    "make_shapes",
]
