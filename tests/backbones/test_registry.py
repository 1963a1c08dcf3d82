"""Names of backbones, and what can be said of all of them."""

from itertools import product
from pathlib import Path

import pytest
import torchvision
from torch import nn

from sktransfer.backbones import (
    Preprocessing,
    _registry,
    list_backbones,
    recommended_backbones,
    resolve_backbone,
)
from sktransfer.exceptions import UnknownBackboneError

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")


def test_listing_begins_with_the_bundled_ones_and_has_all_of_torchvision():
    names = list_backbones()
    assert names[:2] == ["tiny_mobilenet", "tiny_resnet"]
    offered = torchvision.models.list_models(module=torchvision.models)
    assert set(offered) <= set(names)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("vit_?_32", ["vit_b_32", "vit_l_32"]),
        ("wide_resnet", ["wide_resnet101_2", "wide_resnet50_2"]),
        ("no such thing", []),
    ],
)
def test_listing_filters_by_part_and_by_pattern(pattern, expected):
    found = [name for name in list_backbones(pattern) if not name.startswith("timm:")]
    assert found == expected


def test_listing_by_license():
    names = list_backbones(license="permissive")
    assert {"tiny_resnet", "resnet50"} < set(names) < set(list_backbones())
    assert "vit_h_14" not in names  # its best weights are CC BY-NC
    with pytest.raises(ValueError, match=r"'license' parameter .* among {'permissive'} or None"):
        list_backbones(license="mit")


def test_listing_by_license_of_timm():
    pytest.importorskip("timm")
    names = list_backbones("timm:vit_small*", license="permissive")
    assert "timm:vit_small_patch14_reg4_dinov2" in names
    assert "timm:vit_small_patch16_dinov3" not in names
    assert resolve_backbone("timm:vit_small_patch16_dinov3").license == "dinov3-license"
    assert resolve_backbone("timm:vit_small_patch16_dinov3", None).license is None


PRESETS = list(product(("cpu", "cuda"), ("permissive", None), ("fast", "balanced", "best")))


@pytest.mark.parametrize(("device", "license", "speed"), PRESETS)
def test_recommended_backbones_are_offered_under_their_license(device, license, speed):
    pytest.importorskip("timm")
    for name in recommended_backbones(device, license=license, speed=speed):
        assert name in DOCUMENTED
        if license is not None:
            base = name.partition(".")[0]
            assert base.startswith("efficientnet_lite") or base in list_backbones(license=license)
            if name.startswith("timm:"):
                assert resolve_backbone(name).license in ("apache-2.0", "mit")


RECOMMENDED = sorted(
    {name for d, lic, s in PRESETS for name in recommended_backbones(d, license=lic, speed=s)}
)


@pytest.mark.parametrize("name", RECOMMENDED)
def test_recommended_backbones_are_built_with_random_weights(name):
    """On the meta device, with a run without numbers that gives the width."""
    pytest.importorskip("timm")
    assert resolve_backbone(name, None).n_features >= 384


def test_unknown_presets_name_those_there_are():
    with pytest.raises(ValueError, match=r"'speed' parameter .*'balanced'"):
        recommended_backbones("cpu", speed="slow")


def test_licenses_of_torchvision_are_those_of_the_weights():
    assert resolve_backbone("vit_b_16").license == "bsd-3-clause"
    assert resolve_backbone("vit_b_16", "IMAGENET1K_SWAG_LINEAR_V1").license == "cc-by-nc-4.0"
    assert resolve_backbone("resnet18", None).license is None
    assert resolve_backbone("tiny_resnet").license == "bsd-3-clause"


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownBackboneError, match=r"Did you mean 'resnet50'"):
        resolve_backbone("resnet_50")


def test_an_unknown_name_suggests_names_of_timm():
    pytest.importorskip("timm")
    with pytest.raises(UnknownBackboneError, match="Did you mean 'timm:vit_small_patch14_dinov2'"):
        resolve_backbone("vit_small_patch14_dinov2")
    with pytest.raises(UnknownBackboneError, match=r"Did you mean 'timm:vit_\w+_dinov2'"):
        resolve_backbone("dinov2")
    with pytest.raises(UnknownBackboneError, match="Did you mean 'timm:resnet18'"):
        resolve_backbone("timm:resnet_18")


def test_a_name_unlike_any_other_gets_no_suggestion():
    with pytest.raises(UnknownBackboneError, match="no backbone named 'qqq'") as caught:
        resolve_backbone("qqq")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("backbone", [None, 3, nn.Linear])
def test_what_is_neither_name_nor_module_is_a_type_error(backbone):
    with pytest.raises(TypeError, match=r"name or a torch\.nn\.Module"):
        resolve_backbone(backbone)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("inception_v3", 74, "at least 75"),
        ("maxvit_t", 256, "224 pixels only"),
        ("resnet18", 0, r"int in the range \[1, 4096\]"),
        ("resnet18", 10**400, r"int in the range \[1, 4096\]"),
        ("resnet18", 96.5, r"int in the range \[1, 4096\]"),
        ("tiny_resnet", 16, "at least 32"),
    ],
)
def test_image_sizes_that_a_network_cannot_take(name, size, message):
    with pytest.raises(ValueError, match=message):
        resolve_backbone(name, image_size=size)


@pytest.mark.parametrize("weights", [True, 1.5, b"w.pth"])
def test_weights_of_a_wrong_type(weights):
    with pytest.raises(TypeError, match="weights must be"):
        resolve_backbone("resnet18", weights)


def test_preprocessing_scales_and_has_a_key():
    base = Preprocessing(224, 232)
    assert base.for_size(336) == Preprocessing(336, 348)
    assert Preprocessing(128, None).for_size(96) == Preprocessing(96, None)
    others = [
        Preprocessing(224, 256),
        Preprocessing(224, None),
        Preprocessing(224, 232, "bicubic"),
        Preprocessing(224, 232, std=(1.0, 1.0, 1.0)),
    ]
    assert len({base.key(), *(other.key() for other in others)}) == 5
    assert base.key() == Preprocessing(224, 232).key()


@pytest.mark.parametrize(
    "wrong",
    [
        (0, None),
        (224, 0),
        (5000, None),
        (224, 20_000),
        (224, 256, "nearest"),
        (224, 256, "bilinear", (0.5, 0.5)),
        (224, 256, "bilinear", (0.5, 0.5, float("nan"))),
        (224, 256, "bilinear", (0.5, 0.5, 0.5), (1.0, 1.0, 0.0)),
    ],
)
def test_preprocessing_refuses_what_it_cannot_do(wrong):
    with pytest.raises(ValueError):
        Preprocessing(*wrong)


@pytest.mark.parametrize("source", [*_registry.sources()])
def test_every_source_has_the_same_functions(source):
    for function in ("names", "matches", "resolve", "fingerprint", "load"):
        assert callable(getattr(source, function))
    assert not source.names() or callable(source.license)
