"""Views: augmented versions of an image that are the same in every process."""

from contextlib import suppress
from hashlib import blake2b

import torch
from torch import Tensor

from .._utils._lru import LRU
from .._utils._threads import usable_kernels
from ..exceptions import UnreadableImageError
from ..images import decode_image
from ._random import SeededRandomness

#: Views on which a custom transform is tried.
_N_TRIALS = 8

#: Keys of custom transforms that passed `check_augmentation`.
_checked = LRU(max_items=64)


class Views:
    """The views of each image: view 0 is the image, an `Augmentation` makes the others."""

    def __init__(self, augmentation, n_views, seed):
        self.augmentation, self.n_views, self.seed = augmentation, n_views, seed

    def __len__(self):
        return self.n_views

    def digest(self, image_digest, number):
        """Return the 20 bytes that identify a view; those of the image for view 0."""
        seed = self.seed
        if self.augmentation.transform is None:  # mirroring has two views and needs no seed
            number, seed = number % 2, None
        if number == 0:
            return image_digest
        digest = blake2b(image_digest, digest_size=20, person=b"view")
        digest.update(repr((self.augmentation.key, seed, number)).encode())
        return digest.digest()

    def apply(self, pixels, image_digest, number):
        """Turn the pixels of an image into those of a view, both uint8 of shape (3, H, W)."""
        if number == 0:
            return pixels
        if self.augmentation.transform is not None:
            seed = int.from_bytes(self.digest(image_digest, number)[:8], "big") >> 1
            try:
                with SeededRandomness(seed):
                    pixels = self.augmentation.transform(pixels)
                _check_pixels(pixels)
            except Exception as error:
                raise UnreadableImageError(f"the augmentation fails on it ({error})") from error
        return pixels.flip(-1) if self.augmentation.mirrors and number % 2 else pixels


def _check_pixels(pixels):
    if not isinstance(pixels, Tensor):
        found = type(pixels).__name__
    elif pixels.dtype == torch.uint8 and pixels.ndim == 3 and len(pixels) == 3 and pixels.numel():
        return
    else:
        found = f"{pixels.dtype} of shape {tuple(pixels.shape)}"
    raise ValueError(
        f"it turns a uint8 tensor of shape (3, H, W) into {found}; expected another uint8 tensor "
        "of shape (3, H, W). Leave out ToDtype, Normalize and ToPILImage: the embedder does what "
        "the network needs"
    )


def check_augmentation(augmentation, images, max_pixels):
    """Try a custom transform on the first readable image, once in each process."""
    if augmentation.custom:
        with usable_kernels():
            _checked.get(augmentation.key, lambda: _try_out(augmentation, images, max_pixels))


def _try_out(augmentation, images, max_pixels):
    views = Views(augmentation, _N_TRIALS + 1, seed=0)
    for image in images:
        with suppress(UnreadableImageError):
            pixels = decode_image(image, max_pixels)
            break
    else:
        return
    for number in range(1, len(views)):
        try:
            first, second = (views.apply(pixels.clone(), b"", number) for _ in range(2))
        except UnreadableImageError as error:
            raise ValueError(
                f"The augmentation {augmentation.transform!r} fails on an image: {error.__cause__}."
            ) from error.__cause__
        if not torch.equal(first, second):
            raise ValueError(
                f"The augmentation {augmentation.transform!r} returns two different images for "
                "the same random numbers. Views are cached, so they must not change: draw random "
                "numbers with torch functions (torch.rand, torch.randint, ...) instead of numpy "
                "or random, and keep no state between calls."
            )
