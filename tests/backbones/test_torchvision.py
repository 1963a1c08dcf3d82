"""Networks of torchvision: widths, embeddings, official weights, image sizes."""

import pickle

import pytest
import torch
import torchvision
from networks import SMALL, build, images, saved
from torch import nn
from torchvision.transforms._presets import ImageClassification

from sktransfer.backbones import load_backbone, resolve_backbone
from sktransfer.backbones._building import building
from sktransfer.backbones._torchvision import WIDTHS
from sktransfer.exceptions import WeightsError


def last_width(name):
    """Width of the input of the last Linear layer, from a network built without real tensors."""
    # RegNet's constructor computes with tensors, which those without memory cannot do.
    device = "cpu" if name.startswith("regnet") else "meta"
    with building(random=False), torch.device(device):
        network = torchvision.models.get_model(name, weights=None)
    return [m for m in network.modules() if isinstance(m, nn.Linear)][-1].in_features


def test_widths_are_recorded_for_all_torchvision_networks():
    names = torchvision.models.list_models(module=torchvision.models)
    assert sorted(names) == sorted(WIDTHS)


def test_recorded_widths_are_those_of_the_networks():
    # SqueezeNet has no Linear layer; its width is checked by running it, further down.
    names = [name for name in WIDTHS if not name.startswith("squeezenet")]
    assert {name: last_width(name) for name in names} == {n: WIDTHS[n] for n in names}


# ---------------------------------------------------------------------- torchvision, from a file


REFERENCES = {
    "resnet18": lambda network, x: nn.Sequential(*list(network.children())[:-1])(x).flatten(1),
    "mobilenet_v2": lambda network, x: network.features(x).mean((2, 3)),
    "mobilenet_v3_small": lambda network, x: network.classifier[:2](
        network.features(x).mean((2, 3))
    ),
    "squeezenet1_1": lambda network, x: network.features(x).mean((2, 3)),
    "densenet121": lambda network, x: network.features(x).relu().mean((2, 3)),
    "mnasnet0_5": lambda network, x: network.layers(x).mean((2, 3)),
    "convnext_tiny": lambda network, x: network.classifier[:2](
        network.avgpool(network.features(x))
    ),
}


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *((name, ".pth") for name in REFERENCES),
        ("mnasnet0_5", ".safetensors"),
        ("mobilenet_v2", ".safetensors"),
    ],
)
def test_embedding_is_the_input_of_the_last_layer(name, suffix, tmp_path):
    network = build(name)
    spec = resolve_backbone(name, saved(network, tmp_path / f"w{suffix}"))
    x = images(64)
    with torch.inference_mode():
        embedding = load_backbone(spec)(x)
        expected = REFERENCES[name](network, x)
    assert embedding.shape == (2, spec.n_features)
    torch.testing.assert_close(embedding, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_heads_lose_them_and_transform_their_input(name, tmp_path):
    network = build(name, aux_logits=True, transform_input=True, init_weights=False)
    spec = resolve_backbone(name, saved(network, tmp_path / "w.pth"), image_size=96)
    x = images(96)
    with torch.inference_mode():
        torch.testing.assert_close(network.fc(load_backbone(spec)(x)), network(x))


@pytest.mark.usefixtures("short_transformers")
def test_vit_embeds_to_its_class_token(tmp_path):
    network = build("vit_b_32", image_size=64)
    path = saved(network, tmp_path / "w.pth")
    spec = resolve_backbone("vit_b_32", path, image_size=64)
    x = images(64)
    with torch.inference_mode():
        torch.testing.assert_close(network.heads(load_backbone(spec)(x)), network(x))


def test_official_weights_resolve_without_a_download(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    spec = resolve_backbone("resnet50")
    assert (spec.weights, spec.n_features) == ("IMAGENET1K_V2", 2048)
    assert spec.fingerprint == "torchvision:resnet50:IMAGENET1K_V2:11ad3fa6"
    assert spec == resolve_backbone("resnet50", torchvision.models.ResNet50_Weights.DEFAULT)
    assert spec != resolve_backbone("resnet50", "IMAGENET1K_V1")
    assert not list(tmp_path.iterdir())
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_weights_of_torchvision_are_those_of_the_network():
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    assert resolve_backbone("resnet18", weights) == resolve_backbone("resnet18", "IMAGENET1K_V1")
    with pytest.raises(WeightsError, match="does not belong to 'resnet50'"):
        resolve_backbone("resnet50", weights)


def test_unknown_member_lists_those_there_are():
    with pytest.raises(WeightsError, match=r"\['IMAGENET1K_V1', 'IMAGENET1K_V2'\]"):
        resolve_backbone("resnet50", "IMAGENET22K")


def test_weights_without_classifier_layers_are_refused():
    with pytest.raises(WeightsError, match="lack the classifier layers"):
        resolve_backbone("vgg16", "IMAGENET1K_FEATURES")


def test_swag_weights_bring_their_image_size():
    assert resolve_backbone("vit_b_16", "IMAGENET1K_SWAG_E2E_V1").preprocessing.image_size == 384


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b1", "vit_b_16", "swin_t"])
def test_preprocessing_is_that_of_the_official_weights(name):
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    ours = resolve_backbone(name).preprocessing
    same = ImageClassification(
        crop_size=ours.image_size,
        resize_size=ours.resize_size,
        mean=ours.mean,
        std=ours.std,
        interpolation=torchvision.transforms.InterpolationMode(ours.interpolation),
    )
    image = (images(300, 1)[0] * 255).to(torch.uint8)
    assert torch.equal(same(image), preset(image))


def test_local_and_random_weights_take_the_default_preprocessing(tmp_path):
    path = saved(build(SMALL), tmp_path / "w.pth")
    expected = resolve_backbone(SMALL).preprocessing
    assert resolve_backbone(SMALL, path).preprocessing == expected
    assert resolve_backbone(SMALL, None).preprocessing == expected


@pytest.mark.usefixtures("short_transformers")
@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.RandomWeightsWarning")
def test_random_transformers_of_two_sizes_are_two_networks():
    small, large = (resolve_backbone("vit_b_32", None, image_size=size) for size in (32, 64))
    assert small.fingerprint != large.fingerprint
    assert load_backbone(small)(images(32)).shape == (2, 768)
    assert load_backbone(large)(images(64)).shape == (2, 768)
