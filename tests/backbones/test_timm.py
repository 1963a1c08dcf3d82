"""Networks of timm."""

import importlib.util
import sys

import pytest
import torch
from networks import build, images, saved

from sktransfer.backbones import Preprocessing, list_backbones, load_backbone, resolve_backbone
from sktransfer.exceptions import FingerprintMismatchError, MissingExtraError, WeightsError


def test_timm_name_without_timm_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sktransfer\[timm\]'"):
        resolve_backbone("timm:resnet18")


def test_listing_without_timm_has_no_timm_names(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not [name for name in list_backbones() if name.startswith("timm:")]


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    timm = pytest.importorskip("timm")
    network = timm.create_model("inception_resnet_v2", num_classes=5).eval()
    return network, saved(network, tmp_path_factory.mktemp("timm") / "w.safetensors")


def test_timm_inception_resnet_from_a_file(inception_file):
    network, path = inception_file
    for size, resize in [(None, 333), (331, 368)]:
        spec = resolve_backbone("timm:inception_resnet_v2", path, image_size=size)
        assert spec.n_features == 1536
        assert spec.preprocessing == Preprocessing(
            size or 299, resize, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
        )
        x = images(96, 1)
        with torch.inference_mode():
            torch.testing.assert_close(network.classif(load_backbone(spec)(x)), network(x))


def test_timm_weights_of_another_network(inception_file):
    with pytest.raises(WeightsError, match="another architecture"):
        load_backbone(resolve_backbone("timm:resnet18", inception_file[1]))


def test_timm_takes_a_checkpoint_of_torchvision_where_the_names_agree(tmp_path):
    pytest.importorskip("timm")
    network = build("resnet18")
    spec = resolve_backbone("timm:resnet18", saved(network, tmp_path / "w.pth"))
    x = images(64)
    with torch.inference_mode():
        torch.testing.assert_close(network.fc(load_backbone(spec)(x)), network(x))


def test_timm_tags_are_weights():
    pytest.importorskip("timm")
    spec = resolve_backbone("timm:resnet18", "a2_in1k")
    assert spec == resolve_backbone("timm:resnet18.a2_in1k")
    assert spec.fingerprint == "timm:resnet18.a2_in1k:timm/resnet18.a2_in1k"  # no commit offline
    assert spec.license == "apache-2.0"
    with pytest.raises(WeightsError, match=r"it has \['a1_in1k'"):
        resolve_backbone("timm:resnet18", "a9_in1k")


def test_timm_tags_do_not_contradict_each_other():
    pytest.importorskip("timm")
    assert resolve_backbone("timm:resnet18.a2_in1k", "a2_in1k")
    with pytest.raises(WeightsError, match="names the weights 'a1_in1k', but weights='a2_in1k'"):
        resolve_backbone("timm:resnet18.a1_in1k", "a2_in1k")


def test_timm_without_network_says_which_file_to_fetch(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    pytest.importorskip("timm")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"fetch https://.*resnet18.a1_in1k.*\.safetensors"):
        load_backbone(resolve_backbone("timm:resnet18"))


@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.RandomWeightsWarning")
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_timm_width_is_known_before_loading(name):
    pytest.importorskip("timm")
    spec = resolve_backbone(f"timm:{name}", None)
    assert load_backbone(spec)(images(224, 1)).shape == (1, spec.n_features)


def test_weights_in_the_hub_cache_are_known_by_their_commit(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    name = "timm:test_vit.r160_in1k"
    before = resolve_backbone(name)
    network = timm.create_model("test_vit").eval()
    folder = tmp_path / "models--timm--test_vit.r160_in1k"
    for commit in ("1" * 40, "2" * 40):
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
        (folder / "snapshots" / commit).mkdir(parents=True)
        saved(network, folder / "snapshots" / commit / "model.safetensors")
        monkeypatch.setattr(timm, "__version__", f"9.{commit}")  # makes no difference
        spec = resolve_backbone(name)
        assert spec.fingerprint == f"timm:test_vit.r160_in1k:timm/test_vit.r160_in1k@{commit}"
        with torch.inference_mode():
            rows = load_backbone(spec)(images(160))
            torch.testing.assert_close(network.head(rows), network(images(160)))
            network.norm.weight.mul_(2)  # for the next commit
    with pytest.raises(FingerprintMismatchError, match="@2222"):
        load_backbone(before)
    pooled = load_backbone(resolve_backbone(name, image_size=64, pooling="cls+mean"))
    assert pooled(images(64)).shape == (2, 128)
