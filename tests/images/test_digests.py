"""Digests: equal for equal content, different for all else."""

import numpy as np
import torch
from image_data import HEIGHT, WIDTH, encode, smooth_pixels
from PIL import Image

from sktransfer.images import digest_image


def test_a_path_and_its_bytes_have_one_digest(tmp_path):
    data = encode(Image.fromarray(smooth_pixels()), "JPEG")
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    digests = {digest_image(each) for each in (path, str(path), data, bytearray(data))}
    assert [len(digest) for digest in digests] == [20]


def test_digests_tell_pixels_shapes_dtypes_and_kinds_apart():
    pixels = smooth_pixels()
    changed = pixels.copy()
    changed[3, 4, 1] ^= 1
    palette = Image.fromarray(pixels[..., 0], "L").convert("P")
    recolored = palette.copy()
    recolored.putpalette([1, 2, 3] * 256)
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 6
    different = [
        pixels,
        changed,
        pixels.transpose(1, 0, 2),
        pixels.reshape(WIDTH, HEIGHT, 3),
        pixels.astype(np.float32) / 255,
        pixels.astype(np.float64) / 255,
        pixels.tobytes(),
        Image.fromarray(pixels),
        turned,
        palette,
        recolored,
    ]
    assert len({digest_image(each) for each in different}) == len(different)


def test_equal_pixels_have_equal_digests_however_they_lie_in_memory():
    pixels = smooth_pixels()
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    same = [
        pixels,
        np.asfortranarray(pixels),
        pixels[::-1].copy()[::-1],
        tensor,
        tensor.contiguous(),
    ]
    assert len({digest_image(each) for each in same}) == 1
