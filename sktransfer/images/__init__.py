"""What an image may be: checking, digests, decoding, resizing."""

from ._images import (
    MAX_PIXELS,
    LazyImage,
    check_images,
    decode_image,
    digest_image,
    fit_to_network,
    image_name,
)

__all__ = [
    "MAX_PIXELS",
    "LazyImage",
    "check_images",
    "decode_image",
    "digest_image",
    "fit_to_network",
    "image_name",
]
