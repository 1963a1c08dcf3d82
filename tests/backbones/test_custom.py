"""Custom modules: fingerprints, width, and what they cost."""

import copy
import dataclasses
import functools
import pickle

import numpy as np
import pytest
import torch
from networks import build, images
from new_process import run
from sklearn.base import clone
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from sktransfer import FineTuneClassifier, ImageEmbedder
from sktransfer.backbones import Preprocessing, _custom, load_backbone, resolve_backbone
from sktransfer.exceptions import FingerprintMismatchError


class MeanColor(nn.Module):
    """The mean color, times a setting that its repr does not show."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale
        self.layer = nn.Linear(3, 5)

    def forward(self, x):
        return self.layer(x.mean((2, 3))) * self.scale


class LargestColor(MeanColor):
    def forward(self, x):
        return self.layer(x.amax((2, 3))) * self.scale


def made(kind=MeanColor, **settings):
    torch.manual_seed(0)
    return kind(**settings)


def test_custom_module_is_copied_and_never_changed():
    module = made().double().train()
    spec = resolve_backbone(module)
    network = load_backbone(spec)
    assert (spec.name, spec.weights, spec.n_features) == ("MeanColor", "custom", 5)
    assert spec.preprocessing == Preprocessing(224, 256)
    assert network(images(8)).dtype == torch.float32
    assert module.training and module.layer.weight.requires_grad
    assert module.layer.weight.dtype == torch.float64


def test_custom_module_travels_with_its_specification():
    spec = pickle.loads(pickle.dumps(resolve_backbone(made())))
    torch.testing.assert_close(load_backbone(spec)(images(8)), made()(images(8)))


def test_custom_module_may_bring_its_preprocessing():
    module = made()
    module.preprocessing = Preprocessing(64, None, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert resolve_backbone(module).preprocessing == module.preprocessing
    assert resolve_backbone(module, image_size=96).preprocessing.image_size == 96
    module.preprocessing = "resize"
    with pytest.raises(TypeError, match="Preprocessing"):
        resolve_backbone(module)


def test_fingerprint_of_a_custom_module_follows_weights_settings_and_code():
    base = made()
    trained = copy.deepcopy(base)
    with torch.no_grad():
        trained.layer.bias += 1
    others = [trained, made(scale=2.0), made(LargestColor)]
    prints = [resolve_backbone(module).fingerprint for module in (base, *others)]
    assert len(set(prints)) == 4
    assert resolve_backbone(made()).fingerprint == prints[0]
    assert resolve_backbone(base.eval()).fingerprint == prints[0]


def test_code_alone_changes_the_fingerprint(monkeypatch):
    before = resolve_backbone(made()).fingerprint
    monkeypatch.setattr(MeanColor, "forward", lambda self, x: self.layer(x.amax((2, 3))))
    assert resolve_backbone(made()).fingerprint != before


class Holder(nn.Module):
    """Keeps something in a private attribute."""

    def __init__(self, kept):
        super().__init__()
        self._kept = kept

    def helper(self, x):
        return x.mean((2, 3))

    def forward(self, x):
        return self.helper(x)


def scaled(factor):
    return lambda x: x.mean((2, 3)) * factor


@dataclasses.dataclass
class Config:
    names: list


def fingerprint_of(module):
    return _custom._identify(module, 16)[0]


def fingerprint(kept):
    return fingerprint_of(Holder(kept))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([0], [2]),
        ({"a": 1}, {"a": 2}),
        ({"a", "b"}, {"a", "c"}),
        ((1, [2]), (1, [3])),
        (np.arange(3), np.arange(1, 4)),
        (torch.zeros(2), torch.ones(2)),
        ([nn.Linear(2, 2)], [nn.Linear(2, 3)]),
        (torch.float32, torch.float16),
        (torch.relu, torch.sigmoid),
        (nn.functional.relu, nn.functional.gelu),
        (nn.ReLU, nn.GELU),
        (functools.partial(scaled, 1), functools.partial(scaled, 2)),
        (Config(["a"]), Config(["b"])),
        (Preprocessing(64, None), Preprocessing(32, None)),
    ],
)
def test_fingerprint_of_a_custom_module_follows_whatever_it_holds(one, other):
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(one)
    assert ":code=" in fingerprint(one)


def test_fingerprint_sees_buffers_that_are_not_saved_and_hooks():
    def holder(number):
        module = Holder(None)
        module.register_buffer("mean", torch.tensor(number), persistent=False)
        return module

    hooked = holder(1)
    hooked.register_forward_hook(lambda module, inputs, output: output * 2)
    prints = [fingerprint_of(module) for module in (holder(1), holder(2), hooked)]
    assert len(set(prints)) == 3


def test_another_method_under_the_same_name_changes_the_fingerprint(monkeypatch):
    prints = [fingerprint(1)]
    monkeypatch.setattr(Holder, "helper", lambda self, x: x.amax((2, 3)))
    prints.append(fingerprint(1))
    assert len(set(prints)) == 2


def test_cycles_do_not_trouble_the_fingerprint():
    module = Holder([])
    module._kept.append(module)
    assert fingerprint_of(module) == fingerprint_of(copy.deepcopy(module))


class Extractor(nn.Module):
    """The pooled output of one layer, by torchvision's feature extraction."""

    def __init__(self, network, layer):
        super().__init__()
        self.graph = create_feature_extractor(network, {layer: "features"})

    def forward(self, x):
        return self.graph(x)["features"].mean((2, 3))


def test_fingerprint_of_a_feature_extractor_is_that_of_its_copies_and_pickles():
    network = build("resnet18")
    third, fourth = (Extractor(network, layer) for layer in ("layer3", "layer4"))
    expected = fingerprint_of(third.eval())
    assert fingerprint_of(copy.deepcopy(third)) == expected
    assert fingerprint_of(pickle.loads(pickle.dumps(third))) == expected
    assert fingerprint_of(fourth.eval()) != expected


def test_what_cannot_be_digested_is_shared_by_copies_only():
    first, second = Holder(scaled(1)), Holder(scaled(1))
    assert fingerprint_of(first) == fingerprint_of(copy.deepcopy(first))
    assert fingerprint_of(first) != fingerprint_of(second)


FINGERPRINTS = """
import torch
from torch import nn
from torchvision.models import mobilenet_v3_small
from sktransfer.backbones._custom import _identify

class Net(nn.Module):
    names = {"a", "b", "c"}

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 5)
        self.settings = {"kind": torch.float32, "act": nn.functional.relu, "sizes": {"x", "y", "z"}}

    def forward(self, x):
        return self.layer(x.mean((2, 3)))

torch.manual_seed(0)
fingerprints = [_identify(network, 32)[0] for network in (Net(), mobilenet_v3_small())]
"""


def test_fingerprint_of_a_custom_module_is_the_same_in_other_processes():
    here = {"__name__": "__main__"}
    exec(FINGERPRINTS, here)
    assert all(":code=" in fingerprint for fingerprint in here["fingerprints"])
    run(FINGERPRINTS + "assert fingerprints == expected", expected=here["fingerprints"])


def test_custom_module_that_was_trained_on_is_found_out():
    module = made()
    spec = resolve_backbone(module)
    with torch.no_grad():
        module.layer.weight += 1
    with pytest.raises(FingerprintMismatchError, match="not the expected ones"):
        load_backbone(spec)


def test_custom_module_must_give_rows():
    with pytest.raises(ValueError, match=r"gave shape \(1, 4, 224, 224\)"):
        resolve_backbone(nn.Conv2d(3, 4, 3, padding=1))
    with pytest.raises(ValueError, match=r"gave RuntimeError.*cannot be multiplied"):
        resolve_backbone(nn.Linear(2, 2))


def test_weights_do_not_go_with_a_custom_module():
    with pytest.raises(ValueError, match="cannot be combined with a custom module"):
        resolve_backbone(made(), weights=None)


# ------------------------------------------------------------------- digested and run only once


class Counted(MeanColor):
    """Counts its forward passes."""

    preprocessing = Preprocessing(8, None)
    passes = 0

    def forward(self, x):
        type(self).passes += 1
        return super().forward(x)


@pytest.fixture
def passes(monkeypatch):
    """Return how many images have run since the last call."""
    _custom._probes.clear()
    monkeypatch.setattr(Counted, "passes", 0)

    def since_last():
        n_passes, Counted.passes = Counted.passes, 0
        return n_passes

    return since_last


def test_a_module_is_run_once_for_many_calls(passes):
    module = made(Counted)
    pixels = (images(8, 4).permute(0, 2, 3, 1) * 255).byte().numpy()
    embedder = ImageEmbedder(module)
    for _ in range(3):
        embedder.fit(pixels)
    assert passes() == 1
    rows = embedder.transform(pixels)
    assert passes() == 1  # four images are one forward pass
    for _ in range(3):
        np.testing.assert_array_equal(embedder.fit(pixels).transform(pixels), rows)
    assert passes() == 0


def test_copies_of_a_module_are_not_run_again(passes):
    module = made(Counted)
    expected = fingerprint_of(module)
    assert fingerprint_of(copy.deepcopy(module)) == expected
    assert fingerprint_of(pickle.loads(pickle.dumps(module))) == expected
    assert fingerprint_of(module.train()) == fingerprint_of(module.eval()) == expected
    assert passes() == 1


def test_clones_share_a_module_and_what_is_known_of_it():
    module = made()
    for estimator in (ImageEmbedder(module), FineTuneClassifier(module)):
        assert clone(estimator).backbone is module
        assert clone(clone(estimator)).get_params()["backbone"] is module


def test_a_module_is_digested_once_while_it_is_unchanged(monkeypatch):
    digested, original = [], _custom.hash_value
    monkeypatch.setattr(_custom, "hash_value", lambda v: digested.append(v) or original(v))
    module = made()
    for _ in range(3):
        resolve_backbone(module)
    assert len(digested) == 1


CHANGES = {
    "an optimizer's step": lambda module: nn.init.zeros_(module.layer.weight),
    "a change that PyTorch does not count": lambda module: module.layer.weight.data.mul_(2),
    "a new parameter": lambda module: setattr(
        module.layer, "weight", nn.Parameter(torch.ones(5, 3))
    ),
    "loaded weights": lambda module: module.load_state_dict(made(MeanColor).double().state_dict()),
    "an attribute": lambda module: setattr(module, "scale", 3.0),
    "a list in an attribute": lambda module: module.settings.append(3),
    "an array in an attribute": lambda module: module.array.fill(3),
    "a tensor in an attribute": lambda module: module.tensor.fill_(3),
    "a layer in a list": lambda module: nn.init.zeros_(module.hidden[0].weight),
    "another layer": lambda module: setattr(module, "layer", nn.Linear(3, 6)),
    "a hook": lambda module: module.register_forward_hook(lambda module, x, y: y * 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_same_module_is_noticed(change):
    module = made()
    with torch.no_grad():
        module.layer.weight += 1
    module.settings, module.hidden = [1, 2], [nn.Linear(2, 2)]
    module.array, module.tensor = np.ones(3), torch.ones(3)
    before = fingerprint_of(module)
    assert fingerprint_of(module) == before
    with torch.no_grad():
        CHANGES[change](module)
    assert fingerprint_of(module) != before


def test_another_forward_of_the_same_module_is_noticed(monkeypatch):
    module = made()
    before = fingerprint_of(module)
    monkeypatch.setattr(MeanColor, "forward", lambda self, x: self.layer(x.amax((2, 3))))
    assert fingerprint_of(module) != before


def test_a_module_made_in_inference_mode_can_be_used():
    with torch.inference_mode():
        module = made()
    assert fingerprint_of(module) == fingerprint_of(made())
    assert load_backbone(resolve_backbone(module))(images(8)).shape == (2, 5)


def test_the_probe_leaves_the_random_state_alone():
    class Noisy(MeanColor):
        def forward(self, x):
            return super().forward(x) + torch.rand(5)

    before = torch.random.get_rng_state()
    assert fingerprint_of(made(Noisy))
    torch.manual_seed(0)
    nn.Linear(3, 5)
    expected = torch.random.get_rng_state()
    made(Noisy)
    assert torch.equal(torch.random.get_rng_state(), expected)
    assert before is not None


class Settings:
    """Has a repr that tells nothing, as most objects do."""

    def __init__(self):
        self.scale, self.table = 1.0, np.ones(5000)

    def __repr__(self):
        return "Settings()"


@pytest.mark.parametrize("name", ["scale", "table"])
def test_a_change_inside_a_held_object_is_noticed(name):
    module = made()
    module.settings = Settings()
    before = fingerprint_of(module)
    value = getattr(module.settings, name)
    setattr(module.settings, name, value * 3)
    assert fingerprint_of(module) != before
    setattr(module.settings, name, value)
    assert fingerprint_of(module) == before
