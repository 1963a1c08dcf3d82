"""Loading networks: once per process, frozen, checked."""

import threading
import time

import numpy as np
import pytest
import torch
from networks import SMALL, build, images, saved
from torch import nn

from sktransfer import ImageEmbedder
from sktransfer._utils import _stamps
from sktransfer.backbones import (
    Preprocessing,
    _loading,
    _weights,
    load_backbone,
    resolve_backbone,
    shared_network,
)
from sktransfer.exceptions import FingerprintMismatchError, RandomWeightsWarning, WeightsError


def test_loaded_network_is_frozen_and_in_evaluation_mode(tmp_path):
    network = load_backbone(resolve_backbone(SMALL, saved(build(SMALL), tmp_path / "w.pth")))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())


def test_loading_leaves_the_random_state_alone(tmp_path):
    before = torch.random.get_rng_state()
    load_backbone(resolve_backbone(SMALL, saved(build(SMALL), tmp_path / "w.pth")))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", [SMALL, "tiny_resnet"])
def test_random_weights_warn_at_every_use(name):
    spec = resolve_backbone(name, None)
    for _ in range(2):
        with pytest.warns(RandomWeightsWarning, match="weights=None"):
            load_backbone(spec)


@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.RandomWeightsWarning")
def test_random_weights_are_the_same_every_time():
    spec = resolve_backbone("tiny_resnet", None)
    first = load_backbone(spec).state_dict()
    _loading._networks.clear()
    torch.rand(3)
    second = load_backbone(spec).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert resolve_backbone("tiny_resnet", None).fingerprint == spec.fingerprint
    assert str(torch.__version__) in spec.fingerprint


def test_network_is_shared_by_threads_and_loaded_once(monkeypatch):
    loads = []
    original = _loading._load

    def slow(spec):
        loads.append(spec.name)
        time.sleep(0.1)
        return original(spec)

    monkeypatch.setattr(_loading, "_load", slow)
    spec, networks = resolve_backbone("tiny_resnet"), []
    threads = [
        threading.Thread(target=lambda: networks.append(shared_network(spec))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["tiny_resnet"]
    assert len({id(network) for network in networks}) == 1


def test_users_get_copies():
    spec = resolve_backbone("tiny_resnet")
    first, second = load_backbone(spec), load_backbone(spec)
    expected = second.conv1.weight.clone()
    nn.init.zeros_(first.conv1.weight)
    assert torch.equal(second.conv1.weight, expected)
    assert torch.equal(load_backbone(spec).conv1.weight, expected)


def test_training_a_loaded_network_does_not_change_embeddings():
    pixels = (images(64, 3).permute(0, 2, 3, 1) * 255).byte().numpy()
    embedder = ImageEmbedder("tiny_resnet", image_size=64, engine="torch", cache=None)
    expected = embedder.fit_transform(pixels[:2])
    network = load_backbone(resolve_backbone("tiny_resnet")).requires_grad_(True)
    network(images(64)).sum().backward()
    torch.optim.SGD(network.parameters(), lr=1.0).step()
    _loading._networks.clear()
    embedder = ImageEmbedder("tiny_resnet", image_size=64, engine="torch", cache=None)
    np.testing.assert_array_equal(embedder.fit_transform(pixels[:2]), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda network: nn.init.zeros_(network.conv1.weight),
        lambda network: network.conv1.weight.data.mul_(2),
        lambda network: setattr(network.conv1, "weight", nn.Parameter(torch.zeros(64, 3, 7, 7))),
        lambda network: network.bn1.running_var.add_(1),
    ],
)
def test_a_shared_network_that_was_changed_is_refused(change):
    spec = resolve_backbone("tiny_resnet")
    expected = load_backbone(spec).conv1.weight
    change(shared_network(spec))
    with pytest.raises(FingerprintMismatchError, match="was changed after it was loaded"):
        load_backbone(spec)
    assert torch.equal(load_backbone(spec).conv1.weight, expected)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e38, -1e30])
@pytest.mark.parametrize("name", ["conv1.0.weight", "conv1.1.running_var"])
def test_weights_that_are_not_finite_are_refused(number, name, tmp_path):
    network = build(SMALL)
    network.state_dict()[name].view(-1)[0] = number
    spec = resolve_backbone(SMALL, saved(network, tmp_path / "w.pth"))
    with pytest.raises(WeightsError, match=rf"contain NaN.*'{name}'"):
        load_backbone(spec)


class Masked(nn.Module):
    """Has a mask with infinity, as transformers do."""

    preprocessing = Preprocessing(8, None)

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("mask", torch.tensor([0.0, float("-inf"), 0.0]))

    def forward(self, pixels):
        return torch.softmax(pixels.mean((2, 3)) + self.mask, 1) * self.scale


def test_custom_modules_with_infinite_weights_are_refused_but_masks_are_fine():
    module = Masked()
    load_backbone(resolve_backbone(module))
    with torch.no_grad():
        module.scale[0] = float("inf")
    with pytest.raises(WeightsError, match=r"Masked.*'scale'"):
        load_backbone(resolve_backbone(module))


def test_a_weights_file_is_digested_once_for_many_calls(monkeypatch):
    digested, original = [], _weights.hashlib.file_digest

    def count(file, kind):
        digested.append(file.name)
        return original(file, kind)

    monkeypatch.setattr(_weights.hashlib, "file_digest", count)
    monkeypatch.setattr(_stamps, "RACY_SECONDS", 0.0)
    for _ in range(5):
        load_backbone(resolve_backbone("tiny_mobilenet"))
    assert len(digested) <= 1


def test_a_name_is_no_specification():
    with pytest.raises(TypeError, match="resolve_backbone"):
        load_backbone("resnet18")
