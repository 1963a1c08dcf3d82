"""Augmentations by name and of the user, their cache keys, and what is refused."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from new_process import run
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn
from torchvision.transforms import v2

from sktransfer import ImageEmbedder, make_transfer_pipeline
from sktransfer.augmentation import _views, resolve_augmentation
from sktransfer.datasets import make_shapes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(n_samples=24, random_state=0)


class Held(v2.Transform):
    """A transform with an attribute of any kind."""

    def __init__(self, held):
        super().__init__()
        self.held = held

    def transform(self, inpt, params):
        return inpt


RED, BLUE = {torch.Tensor: (255, 0, 0)}, {torch.Tensor: (0, 0, 255)}

#: What makes a transform, and two values that make different ones.
DIFFERENT = {
    "chance": (lambda p: v2.RandomApply([v2.RandomRotation(9)], p=p), 0.2, 0.9),
    "fill": (lambda fill: v2.RandomAffine(20, fill=fill), RED, BLUE),
    "padding": (lambda fill: v2.Pad(4, fill=fill), RED, BLUE),
    "mode": (lambda mode: v2.Pad(4, padding_mode=mode), "edge", "reflect"),
    "function": (v2.Lambda, v2.functional.invert, v2.functional.equalize),
    "tensor": (Held, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])),
    "array": (Held, np.zeros((2, 3)), np.zeros((3, 2))),
    "objects": (Held, np.array([1, "a"], object), np.array([1, "b"], object)),
    "number": (Held, np.float32(0.5), np.float32(0.6)),
    "type": (Held, torch.uint8, torch.int8),
    "set": (Held, {"a", "b"}, {"a", "c"}),
    "member": (Held, v2.InterpolationMode.BILINEAR, v2.InterpolationMode.BICUBIC),
    "deep": (Held, {"a": [None, {"b": (1,)}]}, {"a": [None, {"b": (2,)}]}),
    "weight": (Held, nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2))),
}

NESTED = {
    "alone": lambda transform: transform,
    "composed": lambda transform: v2.Compose([v2.RandomHorizontalFlip(), transform]),
    "chosen": lambda transform: v2.RandomChoice([v2.RandomHorizontalFlip(), transform]),
    "ordered": lambda transform: v2.RandomOrder([transform, v2.RandomHorizontalFlip()]),
    "listed": lambda transform: v2.RandomApply(nn.ModuleList([transform])),
}


@pytest.mark.parametrize("nest", NESTED.values(), ids=NESTED)
@pytest.mark.parametrize("case", DIFFERENT)
def test_augmentations_that_differ_share_no_views(case, nest):
    make, one, other = DIFFERENT[case]
    key = resolve_augmentation(nest(make(one))).key
    assert key == resolve_augmentation(nest(make(deepcopy(one)))).key
    assert key != resolve_augmentation(nest(make(other))).key


def test_a_key_is_the_same_in_each_process():
    code = """
import torch
from torchvision.transforms import v2
from sktransfer.augmentation import resolve_augmentation
held = v2.RandomRotation(5)
held.names = set("abcdefghij")
parts = [v2.RandomAffine(9, fill={torch.Tensor: 3}), v2.AutoAugment()]
custom = v2.Compose([held, v2.RandomApply(parts)])
keys = [resolve_augmentation(a).key for a in ("flip", "crop", "color", "auto", custom)]
"""
    here = {}
    exec(code, here)
    run(code + "assert keys == expected", expected=here["keys"])


# --------------------------------------------------------------------------------------------
# As a parameter of an estimator
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", [v2.RandomCrop(30), v2.ColorJitter(0.1)])
def test_a_transform_with_a_get_params_of_another_meaning(shapes, augmentation):
    model = make_transfer_pipeline(augmentation=augmentation, n_views=2, image_size=32)
    assert type(augmentation).__name__ in repr(model)
    copy = clone(model).set_params(embedder__n_views=3, head__estimator__max_epochs=1)
    found = copy.get_params()["embedder__augmentation"]
    assert repr(found) == repr(augmentation) and found is not augmentation
    assert copy["embedder"].get_params(deep=False)["n_views"] == 3
    grid = {"embedder__augmentation": [v2.Compose([augmentation])], "embedder__n_views": [2]}
    GridSearchCV(copy, grid, cv=2, error_score="raise").fit(shapes.data, shapes.target)


class NumpyNoise(v2.Transform):
    def transform(self, inpt, params):
        return torch.from_numpy(np.random.randint(0, 255, inpt.shape, dtype=np.uint8))


class Counter(v2.Transform):
    """Keeps state between calls."""

    def __init__(self):
        super().__init__()
        self.n_calls = 0

    def transform(self, inpt, params):
        self.n_calls += 1
        return inpt + self.n_calls


def local_transform():
    class Local(v2.Transform):
        pass

    return Local()


WRONG = {
    "near": ("flipp", r"unknown; did you mean 'flip'\? Use one of"),
    "unknown": ("mixup", r"unknown\. Use one of"),
    "list": ([v2.RandomRotation(3)], "'augmentation' parameter"),
    "lambda": (v2.Lambda(lambda x: x), "Lambda.* cannot be cached: .*lambda.* class MyTransform"),
    "deep lambda": (v2.RandomApply([v2.Lambda(lambda x: x)]), "cannot be cached: .*lambda"),
    "partial of a lambda": (v2.Lambda(partial(lambda x: x)), "cannot be cached: .*lambda"),
    "local class": (local_transform(), "cannot be cached: .*Local"),
    "floats": (v2.ToDtype(torch.float32, scale=True), "fails on an image.*Leave out ToDtype"),
    "other kind": (v2.ToPILImage(), r"turns a uint8 tensor of shape \(3, H, W\) into Image"),
    "not repeatable": (NumpyNoise(), "two different images for the same random numbers"),
    "stateful": (Counter(), "keep no state between calls"),
    "too small": (v2.RandomCrop(10_000), "fails on an image: Required crop size"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_augmentations_are_refused_in_fit(shapes, case):
    augmentation, message = WRONG[case]
    embedder = ImageEmbedder(augmentation=augmentation, n_views=2, image_size=32)
    with pytest.raises(ValueError, match=message):
        embedder.fit(shapes.data)


def test_an_unknown_augmentation_is_refused_also_with_one_view(shapes):
    with pytest.raises(ValueError, match="did you mean 'flip'"):
        ImageEmbedder(augmentation="flipp").fit(shapes.data)


def test_views_need_an_augmentation(shapes):
    for name in ("n_views", "n_test_views"):
        with pytest.raises(ValueError, match=rf'^{name}=3 requests.*Pass augmentation="crop"'):
            ImageEmbedder(**{name: 3}).fit(shapes.data)
    with pytest.raises(ValueError, match="'n_views' parameter"):
        ImageEmbedder(n_views=0).fit(shapes.data)


def test_a_custom_transform_is_tried_once(shapes, monkeypatch):
    tried = []
    original = _views.decode_image
    monkeypatch.setattr(_views, "decode_image", lambda *a: tried.append(a) or original(*a))
    for _ in range(3):
        embedder = ImageEmbedder(augmentation=v2.RandomRotation(7.25), n_views=2, image_size=32)
        embedder.fit([b"no image", *shapes.data])
    assert len(tried) == 2  # the first image is unreadable
