"""Decoding one image of any kind to pixels."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .._utils._fork import IMPORTING
from .._utils._threads import import_torch, usable_kernels
from ..exceptions import UnreadableImageError
from ._containers import MAX_PIXELS, as_pixel_array, is_path, unwrap
from ._diagnosis import HEIC, diagnose_decoding, too_many_pixels
from ._digests import digest_bytes
from ._files import read_file
from ._pillow import load_image, orientation, quiet_pillow

if TYPE_CHECKING:
    import torch

# Interpolation and float arithmetic leave values like 1.0000002, which are harmless.
_FLOAT_SLACK = 1e-5
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
# Pillow passes these to an interpreter (Ghostscript, GDI), which an image must not reach.
_DRAWING_FORMATS = ("EPS", "WMF")
_RGB_MODE = 3  # torchvision.io.ImageReadMode.RGB; that module is deprecated, its operators are not


@usable_kernels()
def decode_image(
    image: Any,
    max_pixels: int = MAX_PIXELS,
    expected_digest: bytes | None = None,
    min_side: int | None = None,
) -> torch.Tensor:
    """Decode one image to upright RGB.

    EXIF orientation is applied. Gray, palette and CMYK become RGB; 16 bits are scaled to 8; alpha
    is dropped, as ``PIL.Image.Image.convert("RGB")`` does; an animation gives its first frame. HEIC
    needs the extra ``heic``.

    Parameters
    ----------
    image : str, os.PathLike, bytes, PIL.Image.Image, ndarray, torch.Tensor or dict
        One image, see :func:`check_images`.
    max_pixels : int, default=100_000_000
        An image with more pixels (height x width) is refused before it is decoded.
    expected_digest : bytes or None, default=None
        Digest of the encoded bytes of a path. If given, a file with other content is refused.
    min_side : int or None, default=None
        If given, a JPEG is decoded at the smallest of 1/8, 1/4, 1/2 and 1/1 of its size whose
        shorter side has at least this many pixels. This takes a fraction of the time.

    Returns
    -------
    torch.Tensor of shape (3, H, W) and dtype uint8
        The pixels, a copy. Usually with the strides of ``channels_last``.

    Raises
    ------
    UnreadableImageError
        If the image cannot be read; the message is the reason.
    TypeError, ValueError
        If another argument is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.images import decode_image
    >>> decode_image(np.full((32, 48), 0.5)).shape
    torch.Size([3, 32, 48])
    """
    if not (isinstance(max_pixels, Real) and max_pixels >= 1):
        raise ValueError(f"max_pixels={max_pixels!r}: expected a number of pixels, at least 1.")
    if not isinstance(expected_digest, bytes | None):
        raise TypeError(
            f"expected_digest={expected_digest!r} is a {type(expected_digest).__name__}; pass the "
            "bytes of a digest, or None."
        )
    if not (min_side is None or (isinstance(min_side, Integral) and min_side >= 1)):
        raise ValueError(f"min_side={min_side!r}: expected None or a whole number of pixels.")
    data = b""
    try:
        image = unwrap(image)
        if is_path(image):
            data = read_file(image)
            if expected_digest is not None and digest_bytes(data) != expected_digest:
                raise UnreadableImageError(
                    "the file changed during the call; do not change it, and run again"
                )
            return _decode_encoded(data, max_pixels, min_side)
        if isinstance(image, (bytes, bytearray, memoryview)):
            data = bytes(image)
            return _decode_encoded(data, max_pixels, min_side)
        if isinstance(image, Image.Image):
            with quiet_pillow():
                _check_size(*image.size, max_pixels)
                load_image(image)
                return _upright(_to_rgb_tensor(_pillow_pixels(image)), image)
        array = as_pixel_array(image)
        _check_size(array.shape[1], array.shape[0], max_pixels)
        return _to_rgb_tensor(array if array.dtype == np.uint8 else _floats_to_uint8(array))
    except UnreadableImageError:
        raise
    except Exception as error:
        raise UnreadableImageError(diagnose_decoding(error, data, max_pixels)) from error


def _decode_encoded(data, max_pixels, min_side):
    torch = import_torch()
    with quiet_pillow():
        if data[4:12] in HEIC and find_spec("pillow_heif"):
            import_module("pillow_heif").register_heif_opener()
        header = Image.open(BytesIO(data))
        if header.format in _DRAWING_FORMATS:
            raise UnreadableImageError(
                f"{header.format} is a drawing; save it as PNG and pass that"
            )
        _check_size(*header.size, max_pixels)
        pixels = None
        # MPO is Pillow's name for a JPEG of several images, as phones write them. Only JPEG: on
        # damaged PNG files torchvision's decoder ends the process, and for WebP it is not faster.
        is_jpeg = header.format in ("JPEG", "MPO") and header.mode in ("L", "RGB")
        if is_jpeg and min_side and min(header.size) >= 2 * min_side:
            header.draft(None, (min_side, min_side))  # libjpeg computes fewer frequencies
        elif is_jpeg:
            with IMPORTING:
                import torchvision  # noqa: F401  (registers its decoders)
            # Without this decoder, and for damaged files: Pillow decodes, or says what is wrong.
            with suppress(RuntimeError, AttributeError):
                encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
                pixels = torch.ops.image.decode_jpeg(encoded, _RGB_MODE)
        if pixels is None:
            pixels = _to_rgb_tensor(_pillow_pixels(header))
        return _upright(pixels, header)


def _check_size(width, height, max_pixels):
    if width < 1 or height < 1:
        raise UnreadableImageError(f"it has no pixels ({width} x {height})")
    if width * height > max_pixels:
        size = f"its size of {width:,} x {height:,} pixels"
        raise UnreadableImageError(too_many_pixels(size, max_pixels))


def _upright(pixels, image):
    turn = _UPRIGHT.get(orientation(image))
    return pixels if turn is None else turn(pixels)


def _pillow_pixels(image):
    """Return uint8 (H, W) or (H, W, 3) of a Pillow image in any mode."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return (np.asarray(image) >> 8).astype(np.uint8)
    if image.mode == "I":
        raise UnreadableImageError(
            "the range of 32-bit integer pixels is unknown; save it with 8 or 16 bits"
        )
    if image.mode == "F":
        return _floats_to_uint8(np.asarray(image))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _floats_to_uint8(array):
    low, high = array.min(), array.max()
    if np.isnan(low):
        raise UnreadableImageError(
            "it has NaN pixels; replace them, for example with np.nan_to_num(image)"
        )
    if low < -_FLOAT_SLACK or high > 1 + _FLOAT_SLACK:
        raise UnreadableImageError(
            f"floats must lie in [0, 1], these range from {low:g} to {high:g}; rescale them: "
            "divide 8-bit values by 255, others by their largest possible value"
        )
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)


def _to_rgb_tensor(array):
    """Copy uint8 (H, W) or (H, W, C) into a tensor (3, H, W) with the strides of channels_last."""
    torch = import_torch()
    if array.ndim == 2:
        array = array[:, :, None]
    rgb = np.empty((*array.shape[:2], 3), dtype=np.uint8)
    rgb[...] = array[:, :, :3]  # one channel is repeated, a fourth (alpha) is dropped
    return torch.from_numpy(rgb).permute(2, 0, 1)
