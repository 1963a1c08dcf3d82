"""Random changes to pictures by name, and views that depend on a seed alone."""

import difflib
import threading

import torch
from torchvision.transforms import v2

__all__ = ["POLICIES", "draw_view", "make_policy", "policy_key"]

# torchvision's transforms draw from torch's global generator: one view at a time may seed it.
_drawing = threading.RLock()


def _flip(image_size):
    return [v2.RandomHorizontalFlip()]


def _crop(image_size):
    crop = v2.RandomResizedCrop(image_size, scale=(0.5, 1.0), antialias=True)
    return [*_flip(image_size), crop]


def _color(image_size):
    jitter = v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05)
    return [*_crop(image_size), jitter]


def _auto(image_size):
    return [*_crop(image_size), v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)]


#: Policies by name; each but the first adds to one before it.
POLICIES = {"flip": _flip, "crop": _crop, "color": _color, "auto": _auto}


def make_policy(policy, image_size):
    """Return the transform that a policy stands for.

    Parameters
    ----------
    policy : {"flip", "crop", "color", "auto"} or callable
        "flip" mirrors every other picture; "crop" also cuts out a rectangle of half the area or
        more; "color" also changes brightness, contrast, saturation and hue; "auto" is "crop" and
        one random change of torchvision's ``TrivialAugmentWide``. Anything else is a transform of
        :mod:`torchvision.transforms.v2`, or any function, that takes and returns a uint8 tensor
        of shape (3, H, W).
    image_size : int
        Side in pixels of what "crop" and those after it return.

    Returns
    -------
    callable
        uint8 (3, H, W) to uint8 (3, H', W').

    Raises
    ------
    ValueError
        There is no policy of that name.
    """
    if callable(policy):
        return policy
    if policy not in POLICIES:
        close = difflib.get_close_matches(str(policy), POLICIES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"policy={policy!r} is not known; use one of {list(POLICIES)}, a transform of "
            f"torchvision.transforms.v2, or None.{hint}"
        )
    return v2.Compose(POLICIES[policy](image_size))


def policy_key(policy):
    """Return a text that is equal in all processes for policies that do the same.

    The text of a torchvision transform tells its parameters; that of another function is its name.
    """
    if isinstance(policy, str) or policy is None:
        return str(policy)
    if isinstance(policy, torch.nn.Module):
        return f"{type(policy).__module__}.{policy!r}"
    kind = policy if hasattr(policy, "__qualname__") else type(policy)
    return f"{kind.__module__}.{kind.__qualname__}"


def draw_view(transform, image, seed):
    """Return one random view of a picture, the same for the same seed.

    Parameters
    ----------
    transform : callable
        As :func:`make_policy` returns it.
    image : torch.Tensor of shape (3, H, W) and dtype uint8
        The picture; it is not changed.
    seed : int
        From 0 to 2**63 - 1. The caller's own random state stays as it is.

    Returns
    -------
    torch.Tensor of shape (3, H', W') and dtype uint8
        The view.
    """
    with _drawing, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        view = transform(image)
    return _checked(view, transform)


def _checked(view, transform):
    """Refuse what is no picture: a transform may be anybody's."""
    if torch.is_tensor(view) and view.dtype == torch.uint8 and view.ndim == 3 and len(view) == 3:
        return view
    got = (
        f"{view.dtype} {tuple(view.shape)}" if torch.is_tensor(view) else f"a {type(view).__name__}"
    )
    raise ValueError(
        f"The policy {type(transform).__name__} returned {got}; a picture is a uint8 tensor of "
        "shape (3, H, W). Hint: leave out ToDtype and Normalize, which the backbone brings."
    )
