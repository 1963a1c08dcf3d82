"""The bundled backbones, and other weights for them."""

import pytest
import torch
from networks import images
from safetensors.torch import save_file

from sktransfer.backbones import Preprocessing, _bundled, load_backbone, resolve_backbone
from sktransfer.backbones._weights import read_state
from sktransfer.exceptions import WeightsError


@pytest.mark.parametrize("name", ["tiny_mobilenet", "tiny_resnet"])
def test_bundled_backbones_load_offline_and_embed(name):
    spec = resolve_backbone(name)
    assert spec.weights == "bundled"
    embedding = load_backbone(spec)(images(spec.preprocessing.image_size))
    assert embedding.shape == (2, spec.n_features)
    assert embedding.isfinite().all() and embedding.std() > 0


@pytest.mark.parametrize("name", ["tiny_mobilenet", "tiny_resnet"])
def test_bundled_weights_have_one_member(name):
    with pytest.raises(WeightsError, match="one set of weights"):
        resolve_backbone(name, "IMAGENET1K_V1")


def test_preprocessing_travels_in_the_header_of_bundled_weights(tmp_path):
    state = read_state(_bundled._file("tiny_resnet", None))
    header = {
        "image_size": "160",
        "resize_size": "176",
        "interpolation": "bicubic",
        "mean": "[0.5, 0.4, 0.3]",
        "std": "0.2, 0.2, 0.1",
    }
    save_file(dict(state), tmp_path / "with.safetensors", metadata=header)
    squash = {"image_size": "96", "resize_size": ""}
    save_file(dict(state), tmp_path / "squash.safetensors", metadata=squash)
    save_file(dict(state), tmp_path / "without.safetensors")
    found = {
        path.stem: resolve_backbone("tiny_resnet", path).preprocessing
        for path in tmp_path.iterdir()
    }
    assert found == {
        "with": Preprocessing(160, 176, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)),
        "squash": Preprocessing(96, None),
        "without": resolve_backbone("tiny_resnet").preprocessing,
    }


@pytest.mark.parametrize("name", ["tiny_mobilenet", "tiny_resnet"])
def test_bundled_weights_in_another_file_keep_their_preprocessing(name, tmp_path):
    torch.save(dict(read_state(_bundled._file(name, None))), tmp_path / "w.pth")
    expected = resolve_backbone(name).preprocessing
    assert resolve_backbone(name, tmp_path / "w.pth").preprocessing == expected


@pytest.mark.parametrize(
    "header",
    [
        {"image_size": "abc"},
        {"image_size": "0"},
        {"image_size": "100000"},
        {"image_size": "100000000000000000000"},
        {"image_size": "96", "resize_size": "100000000000000000000"},
        {"image_size": "96", "mean": "1e-3, -0.2"},
        {"image_size": "96", "std": "0, 0, 0"},
    ],
)
def test_a_header_that_makes_no_sense_is_a_weights_error(header, tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors", metadata=header)
    with pytest.raises(WeightsError, match="describes no valid preprocessing"):
        resolve_backbone("tiny_resnet", tmp_path / "w.safetensors")


def test_a_broken_file_of_bundled_weights_is_a_weights_error(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match="is damaged"):
        resolve_backbone("tiny_resnet", tmp_path / "w.safetensors")
