"""Augmented views: pictures that are made from a picture, the same ones each time.

A view is decided by the content of its picture, the policy, a seed and its number, and by nothing
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

from ._policy import transform_key
from ._store import digest_all
from .exceptions import UnreadableImage
from .images import LazyPicture, decode_image, digest_image, image_name

__all__ = ["Policy", "View", "ViewName", "check_policy", "make_views", "resolve_policy"]

#: Shorter side in pixels to which named policies shrink larger pictures before they start.
SHRUNK_SIDE = 800

#: Views of a real picture on which a policy of the user's own is tried.
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
# Policies
# ---------------------------------------------------------------------------------------------


class Shrink(v2.Transform):
    """Bring the shorter side of large pictures down to a number of pixels."""

    def __init__(self, side):
        super().__init__()
        self.side = side

    def transform(self, inpt, params):
        """Resize with antialiasing, or return a small picture as it is."""
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


#: What named policies do besides mirroring; the names mean the same in fine-tuning.
_STEPS = {
    "flip": (),
    "crop": (_region,),
    "color": (_region, _jitter),
    "auto": (_region, _trivial_augment),
}


@dataclass(frozen=True, eq=False)
class Policy:
    """What is done to a picture.

    Parameters
    ----------
    key : str
        Text that is equal only for policies that do the same.
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


def resolve_policy(policy):
    """Return what a name or a transform stands for.

    Parameters
    ----------
    policy : str, torch.nn.Module or None
        As in `AugmentedClassifier`.

    Returns
    -------
    Policy or None
        None where nothing is augmented.

    Raises
    ------
    ValueError
        If there is no policy of that name, or if no text tells what a transform does.
    TypeError
        If it is neither a name nor a transform.
    """
    if policy is None:
        return None
    if isinstance(policy, str):
        return _named_policy(policy)
    if not isinstance(policy, nn.Module):
        raise TypeError(
            f"policy is a {type(policy).__name__}; pass one of {list(_STEPS)}, a transform of "
            "torchvision.transforms.v2 (several of them as v2.Compose([...])), or None."
        )
    return Policy(transform_key(policy), policy, mirrored=False, own=True)


def _named_policy(name):
    if name not in _STEPS:
        near = get_close_matches(name, _STEPS, n=1)
        raise ValueError(
            f"policy={name!r} is not known; {f'did you mean {near[0]!r}? ' if near else ''}Use "
            f"one of {list(_STEPS)}, a transform of torchvision.transforms.v2, or None."
        )
    steps = [make() for make in _STEPS[name]]
    transform = v2.Compose([Shrink(SHRUNK_SIDE), *steps]) if steps else None
    return Policy(f"mirrored {transform!r}", transform, mirrored=True, own=False)


def check_policy(policy, pictures, seed, max_pixels):
    """Try a transform of the user's own on the first picture that can be read.

    Parameters
    ----------
    policy : Policy
        Which one.
    pictures : iterable
        Pictures of any kind.
    seed : int
        Seed of the views.
    max_pixels : int
        Larger pictures are passed over.

    Raises
    ------
    ValueError
        If the transform fails, gives no picture, or gives another one the second time.
    """
    for picture in pictures if policy.own else ():
        try:
            pixels = decode_image(picture, max_pixels)
        except UnreadableImage:
            continue
        _try_out(policy, pixels, seed)
        return


def _try_out(policy, pixels, seed):
    for number in range(1, _TRIALS + 1):
        try:
            first, second = (policy.apply(pixels.clone(), number, seed + number) for _ in "12")
        except Exception as error:
            raise ValueError(f"The policy {policy.transform!r} fails on a picture: {error}.") from (
                error
            )
        if not torch.equal(first, second):
            raise ValueError(
                f"The policy {policy.transform!r} made two different pictures of one. Views are "
                "made again and stored, so they must not change: draw random numbers by torch "
                "functions (torch.rand, torch.randint, ...), not by numpy or random, and keep no "
                "state."
            )


# ---------------------------------------------------------------------------------------------
# Views
# ---------------------------------------------------------------------------------------------


class ViewName(str):
    """Path of a view's picture, empty for one in memory; its ``row`` is that of the view.

    With this, whoever made the views can tell which picture an error is about, as positions in it
    count from the start of whatever fold was being embedded.
    """


@dataclass(frozen=True, eq=False, slots=True)
class View(LazyPicture):
    """One view of a picture; number 0 is the picture itself.

    Parameters
    ----------
    picture : str, os.PathLike, bytes, PIL.Image.Image, ndarray, torch.Tensor or LazyPicture
        What it is a view of.
    source : bytes or UnreadableImage
        Digest of the picture, or why it has none.
    policy : Policy or None
        What is done to it.
    seed : int
        Seed of all views.
    number : int
        Which view.
    row : int
        Row of the picture among those that views were made of; says which views belong together.
    """

    picture: object
    source: bytes | UnreadableImage
    policy: Policy | None
    seed: int
    number: int
    row: int

    @property
    def name(self):
        name = ViewName(image_name(self.picture) or "")
        name.row = self.row
        return name

    def digest(self):
        if isinstance(self.source, UnreadableImage):
            raise UnreadableImage(str(self.source))
        if self.number == 0:
            return self.source
        # Mirroring depends on no seed.
        seed = None if self.policy.transform is None else self.seed
        digest = blake2b(self.source, digest_size=20, person=b"view")
        digest.update(repr((self.policy.key, seed, self.number)).encode())
        return digest.digest()

    def decode(self, max_pixels):
        pixels = decode_image(self.picture, max_pixels, self._known_digest())
        if self.number == 0:
            return pixels
        seed = int.from_bytes(self.digest()[:8], "big") >> 1
        try:
            return self.policy.apply(pixels, self.number, seed)
        except Exception as error:
            raise UnreadableImage(f"the policy fails on it ({error})") from error

    def _known_digest(self):
        return self.source if isinstance(self.source, bytes) else None


def make_views(pictures, policy, n_views, seed, *, root, n_threads):
    """Make views of pictures, those of one picture next to each other.

    Parameters
    ----------
    pictures : list
        Pictures of any kind.
    policy : Policy
        What is done to them.
    n_views : int
        Views of each picture, itself included.
    seed : int
        Seed of the views.
    root : pathlib.Path or None
        Directory of the store, where digests of unchanged files are remembered.
    n_threads : int
        Threads that read and digest files.

    Returns
    -------
    ndarray of shape (len(pictures) * n_views,), dtype object
        Views 0 to n_views - 1 of the first picture, then those of the second, and so on.
    """
    digests = digest_all(pictures, digest_image, root=root, n_threads=n_threads)
    views = (
        View(picture, digest, policy, seed, policy.canonical(number), row)
        for row, (picture, digest) in enumerate(zip(pictures, digests, strict=True))
        for number in range(n_views)
    )
    return np.fromiter(views, dtype=object, count=len(pictures) * n_views)
