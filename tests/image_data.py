"""Pixels and encoded images for the tests."""

import struct
import zlib
from io import BytesIO

import numpy as np
import torch
from PIL import Image

HEIGHT, WIDTH = 29, 43


def smooth_pixels(height=HEIGHT, width=WIDTH, seed=0):
    """Color pixels with some detail, as JPEG and resizing expect of photographs."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encode(image, format, **options):
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(width, height, *, depth=8, color=0, rows=b"", extra=b""):
    """Write a PNG by hand, for what Pillow does not write; without rows it is a mere header."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            extra,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def as_array(tensor):
    assert tensor.dtype == torch.uint8
    assert tensor.shape[0] == 3
    return tensor.permute(1, 2, 0).numpy()
