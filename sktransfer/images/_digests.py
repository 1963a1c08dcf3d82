"""Digests of the content of images: the keys of everything that is cached."""

from hashlib import blake2b

import numpy as np
from PIL import Image

from ..exceptions import UnreadableImageError
from ._containers import as_pixel_array, is_path, unwrap
from ._diagnosis import diagnose_decoding
from ._files import read_file
from ._pillow import load_image, orientation, quiet_pillow

_DIGEST_SIZE = 20


def digest_image(image):
    """Return 20 bytes of BLAKE2b over encoded bytes, or over pixels and what they mean."""
    try:
        image = unwrap(image)
        if is_path(image):
            return digest_bytes(read_file(image))
        if isinstance(image, (bytes, bytearray, memoryview)):
            return digest_bytes(bytes(image))
        if isinstance(image, Image.Image):
            with quiet_pillow():
                load_image(image)
                palette = bytes(image.palette.palette) if image.palette else b""
                parts = image.mode, image.size, orientation(image), palette, image.tobytes()
            return _digest_parts(b"pillow", *parts)
        pixels = as_pixel_array(image)
        return _digest_parts(b"array", pixels.dtype.str, pixels.shape, np.ascontiguousarray(pixels))
    except UnreadableImageError:
        raise
    except Exception as error:
        raise UnreadableImageError(diagnose_decoding(error)) from error


def digest_bytes(data):
    """Digest the bytes of an encoded image."""
    return blake2b(data, digest_size=_DIGEST_SIZE).digest()


def _digest_parts(kind, *parts):
    # The kind distinguishes pixels from a file with the same bytes.
    digest = blake2b(digest_size=_DIGEST_SIZE, person=kind)
    for part in parts:
        digest.update(part if isinstance(part, (bytes, np.ndarray)) else repr(part).encode())
        digest.update(b"\0")
    return digest.digest()
