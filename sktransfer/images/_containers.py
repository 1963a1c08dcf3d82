"""What `X` may be, and what a single image may be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from .._utils._threads import loaded_torch
from .._utils._typing import Images
from ..exceptions import UnreadableImageError

#: Images with more pixels (height x width) than this are refused before they are decoded.
MAX_PIXELS = 100_000_000

_CHANNELS = (1, 3, 4)
# Names that columns of images have, the most telling one first.
_COLUMNS = ("image", "images", "img", "data", "path", "paths", "file", "filename", "train")
_KINDS = (
    "a path, encoded bytes, a PIL.Image, an array (H, W) or (H, W, C), or a torch tensor (C, H, W)"
)
_SINGLE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)


def check_images(X: Images) -> list:
    """Turn any container of images into a flat list of single images.

    An image is one of these:

    - a path (`str` or `os.PathLike`) or the encoded file as `bytes`;
    - a :class:`PIL.Image.Image`;
    - an array of shape ``(H, W)`` or ``(H, W, C)`` of uint8 or of floats in [0, 1], C is 1, 3 or 4;
    - a tensor of shape ``(C, H, W)`` of the same dtypes;
    - a dict ``{"bytes": ..., "path": ...}``, as Hugging Face datasets have with ``decode=False``;
      it is replaced by its bytes, or its path if these are None.

    Nothing is decoded or copied: the images of an array or a tensor are views of it.

    Parameters
    ----------
    X : list, tuple, ndarray, torch.Tensor, Series, one-column DataFrame, or another sequence
        A sequence of images of any kind, such as a Hugging Face column or a PyTorch dataset; an
        object or string array of shape ``(n,)`` or ``(n, 1)``; a column or a one-column table of
        pandas, polars or pyarrow; an array of shape ``(n, H, W)`` or ``(n, H, W, C)``; or a tensor
        of shape ``(n, C, H, W)``.

    Returns
    -------
    list
        One element for each image, in order.

    Raises
    ------
    TypeError
        If `X` is a single image or cannot hold images, or its first element is no image.
    ValueError
        If `X` is empty, or its shape or dtype is not that of images.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.images import check_images
    >>> images = check_images(np.zeros((5, 32, 48, 3), dtype=np.uint8))
    >>> len(images), images[0].shape
    (5, (32, 48, 3))
    >>> check_images(np.array([["a.jpg"], ["b.jpg"]]))
    ['a.jpg', 'b.jpg']
    """
    if isinstance(X, _SINGLE):
        name = image_name(X)
        if name is not None and os.path.isdir(name):
            raise TypeError(
                f"X is a folder ({name!r}); pass a list of images, for class folders "
                "sktransfer.datasets.load_image_folder(folder).data."
            )
        raise TypeError(f"X is one image ({_describe(X)}), not several: pass it in a list, [X].")
    kind = type(X).__name__
    for method in ("collect", "compute"):  # of polars and Spark, of Dask
        if hasattr(X, method) and (hasattr(X, "npartitions") or not hasattr(X, "__len__")):
            raise TypeError(f"X is a lazy {kind}; pass what X.{method}() returns.")
    is_mapping = isinstance(X, Mapping)  # also a Bunch and the splits of Hugging Face
    # A table of pyarrow and Hugging Face, or of pandas and polars.
    columns = X if is_mapping else getattr(X, "column_names", getattr(X, "columns", None))
    if columns is not None:
        if is_mapping or len(columns) != 1:
            raise ValueError(
                f"X ({kind}) has the columns or keys {list(columns)[:10]}; pass the one that holds "
                f"the images, for example X[{_image_column(columns)!r}]."
            )
        X = X[columns[0]]
    if _is_tensor(X):
        images = _split_tensor(X)
    elif hasattr(X, "to_pylist"):  # a column of pyarrow
        images = X.to_pylist()
    elif hasattr(X, "to_list"):  # a Series of pandas or polars
        images = X.to_list()
    elif hasattr(X, "__array__"):
        images = _split_array(np.asarray(X))
    elif hasattr(X, "__getitem__") and hasattr(X, "__len__"):
        if len(X):
            _check_first(X[0], X)  # before all others are read
        images = [X[i] for i in range(len(X))]
    else:
        raise TypeError(
            f"X is a {kind}, which cannot hold images: pass a list, an array, a Series or a "
            "one-column DataFrame. Hint: list(X) turns any iterable into a list; the images of a "
            "DataLoader are in X.dataset."
        )
    if not images:
        raise ValueError("X is empty: found 0 images, expected at least 1.")
    _check_first(images[0], X)
    return [unwrap(image) if isinstance(image, dict) else image for image in images]


def _image_column(names):
    """Return the name that most likely stands for images, as an example."""
    return next((name for name in _COLUMNS if name in list(names)), next(iter(names), "image"))


def _check_first(image, X):
    """Refuse images that are none, by the first of them; a missing one is an unreadable image."""
    is_array = isinstance(image, np.ndarray) or _is_tensor(image)
    if is_array or isinstance(image, _SINGLE) or unwrap(image) is not image:
        return
    if hasattr(X, "samples"):
        hint = "pass sktransfer.datasets.load_image_dataset(X).data, or the paths in X.samples."
    elif isinstance(image, tuple):
        hint = "if these are pairs (image, label), pass the images alone, [pair[0] for pair in X]."
    elif isinstance(image, Mapping):
        column = _image_column(image)
        hint = f"pass the images alone, [element[{column!r}] for element in X]."
    elif hasattr(image, "read"):
        hint = "read the files, [file.read() for file in X]."
    elif image is None or isinstance(image, float) or type(image).__name__ == "NAType":
        return  # missing
    else:
        hint = f"expected {_KINDS}."
    raise TypeError(
        f"X ({type(X).__name__}) begins with {_describe(image)}, which is not an image: {hint}"
    )


def unwrap(image):
    """Return what is inside a dict of Hugging Face, or the image itself."""
    if isinstance(image, Mapping) and {"bytes", "path"} & set(image):
        return image.get("path") if image.get("bytes") is None else image["bytes"]
    return image


def holds_images(X):
    """Whether X is, or begins with, a path, encoded bytes or a Pillow image."""
    if isinstance(X, _SINGLE):
        return True
    try:
        return isinstance(check_images(X)[0], _SINGLE)
    except (TypeError, ValueError):
        return False


def _is_tensor(image):
    torch = loaded_torch()  # a process without it has no tensors
    return torch is not None and isinstance(image, torch.Tensor)


def _split_array(X):
    kind, shape = X.dtype.kind, X.shape
    if kind in "OUT":
        if X.ndim == 1 or (X.ndim == 2 and shape[1] == 1):
            return X.ravel().tolist()
        raise ValueError(
            f"X is an array of dtype {X.dtype} and shape {shape}; paths and other objects need "
            "shape (n,) or (n, 1). Hint: put pixels into a numeric array (np.stack(images)) or a "
            "list."
        )
    if kind == "S":
        raise TypeError(
            f"X is an array of dtype {X.dtype}, which may be paths or encoded images: pass "
            "paths as str, X.astype(str), or encoded images in a list of bytes."
        )
    is_gray, is_color = len(shape) == 3, len(shape) == 4 and shape[-1] in _CHANNELS
    if is_gray and shape[-1] in (3, 4):
        raise ValueError(
            f"X has the shape {shape} of one color image, (H, W, C), not of several: pass X[None]."
        )
    if not (is_gray or is_color):
        hint = "put images of different kinds or sizes into a list."
        if len(shape) == 4 and shape[1] in _CHANNELS:
            hint = "the channels come last: pass X.transpose(0, 2, 3, 1)."
        elif len(shape) == 2:
            hint = "restore the shape of flattened images: X.reshape(len(X), height, width)."
        raise ValueError(
            f"X is a numeric array of shape {shape}; expected (n, H, W) or (n, H, W, C) with C "
            f"1, 3 or 4. Hint: {hint}"
        )
    if X.dtype != np.uint8 and kind != "f":
        raise ValueError(f"X is an array of dtype {X.dtype}; {_pixel_rule(X.dtype)}")
    return list(X)


def _split_tensor(X):
    if X.ndim == 4 and X.shape[1] in _CHANNELS:
        return list(X)
    if X.ndim == 3:
        hint = "pass X[None] if it is one image (C, H, W), X[:, None] if it is n gray ones."
    elif X.ndim == 4 and X.shape[-1] in _CHANNELS:
        hint = "in a tensor the channels come first: pass X.permute(0, 3, 1, 2)."
    else:
        hint = "put images of different sizes into a list."
    raise ValueError(
        f"X is a tensor of shape {tuple(X.shape)}; expected (n, C, H, W) with C 1, 3 or 4. "
        f"Hint: {hint}"
    )


def image_name(image: Any) -> str | None:
    """Return the path of an image, for error reports.

    Parameters
    ----------
    image : object
        One image of any kind.

    Returns
    -------
    str or None
        The path of an image given as a path, None for an image in memory.

    Examples
    --------
    >>> from pathlib import PurePosixPath
    >>> from sktransfer.images import image_name
    >>> image_name(PurePosixPath("photos") / "cat.jpg")
    'photos/cat.jpg'
    """
    try:
        return os.fsdecode(image) if is_path(image) else None
    except Exception:  # __fspath__ may raise anything
        return None


def is_path(image):
    """Whether an image is given as a path."""
    return isinstance(image, (str, os.PathLike))


def as_pixel_array(image):
    """Return the array (H, W) or (H, W, C) of an image given as pixels."""
    if _is_tensor(image):
        if image.ndim != 3 or image.shape[0] not in _CHANNELS:
            raise UnreadableImageError(
                f"the tensor has shape {tuple(image.shape)}; expected (C, H, W) with C 1, 3 or 4"
            )
        if str(image.layout) != "torch.strided" or image.is_meta or image.is_quantized:
            raise UnreadableImageError(
                "the tensor is sparse, quantized or has no memory; expected a dense tensor"
            )
        image = image.detach().cpu().resolve_conj().resolve_neg().permute(1, 2, 0)
        # NumPy has no bfloat16, and no image needs more than float32.
        image = (image.float() if image.is_floating_point() else image).numpy()
    if not isinstance(image, np.ndarray):
        raise UnreadableImageError(f"{_describe(image)} is not an image; expected {_KINDS}")
    if isinstance(image, np.ma.MaskedArray):
        raise UnreadableImageError("it is a masked array; pass image.filled(0)")
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in _CHANNELS)):
        hint = ""
        if image.ndim == 3 and image.shape[0] in _CHANNELS:
            hint = "; the channels come last: image.transpose(1, 2, 0)"
        raise UnreadableImageError(
            f"the array has shape {image.shape}; expected (H, W) or (H, W, C) with C 1, 3 or 4"
            f"{hint}"
        )
    if image.dtype != np.uint8 and image.dtype.kind != "f":
        raise UnreadableImageError(f"the array has dtype {image.dtype}; {_pixel_rule(image.dtype)}")
    return image


def _pixel_rule(dtype):
    how = "0 to 255 with X.astype(np.uint8), True and False with X.astype(float)"
    if dtype.name == "uint16":  # as uint8 it would wrap
        how = "0 to 65535 with X / 65535"
    return f"pixels are uint8 (0 to 255) or floats from 0 to 1. Hint: convert {how}."


def _describe(thing):
    text = repr(thing)
    return f"{type(thing).__name__} {text[:60]}{'...' if len(text) > 60 else ''}"
