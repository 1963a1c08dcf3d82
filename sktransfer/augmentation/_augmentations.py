"""Augmentations: random changes that keep the class of an image."""

from difflib import get_close_matches
from typing import NamedTuple

from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from .._utils._hashing import hash_value

#: Named augmentations first shrink larger images to this shorter side, in pixels.
SHRUNK_SIDE = 800


class Shrink(v2.Transform):
    """Resize large images so that the shorter side has ``side`` pixels."""

    def __init__(self, side):
        super().__init__()
        self.side = side

    def transform(self, inpt, params):
        """Resize with antialiasing, or return a small image unchanged."""
        return F.resize(inpt, [self.side]) if min(inpt.shape[-2:]) > self.side else inpt


class RandomRegion(v2.RandomResizedCrop):
    """Crop a random region; the network's preprocessing resizes it."""

    def __init__(self, scale, ratio):
        super().__init__(size=1, scale=scale, ratio=ratio)

    def transform(self, inpt, params):
        """Crop without resizing."""
        return F.crop(inpt, **params)


def _crop():
    return RandomRegion(scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3))


#: What each named augmentation does besides mirroring every second view.
_STEPS = {
    "flip": lambda: [],
    "crop": lambda: [_crop()],
    "color": lambda: [_crop(), v2.ColorJitter(0.3, 0.3, 0.3, hue=0.05)],
    "auto": lambda: [_crop(), v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)],
}


class Augmentation(NamedTuple):
    """A resolved `augmentation` parameter."""

    key: str  # equal only for augmentations that do the same
    transform: nn.Module | None  # of every view but the first
    mirrors: bool  # whether every second view is mirrored left to right
    custom: bool  # whether the transform is the user's


def resolve_augmentation(augmentation):
    """Return the `Augmentation` that a name or a transform stands for."""
    if not isinstance(augmentation, str):
        try:
            return Augmentation(hash_value(augmentation), augmentation, mirrors=False, custom=True)
        except ValueError as error:
            raise ValueError(
                f"The augmentation {augmentation!r} cannot be cached: {error}. Replace lambdas, "
                "local functions and local classes by a class at the top level of a module, "
                "class MyTransform(v2.Transform), whose attributes are numbers, strings, arrays, "
                "tensors or transforms."
            ) from None
    if augmentation not in _STEPS:
        near = get_close_matches(augmentation, _STEPS, n=1)
        raise ValueError(
            f"augmentation={augmentation!r} is unknown"
            f"{f'; did you mean {near[0]!r}?' if near else '.'} Use one of {list(_STEPS)}, or a "
            "transform of torchvision.transforms.v2."
        )
    steps = _STEPS[augmentation]()
    transform = v2.Compose([Shrink(SHRUNK_SIDE), *steps]) if steps else None
    return Augmentation(f"mirrored {transform!r}", transform, mirrors=True, custom=False)
