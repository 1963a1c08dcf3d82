"""Augmented views: images that are made from an image, the same ones each time.

A view is decided by the content of its image, the augmentation, a seed and its number, and by nothing
else. It draws its random numbers from a generator of its own, so that threads, other users of
torch's global generator and the order of work change nothing, and nothing changes for them.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from ..exceptions import UnreadableImageError
from ..images import LazyImage, decode_image, digest_images, image_name
from ._transforms import transform_key

__all__ = [
    "Augmentation",
    "View",
    "ViewName",
    "check_augmentation",
    "make_views",
    "resolve_augmentation",
]

#: Shorter side in pixels to which named augmentations shrink larger images before they start.
SHRUNK_SIDE = 800

#: Views of a real image on which an augmentation of the user's own is tried.
_TRIALS = 8


# ---------------------------------------------------------------------------------------------
# Random numbers
# ---------------------------------------------------------------------------------------------

_DRAWS = {
    torch.rand,
    torch.randn,
    torch.randint,
    torch.randperm,
    torch.normal,
    torch.bernoulli,
    torch.multinomial,
    torch.poisson,
    torch._sample_dirichlet,  # AugMix draws by this one
    Tensor.uniform_,
    Tensor.normal_,
    Tensor.random_,
    Tensor.bernoulli,
    Tensor.bernoulli_,
    Tensor.exponential_,
    Tensor.geometric_,
    Tensor.log_normal_,
    Tensor.cauchy_,
    Tensor.multinomial,
}
# These take no generator in every version of torch.
_DRAWS_LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}


class OwnRandomness(TorchFunctionMode):
    """Inside, and in this thread only, torch draws from a generator of its own.

    Parameters
    ----------
    seed : int
        Seed of the generator, from 0 to 2**63 - 1.
    """

    def __init__(self, seed):
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in _DRAWS_LIKE:
            like, *rest = args
            kwargs.setdefault("dtype", like.dtype)
            func, args = _DRAWS_LIKE[func], (like.shape, *rest)
        if func in _DRAWS or func in _DRAWS_LIKE.values():
            kwargs.setdefault("generator", self._generator)
        return func(*args, **kwargs)


# ---------------------------------------------------------------------------------------------
# Augmentations
# ---------------------------------------------------------------------------------------------


class Shrink(v2.Transform):
    """Bring the shorter side of large images down to a number of pixels."""

    def __init__(self, side):
        super().__init__()
        self.side = side

    def transform(self, inpt, params):
        """Resize with antialiasing, or return a small image as it is."""
        return F.resize(inpt, [self.side]) if min(inpt.shape[-2:]) > self.side else inpt


class RandomRegion(v2.RandomResizedCrop):
    """Cut out a random part and leave resizing to the network's own preprocessing."""

    def __init__(self, scale, ratio):
        super().__init__(size=1, scale=scale, ratio=ratio)

    def transform(self, inpt, params):
        """Cut out."""
        return F.crop(inpt, **params)


def _region():
    return RandomRegion(scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3))


def _jitter():
    return v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05)


def _trivial_augment():
    return v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)


#: What named augmentations do besides mirroring; the names mean the same in fine-tuning.
_STEPS = {
    "flip": (),
    "crop": (_region,),
    "color": (_region, _jitter),
    "auto": (_region, _trivial_augment),
}


@dataclass(frozen=True, eq=False)
class Augmentation:
    """What is done to an image.

    Parameters
    ----------
    key : str
        Text that is equal only for augmentations that do the same.
    transform : torch.nn.Module or None
        Applied to every view but the first; None does nothing.
    mirrored : bool
        Whether every second view is mirrored left to right.
    own : bool
        Whether the transform is the user's.
    """

    key: str
    transform: nn.Module | None
    mirrored: bool
    own: bool

    def canonical(self, number):
        """Number of the first view that is the same as view ``number``."""
        return number if self.transform is not None else number % 2

    def apply(self, pixels, number, seed):
        """Make pixels of view ``number``, drawing from a generator with this seed."""
        if self.transform is not None:
            with OwnRandomness(seed):
                pixels = self.transform(pixels)
            _check_pixels(pixels)
        return pixels.flip(-1) if self.mirrored and number % 2 else pixels


def _check_pixels(pixels):
    good = (
        isinstance(pixels, Tensor)
        and pixels.dtype == torch.uint8
        and pixels.ndim == 3
        and pixels.shape[0] == 3
        and pixels.numel()
    )
    if not good:
        what = (
            f"{pixels.dtype} of shape {tuple(pixels.shape)}"
            if isinstance(pixels, Tensor)
            else type(pixels).__name__
        )
        raise ValueError(
            f"it made {what} of a uint8 tensor (3, H, W), and pixels must stay that. Hint: leave "
            "out ToDtype, Normalize and ToPILImage; the embedder does what its network needs"
        )


def resolve_augmentation(augmentation):
    """Return what a name or a transform stands for.

    Parameters
    ----------
    augmentation : str, torch.nn.Module or None
        As in `AugmentedClassifier`.

    Returns
    -------
    Augmentation or None
        None where nothing is augmented.

    Raises
    ------
    ValueError
        If there is no augmentation of that name, or if no text tells what a transform does.
    TypeError
        If it is neither a name nor a transform.
    """
    if augmentation is None:
        return None
    if isinstance(augmentation, str):
        return _named_augmentation(augmentation)
    if not isinstance(augmentation, nn.Module):
        raise TypeError(
            f"augmentation is a {type(augmentation).__name__}; pass one of {list(_STEPS)}, a transform of "
            "torchvision.transforms.v2 (several of them as v2.Compose([...])), or None."
        )
    return Augmentation(transform_key(augmentation), augmentation, mirrored=False, own=True)


def _named_augmentation(name):
    if name not in _STEPS:
        near = get_close_matches(name, _STEPS, n=1)
        raise ValueError(
            f"augmentation={name!r} is not known; {f'did you mean {near[0]!r}? ' if near else ''}Use "
            f"one of {list(_STEPS)}, a transform of torchvision.transforms.v2, or None."
        )
    steps = [make() for make in _STEPS[name]]
    transform = v2.Compose([Shrink(SHRUNK_SIDE), *steps]) if steps else None
    return Augmentation(f"mirrored {transform!r}", transform, mirrored=True, own=False)


def check_augmentation(augmentation, images, seed, max_pixels):
    """Try a transform of the user's own on the first image that can be read.

    Parameters
    ----------
    augmentation : Augmentation
        Which one.
    images : iterable
        Images of any kind.
    seed : int
        Seed of the views.
    max_pixels : int
        Larger images are passed over.

    Raises
    ------
    ValueError
        If the transform fails, gives no image, or gives another one the second time.
    """
    for image in images if augmentation.own else ():
        try:
            pixels = decode_image(image, max_pixels)
        except UnreadableImageError:
            continue
        _try_out(augmentation, pixels, seed)
        return


def _try_out(augmentation, pixels, seed):
    for number in range(1, _TRIALS + 1):
        try:
            first, second = (
                augmentation.apply(pixels.clone(), number, seed + number) for _ in "12"
            )
        except Exception as error:
            raise ValueError(
                f"The augmentation {augmentation.transform!r} fails on an image: {error}."
            ) from (error)
        if not torch.equal(first, second):
            raise ValueError(
                f"The augmentation {augmentation.transform!r} made two different images of one. Views are "
                "made again and stored, so they must not change: draw random numbers by torch "
                "functions (torch.rand, torch.randint, ...), not by numpy or random, and keep no "
                "state."
            )


# ---------------------------------------------------------------------------------------------
# Views
# ---------------------------------------------------------------------------------------------


class ViewName(str):
    """Path of a view's image, empty for one in memory; its ``row`` is that of the view.

    With this, whoever made the views can tell which image an error is about, as positions in it
    count from the start of whatever fold was being embedded.
    """


@dataclass(frozen=True, eq=False, slots=True)
class View(LazyImage):
    """One view of an image; number 0 is the image itself.

    Parameters
    ----------
    image : str, os.PathLike, bytes, PIL.Image.Image, ndarray, torch.Tensor or LazyImage
        What it is a view of.
    source : bytes or UnreadableImageError
        Digest of the image, or why it has none.
    augmentation : Augmentation or None
        What is done to it.
    seed : int
        Seed of all views.
    number : int
        Which view.
    row : int
        Row of the image among those that views were made of; says which views belong together.
    """

    image: object
    source: bytes | UnreadableImageError
    augmentation: Augmentation | None
    seed: int
    number: int
    row: int

    @property
    def name(self):
        name = ViewName(image_name(self.image) or "")
        name.row = self.row
        return name

    def digest(self):
        if isinstance(self.source, UnreadableImageError):
            raise UnreadableImageError(str(self.source))
        if self.number == 0:
            return self.source
        # Mirroring depends on no seed.
        seed = None if self.augmentation.transform is None else self.seed
        digest = blake2b(self.source, digest_size=20, person=b"view")
        digest.update(repr((self.augmentation.key, seed, self.number)).encode())
        return digest.digest()

    def decode(self, max_pixels):
        pixels = decode_image(self.image, max_pixels, self._known_digest())
        if self.number == 0:
            return pixels
        seed = int.from_bytes(self.digest()[:8], "big") >> 1
        try:
            return self.augmentation.apply(pixels, self.number, seed)
        except Exception as error:
            raise UnreadableImageError(f"the augmentation fails on it ({error})") from error

    def _known_digest(self):
        return self.source if isinstance(self.source, bytes) else None


def make_views(images, augmentation, n_views, seed, *, root, n_threads):
    """Make views of images, those of one image next to each other.

    Parameters
    ----------
    images : list
        Images of any kind.
    augmentation : Augmentation
        What is done to them.
    n_views : int
        Views of each image, itself included.
    seed : int
        Seed of the views.
    root : pathlib.Path or None
        Directory of the store, where digests of unchanged files are remembered.
    n_threads : int
        Threads that read and digest files.

    Returns
    -------
    ndarray of shape (len(images) * n_views,), dtype object
        Views 0 to n_views - 1 of the first image, then those of the second, and so on.
    """
    digests = digest_images(images, root, n_threads)
    views = (
        View(image, digest, augmentation, seed, augmentation.canonical(number), row)
        for row, (image, digest) in enumerate(zip(images, digests, strict=True))
        for number in range(n_views)
    )
    return np.fromiter(views, dtype=object, count=len(images) * n_views)
