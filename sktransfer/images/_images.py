"""What an image may be: checking, content digest, decoding, and fitting to a network's input.

An image is a path (`str` or `os.PathLike`), encoded `bytes`, a `PIL.Image.Image`, an array
``(H, W)`` or ``(H, W, 3 | 4)`` of uint8 or of floats in [0, 1], or a torch tensor ``(C, H, W)``.
What makes its pixels from another image when they are needed is a `LazyImage`.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from hashlib import blake2b
from io import BytesIO

import numpy as np
import torch
import torchvision  # noqa: F401  (registers the decoders in torch.ops.image)
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.transforms.functional import center_crop

from ..exceptions import UnreadableImageError
from ._files import read_file
from ._pillow import AGAIN, load_pillow, pillow_guard

__all__ = [
    "MAX_PIXELS",
    "LazyImage",
    "check_images",
    "decode_image",
    "digest_image",
    "fit_to_network",
    "image_name",
]

#: Images with more pixels (height x width) than this are refused before they are decoded.
MAX_PIXELS = 100_000_000

_DIGEST_SIZE = 20
_CHANNELS = (1, 3, 4)
# Interpolation and float arithmetic leave values like 1.0000002, which are no reason to stop.
_FLOAT_SLACK = 1e-5
_EXIF_ORIENTATION = 0x0112
# How to bring pixels (3, H, W) upright, for each EXIF orientation that is not already upright.
_UPRIGHT = {
    2: lambda pixels: pixels.flip(2),
    3: lambda pixels: pixels.flip(1, 2),
    4: lambda pixels: pixels.flip(1),
    5: lambda pixels: pixels.transpose(1, 2),
    6: lambda pixels: pixels.transpose(1, 2).flip(2),
    7: lambda pixels: pixels.transpose(1, 2).flip(1, 2),
    8: lambda pixels: pixels.transpose(1, 2).flip(1),
}
# Pillow hands these to an interpreter (Ghostscript, GDI), which an image must not reach.
_DRAWING_FORMATS = ("EPS", "WMF")
_RGB_MODE = 3  # torchvision.io.ImageReadMode.RGB; that module is deprecated, its operators are not


class LazyImage(ABC):
    """An image whose pixels are made when they are needed, such as an augmented view.

    It goes wherever an image goes: `check_images`, `digest_image`, `decode_image` and
    `image_name` accept it. It should be small and can be pickled.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def name(self):
        """Path of the image that it is made from, None for one in memory."""

    @abstractmethod
    def digest(self):
        """Digest what decides on the pixels, without making them.

        Returns
        -------
        bytes
            20 bytes, equal only for equal pixels.

        Raises
        ------
        UnreadableImageError
            If the image that it is made from cannot be read.
        """

    @abstractmethod
    def decode(self, max_pixels):
        """Make the pixels; called from several threads at a time.

        Parameters
        ----------
        max_pixels : int
            An image with more pixels is refused undecoded.

        Returns
        -------
        torch.Tensor of shape (3, H, W) and dtype uint8
            The pixels.

        Raises
        ------
        UnreadableImageError
            If they cannot be made.
        """


# ---------------------------------------------------------------------------------------------
# Containers
# ---------------------------------------------------------------------------------------------

_SINGLE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, LazyImage)


def check_images(X):
    """Turn whatever holds images into a flat list of single images.

    Nothing is decoded or copied: the images of an array or a tensor stay views of it.

    Parameters
    ----------
    X : list, tuple, ndarray, Series, one-column DataFrame or torch.Tensor
        The images: a sequence of images of any kind; an object or string array of shape
        ``(n,)`` or ``(n, 1)``; a pandas or polars Series or one-column DataFrame; an array
        ``(n, H, W)`` or ``(n, H, W, C)`` of uint8 or of floats in [0, 1]; or a tensor
        ``(n, C, H, W)``; C is 1, 3 or 4.

    Returns
    -------
    list
        One element for each image, in order.

    Raises
    ------
    TypeError
        If `X` is a single image, or nothing that can hold images.
    ValueError
        If `X` is empty or has a shape or dtype that no set of images has.

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
    images = _flatten(X)
    if not images:
        raise ValueError("X is empty: found 0 images where at least 1 is needed.")
    return images


def holds_images(X):
    """Whether what should be rows of numbers begins with a path or another single image."""
    if isinstance(X, _SINGLE):
        return True
    if hasattr(X, "columns") and len(X.columns) == 1:
        X = X[X.columns[0]]
    if hasattr(X, "to_list"):
        X = X.to_list()
    if isinstance(X, np.ndarray) and X.dtype.kind in "OU" and X.shape[1:] in ((), (1,)):
        X = X.ravel().tolist()
    return isinstance(X, (list, tuple)) and len(X) > 0 and isinstance(X[0], _SINGLE)


def _flatten(X):
    if isinstance(X, (str, os.PathLike)) and os.path.isdir(X):
        raise TypeError(
            f"X is a folder ({str(X)!r}); pass a list of images. "
            "sktransfer.datasets.load_image_folder(folder).data lists those of class folders."
        )
    if isinstance(X, _SINGLE):
        raise TypeError(f"X is one image ({_describe(X)}), not several: pass it in a list, [X].")
    if isinstance(X, (list, tuple)):
        return list(X)
    if isinstance(X, np.ndarray):
        return _flatten_array(X)
    if isinstance(X, torch.Tensor):
        return _flatten_tensor(X)
    if hasattr(X, "columns"):
        return _flatten_frame(X)
    if hasattr(X, "to_list"):  # a Series, of pandas or of polars
        return X.to_list()
    if hasattr(X, "__array__"):
        return _flatten_array(np.asarray(X))
    if isinstance(X, Mapping) and "data" in X:
        raise TypeError(f'X is a {type(X).__name__}; its images are in X["data"], pass these.')
    raise TypeError(
        f"X is a {type(X).__name__}, which cannot hold images: pass a list, an array, a Series "
        "or a one-column DataFrame. Hint: list(X) makes a list of anything that can be iterated."
    )


def _flatten_frame(frame):
    if len(frame.columns) != 1:
        raise ValueError(
            f"X is a DataFrame with {len(frame.columns)} columns, {list(frame.columns)[:10]}; "
            "images come from one column: pass that one, for example X['path']."
        )
    return _flatten(frame[frame.columns[0]])


def _flatten_array(X):
    if X.dtype.kind in "OUT":
        return _flatten_elements(X)
    if X.dtype.kind == "S":
        raise TypeError(
            f"X is an array of dtype {X.dtype}, where paths and encoded images look alike: pass "
            "paths as str, X.astype(str), or encoded images in a list of bytes."
        )
    _check_stack_shape(X.shape)
    if X.dtype != np.uint8 and X.dtype.kind != "f":
        raise ValueError(f"X is an array of dtype {X.dtype}; {_PIXEL_RULE}")
    return list(X)


def _flatten_elements(X):
    if X.ndim == 1 or (X.ndim == 2 and X.shape[1] == 1):
        return X.ravel().tolist()
    raise ValueError(
        f"X is an array of dtype {X.dtype} and shape {X.shape}; paths and other objects come as "
        "(n,) or (n, 1). Hint: pixels go into a numeric array (np.stack(images)) or a list."
    )


def _check_stack_shape(shape):
    if len(shape) == 3 and shape[-1] in (3, 4):
        raise ValueError(
            f"X has the shape {shape} of one colour image, (H, W, C), not of several: pass X[None]."
        )
    if len(shape) == 3 or (len(shape) == 4 and shape[-1] in _CHANNELS):
        return
    if len(shape) == 4 and shape[1] in _CHANNELS:
        hint = "the channels come last: pass X.transpose(0, 2, 3, 1)."
    elif len(shape) == 2:
        hint = "flattened images must get their shape back: X.reshape(len(X), height, width)."
    else:
        hint = "images of different kinds or sizes go into a list."
    raise ValueError(
        f"X is a numeric array of shape {shape}; images come as (n, H, W) or (n, H, W, C) with C "
        f"1, 3 or 4. Hint: {hint}"
    )


def _flatten_tensor(X):
    if X.ndim == 4 and X.shape[1] in _CHANNELS:
        return list(X)
    if X.ndim == 3:
        hint = "pass X[None] if it is one image (C, H, W), X[:, None] if it is n grey ones."
    elif X.ndim == 4 and X.shape[-1] in _CHANNELS:
        hint = "in a tensor the channels come first: pass X.permute(0, 3, 1, 2)."
    else:
        hint = "images of different sizes go into a list."
    raise ValueError(
        f"X is a tensor of shape {tuple(X.shape)}; images come as (n, C, H, W) with C 1, 3 or 4. "
        f"Hint: {hint}"
    )


def image_name(image):
    """Say where an image comes from, for error reports.

    Parameters
    ----------
    image : object
        One image of any kind.

    Returns
    -------
    str or None
        The path of an image given as a path (or made from one), None for one given in memory.

    Examples
    --------
    >>> from pathlib import PurePosixPath
    >>> from sktransfer.images import image_name
    >>> image_name(PurePosixPath("photos") / "cat.jpg")
    'photos/cat.jpg'
    """
    if isinstance(image, LazyImage):
        return image.name
    return os.fsdecode(image) if _is_path(image) else None


def _is_path(image):
    return isinstance(image, (str, os.PathLike))


# ---------------------------------------------------------------------------------------------
# Digest
# ---------------------------------------------------------------------------------------------


def digest_image(image):
    """Digest the content of an image.

    Parameters
    ----------
    image : str, os.PathLike, bytes, PIL.Image.Image, ndarray, torch.Tensor or LazyImage
        One image.

    Returns
    -------
    bytes
        20 bytes of BLAKE2b over the encoded bytes of a path or of bytes (equal for both), else over
        the pixels with their shape and dtype (for a Pillow image: mode, size, palette, rotation).

    Raises
    ------
    UnreadableImageError
        If the file cannot be read or the object is no image.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.images import digest_image
    >>> image = np.zeros((4, 6), dtype=np.uint8)
    >>> len(digest_image(image)), digest_image(image) == digest_image(image.T)
    (20, False)
    """
    if isinstance(image, LazyImage):
        return image.digest()
    if _is_path(image):
        return _digest_bytes(read_file(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _digest_bytes(image)
    if isinstance(image, Image.Image):
        return _digest_pillow(image)
    pixels = _as_pixel_array(image)
    return _digest_parts(b"array", pixels.dtype.str, pixels.shape, np.ascontiguousarray(pixels))


def _digest_bytes(data):
    return blake2b(data, digest_size=_DIGEST_SIZE).digest()


def _digest_parts(kind, *parts):
    # The kind keeps apart pixels that happen to equal some file's bytes.
    digest = blake2b(digest_size=_DIGEST_SIZE, person=kind)
    for part in parts:
        digest.update(part if isinstance(part, (bytes, np.ndarray)) else repr(part).encode())
        digest.update(b"\0")
    return digest.digest()


def _digest_pillow(image):
    with pillow_guard(b"", MAX_PIXELS):
        load_pillow(image)
        palette = bytes(image.palette.palette) if image.palette else b""
        return _digest_parts(
            b"pillow", image.mode, image.size, _orientation(image), palette, image.tobytes()
        )


# ---------------------------------------------------------------------------------------------
# Decoding
# ---------------------------------------------------------------------------------------------


def decode_image(image, max_pixels=MAX_PIXELS, expected_digest=None):
    """Decode one image to upright RGB.

    EXIF orientation is applied. Grey, palette and CMYK become RGB; 16 bits are scaled to 8; an
    alpha channel is dropped, as ``PIL.Image.Image.convert("RGB")`` does; an animation gives its
    first frame. Grey and RGB JPEG are decoded by torchvision, everything else by Pillow; the
    pixels are the same.

    Parameters
    ----------
    image : str, os.PathLike, bytes, PIL.Image.Image, ndarray or torch.Tensor
        One image. Floats must lie in [0, 1].
    max_pixels : int, default=100_000_000
        An image whose header declares more pixels (height x width) is refused undecoded.
    expected_digest : bytes or None, default=None
        What `digest_image` said of this file earlier. Only looked at for a path.

    Returns
    -------
    torch.Tensor of shape (3, H, W) and dtype uint8
        The pixels, in memory of their own. Mostly with the strides of ``channels_last``.

    Raises
    ------
    UnreadableImageError
        If it cannot be read, with the reason. No other exception, and no warning, comes of
        broken or hostile files.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.images import decode_image
    >>> decode_image(np.full((32, 48), 0.5)).shape
    torch.Size([3, 32, 48])
    """
    if isinstance(image, LazyImage):
        return image.decode(max_pixels)
    if _is_path(image):
        data = read_file(image)
        if expected_digest is not None and _digest_bytes(data) != expected_digest:
            raise UnreadableImageError(
                "the file changed while it was being worked on; leave it alone and run again"
            )
        return _decode_encoded(data, max_pixels)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _decode_encoded(bytes(image), max_pixels)
    if isinstance(image, Image.Image):
        return _decode_pillow_image(image, max_pixels)
    return _decode_pixels(_as_pixel_array(image), max_pixels)


def _decode_encoded(data, max_pixels):
    if not data:
        raise UnreadableImageError(f"the file is empty (0 bytes); {AGAIN}")
    with pillow_guard(data, max_pixels):
        header = Image.open(BytesIO(data))
        if header.format in _DRAWING_FORMATS:
            raise UnreadableImageError(
                f"{header.format} is a drawing; save it as PNG and pass that"
            )
        _check_size(*header.size, max_pixels)
        pixels = _decode_fast(data, header)
        if pixels is None:
            pixels = _to_rgb_tensor(_pillow_pixels(header))
        return _upright(pixels, _orientation(header))


def _decode_fast(data, header):
    """Decode by torchvision, or return None where only Pillow will do or can say what is wrong."""
    decoder = _fast_decoder(header)
    if decoder is None:
        return None
    try:
        return decoder(torch.frombuffer(bytearray(data), dtype=torch.uint8), _RGB_MODE)
    except RuntimeError:
        return None


def _fast_decoder(header):
    # MPO is what Pillow calls a JPEG of several images, such as phones write. Only JPEG: on
    # damaged PNG files torchvision's decoder ends the process, and for WebP it is no faster.
    if header.format in ("JPEG", "MPO") and header.mode in ("L", "RGB"):
        return getattr(torch.ops.image, "decode_jpeg", None)
    return None


def _check_size(width, height, max_pixels):
    if width < 1 or height < 1:
        raise UnreadableImageError(f"it has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise UnreadableImageError(
            f"{width:,} x {height:,} pixels are more than max_pixels={max_pixels:,}; "
            "shrink it, or raise max_pixels if you trust it"
        )


def _orientation(image):
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # metadata that cannot be parsed says nothing about the pixels
        return 1


def _upright(pixels, orientation):
    turn = _UPRIGHT.get(orientation)
    return pixels if turn is None else turn(pixels)


# ---------------------------------------------------------------------------------------------
# Pillow images
# ---------------------------------------------------------------------------------------------


def _decode_pillow_image(image, max_pixels):
    with pillow_guard(b"", max_pixels):
        _check_size(*image.size, max_pixels)
        load_pillow(image)
        return _upright(_to_rgb_tensor(_pillow_pixels(image)), _orientation(image))


def _pillow_pixels(image):
    """Return uint8 (H, W) or (H, W, 3) of a Pillow image in any mode."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return (np.asarray(image) >> 8).astype(np.uint8)
    if image.mode == "I":
        raise UnreadableImageError(
            "pixels of 32-bit integers have no agreed white; save it with 8 or 16 bits"
        )
    if image.mode == "F":
        return _floats_to_uint8(np.asarray(image))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


# ---------------------------------------------------------------------------------------------
# Arrays and tensors
# ---------------------------------------------------------------------------------------------

_PIXEL_RULE = (
    "pixels are uint8 (0 to 255) or floats from 0 to 1. Hint: convert 0 to 255 with "
    "X.astype(np.uint8), True and False with X.astype(float)."
)


def _as_pixel_array(image):
    """Return the array (H, W) or (H, W, C) behind an image that is given as pixels."""
    if isinstance(image, torch.Tensor):
        return _tensor_to_array(image)
    if isinstance(image, np.ndarray):
        _check_image_shape(image)
        return image
    raise UnreadableImageError(
        f"{_describe(image)} is not an image; expected a path, encoded bytes, a PIL.Image, an "
        "array (H, W) or (H, W, C), or a torch tensor (C, H, W)"
    )


def _describe(thing):
    text = repr(thing)
    return f"{type(thing).__name__} {text[:60]}{'...' if len(text) > 60 else ''}"


def _tensor_to_array(tensor):
    if tensor.ndim != 3 or tensor.shape[0] not in _CHANNELS:
        raise UnreadableImageError(
            f"the tensor has shape {tuple(tensor.shape)}; expected (C, H, W) with C 1, 3 or 4"
        )
    if tensor.layout is not torch.strided or tensor.is_meta:
        raise UnreadableImageError("the tensor is sparse or has no memory; expected a dense one")
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg().permute(1, 2, 0)
    # numpy has no bfloat16, and no image needs more than float32.
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _check_image_shape(array):
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in _CHANNELS):
        return
    hint = ""
    if array.ndim == 3 and array.shape[0] in _CHANNELS:
        hint = "; the channels come last: image.transpose(1, 2, 0)"
    raise UnreadableImageError(
        f"the array has shape {array.shape}; expected (H, W) or (H, W, C) with C 1, 3 or 4{hint}"
    )


def _decode_pixels(array, max_pixels):
    height, width = array.shape[:2]
    _check_size(width, height, max_pixels)
    if array.dtype.kind == "f":
        array = _floats_to_uint8(array)
    elif array.dtype != np.uint8:
        raise UnreadableImageError(f"the array has dtype {array.dtype}; {_PIXEL_RULE}")
    return _to_rgb_tensor(array)


def _floats_to_uint8(array):
    low, high = array.min(), array.max()
    # Written so that NaN fails as well.
    if not (low >= -_FLOAT_SLACK and high <= 1 + _FLOAT_SLACK):
        raise UnreadableImageError(
            f"floats must lie in [0, 1], these run from {low:g} to {high:g}; rescale them: divide "
            "by 255 if they are 8-bit values, else by the largest value that they can take"
        )
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)


def _to_rgb_tensor(array):
    """Copy uint8 (H, W) or (H, W, C) into a tensor (3, H, W) with the strides of channels_last."""
    if array.ndim == 2:
        array = array[:, :, None]
    rgb = np.empty((*array.shape[:2], 3), dtype=np.uint8)
    rgb[...] = array[:, :, :3]  # one channel is repeated, a fourth (alpha) is dropped
    return torch.from_numpy(rgb).permute(2, 0, 1)


# ---------------------------------------------------------------------------------------------
# Fitting to a network
# ---------------------------------------------------------------------------------------------


def fit_to_network(pixels, preprocessing):
    """Resize a decoded image and cut out its centre, as a network wants it.

    The same as torchvision's ``ImageClassification`` preset up to normalisation, on uint8. The
    result does not depend on the number of threads.

    Parameters
    ----------
    pixels : torch.Tensor of shape (3, H, W) and dtype uint8
        As `decode_image` gives it.
    preprocessing : Preprocessing
        Its `image_size`, `resize_size` and `interpolation` are used. With a `resize_size`, the
        shorter side becomes that and the centre is cut out; with None, the whole image is
        squashed to a square.

    Returns
    -------
    torch.Tensor of shape (3, image_size, image_size) and dtype uint8
        With the strides of ``channels_last``.

    Raises
    ------
    UnreadableImageError
        If the image is so elongated that resizing it would need more than `MAX_PIXELS` pixels.

    Examples
    --------
    >>> import torch
    >>> from sktransfer.backbones import Preprocessing
    >>> from sktransfer.images import fit_to_network
    >>> preprocessing = Preprocessing(224, 256, "bilinear", (0.5,) * 3, (0.5,) * 3)
    >>> fit_to_network(torch.zeros(3, 300, 400, dtype=torch.uint8), preprocessing).shape
    torch.Size([3, 224, 224])
    """
    # As few operations as can be: with each of them the threads take turns.
    height, width = _resized_shape(*pixels.shape[1:], preprocessing)
    # Channels last is what the vectorised uint8 kernel of torch works on without repacking.
    batch = pixels[None].contiguous(memory_format=torch.channels_last)
    if pixels.shape[1:] != (height, width):
        batch = interpolate(
            batch,
            size=(height, width),
            mode=preprocessing.interpolation,
            align_corners=False,
            antialias=True,
        )
    return _centre(batch[0], preprocessing.image_size)


def _centre(pixels, side):
    """Cut out the centre, as torchvision's ``center_crop`` does."""
    height, width = pixels.shape[1:]
    if (height, width) == (side, side):
        return pixels
    if min(height, width) < side:  # it is padded
        return center_crop(pixels, [side, side]).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    top, left = round((height - side) / 2), round((width - side) / 2)
    # Whole lines of bytes: copying pixel by pixel takes thirty times as long.
    lines = pixels.permute(1, 2, 0).reshape(height, 3 * width)
    centre = lines[top : top + side, 3 * left : 3 * (left + side)].contiguous()
    return centre.view(side, side, 3).permute(2, 0, 1)


def _resized_shape(height, width, preprocessing):
    if preprocessing.resize_size is None:
        return preprocessing.image_size, preprocessing.image_size
    short, long = sorted((height, width))
    new_short = preprocessing.resize_size
    new_long = int(new_short * long / short)
    if new_short * new_long > MAX_PIXELS:
        raise UnreadableImageError(
            f"{width} x {height} pixels is too elongated to be resized to {new_short} on its "
            "shorter side; crop it first"
        )
    return (new_short, new_long) if height <= width else (new_long, new_short)
