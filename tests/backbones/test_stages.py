"""Stages of backbones, and cutting them in two."""

import warnings

import pytest
import torch
import torchvision
from torch import nn

from sktransfer.backbones import (
    backbone_stages,
    load_backbone,
    resolve_backbone,
    split_backbone,
)


def frozen(name):
    """A torchvision network with its classifier, frozen."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
        network = torchvision.models.get_model(name, weights=None, **options)
    return network.eval().requires_grad_(False)


def images(size):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def check_cut(network, trainable_stages, x):
    """The composition equals the network, and the upper part leaves its input as it is."""
    lower, upper = split_backbone(network, trainable_stages)
    with torch.inference_mode():
        between = lower(x)
        before = between.clone()
        assert torch.equal(upper(between), network(x))
    assert torch.equal(between, before)
    return lower, upper


SHARED = nn.Conv2d(8, 8, 3, padding=1)
OWN = {
    "a first step without parameters": nn.Sequential(
        nn.AvgPool2d(2), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)
    ),
    "an activation that is there twice": nn.Sequential(
        nn.Conv2d(3, 8, 3), relu := nn.ReLU(), nn.Conv2d(8, 8, 3), relu, nn.Conv2d(8, 8, 3)
    ),
    "a layer that is there twice": nn.Sequential(nn.Conv2d(3, 8, 3), SHARED, nn.ReLU(), SHARED),
}


@pytest.mark.parametrize("case", OWN)
def test_sequences_of_ones_own_can_be_cut_everywhere(case):
    for trainable_stages in range(len(backbone_stages(OWN[case])) + 1):
        check_cut(OWN[case], trainable_stages, images(32))


@pytest.mark.parametrize("name", ["tiny_mobilenet", "tiny_resnet"])
def test_bundled_backbones_can_be_cut_everywhere(name):
    network = load_backbone(resolve_backbone(name))
    for trainable_stages in range(len(backbone_stages(network)) + 1):
        check_cut(network, trainable_stages, images(32))


@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "convnext_tiny",
        "densenet121",
        "efficientnet_b0",
        "mnasnet0_5",
        "mobilenet_v2",
        "regnet_y_400mf",
        "resnet18",
        "shufflenet_v2_x0_5",
        "squeezenet1_1",
        "swin_t",
        "vgg11_bn",
    ],
)
def test_sequential_families_can_be_cut(name):
    network = frozen(name)
    stages = backbone_stages(network)
    lower, upper = check_cut(network, len(stages) // 2, images(64))
    assert not any(p.requires_grad for p in lower.parameters())
    assert all(p.requires_grad for p in upper.parameters())


def test_other_networks_are_trained_whole_with_a_frozen_part():
    network = frozen("googlenet")
    lower, upper = split_backbone(network, 2)
    names = {name.partition(".")[0] for name, p in upper.named_parameters() if p.requires_grad}
    assert lower is None
    assert names == {"inception5b", "fc"}
    assert not any(p.requires_grad for p in network.parameters())


def test_stages_of_a_transformer_are_its_layers():
    network = frozen("vit_b_32")
    names = [name for name, _ in backbone_stages(network)]
    assert names[:2] == ["conv_proj", "encoder.layers.encoder_layer_0"]
    assert names[-3:] == ["encoder.layers.encoder_layer_11", "encoder.ln", "heads"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ("vgg11", [f"features.{i}" for i in (0, 3, 6, 11, 16)] + ["classifier"]),
    ],
)
def test_names_of_stages(name, expected):
    assert [stage for stage, _ in backbone_stages(frozen(name))] == expected


def test_stages_of_a_headless_network_end_with_its_last_block():
    network = load_backbone(resolve_backbone("tiny_resnet"))
    assert [name for name, _ in backbone_stages(network)][-1] == "layer4"


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_timm_networks_have_stages(name):
    timm = pytest.importorskip("timm")
    stages = backbone_stages(timm.create_model(name, num_classes=0))
    assert 4 <= len(stages) <= 20
    parameters = [id(p) for _, module in stages for p in module.parameters()]
    assert len(parameters) == len(set(parameters))


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_sequential_families_of_timm_can_be_cut(name):
    timm = pytest.importorskip("timm")
    network = timm.create_model(name, num_classes=0).eval().requires_grad_(False)
    check_cut(network, 2, images(64))


def test_custom_modules_are_cut_when_they_are_sequential():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).eval()
    network(images(8))
    lower, upper = check_cut(network.requires_grad_(False), 1, images(8))
    assert [type(module) for module in upper] == [nn.Linear]
    assert [type(module) for module in lower[0]] == [nn.Conv2d, nn.ReLU, nn.Flatten]


def test_training_the_upper_part_leaves_the_network_alone():
    network = frozen("resnet18")
    before = network.layer4[0].conv1.weight.clone()
    lower, upper = split_backbone(network, 2)
    upper.train()
    optimizer = torch.optim.SGD(upper.parameters(), lr=0.1)
    upper(lower(images(64))).sum().backward()
    optimizer.step()
    assert torch.equal(network.layer4[0].conv1.weight, before)
    assert not network.layer4.training


@pytest.mark.parametrize("trainable_stages", [-1, 7, 1.5])
def test_number_of_stages_is_checked(trainable_stages):
    with pytest.raises(ValueError, match=r"'trainable_stages' parameter|from 0 to 6"):
        split_backbone(frozen("resnet18"), trainable_stages)


@pytest.mark.parametrize("cut", [backbone_stages, lambda network: split_backbone(network, 1)])
def test_only_a_module_has_stages(cut):
    with pytest.raises(TypeError, match="'network' parameter"):
        cut(1)
