"""Vision transformers: image sizes, and pooling of tokens."""

import numpy as np
import pytest
import torch
from networks import build, images, saved
from torch import nn

from sktransfer import FineTuneClassifier, ImageEmbedder, make_transfer_pipeline
from sktransfer.backbones import backbone_stages, load_backbone, resolve_backbone
from sktransfer.datasets import make_shapes

timm = pytest.importorskip("timm")
pytestmark = pytest.mark.filterwarnings("ignore::sktransfer.exceptions.RandomWeightsWarning")


def embedding(name, x, pooling, weights=None):
    spec = resolve_backbone(name, weights, x.shape[-1], pooling=pooling)
    with torch.inference_mode():
        rows = load_backbone(spec)(x)
    assert rows.shape == (len(x), spec.n_features)
    return rows


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:vit_tiny_patch16_dinov3_qkvb"])
def test_pooling_of_timm_is_that_of_its_tokens(name):
    network = load_backbone(resolve_backbone(name, None, 64))
    network = getattr(network, "encoder", network)
    with torch.inference_mode():
        tokens = network.forward_features(images(64))
    assert tokens.shape[1] == 16 + (5 if "dinov3" in name else 1)  # four of them are registers
    cls, mean = tokens[:, 0], tokens[:, -16:].mean(1)
    expected = {"auto": cls, "cls": cls, "mean": mean, "cls+mean": torch.cat([cls, mean], 1)}
    for pooling, rows in expected.items():
        torch.testing.assert_close(embedding(name, images(64), pooling), rows)


@pytest.mark.usefixtures("short_transformers")
def test_torchvision_pools_tokens_and_interpolates_positions(tmp_path):
    network = build("vit_b_32", image_size=64)
    path = saved(network, tmp_path / "w.pth")
    tokens = []
    network.encoder.register_forward_hook(lambda *call: tokens.append(call[2]))
    with torch.inference_mode():
        network(images(64))
    both = torch.cat([tokens[0][:, 0], tokens[0][:, 1:].mean(1)], 1)
    torch.testing.assert_close(embedding("vit_b_32", images(64), "cls+mean", path), both)
    larger = load_backbone(resolve_backbone("vit_b_32", path, 96, pooling="mean"))
    assert larger.get_parameter("encoder.encoder.encoder.pos_embedding").shape[1] == 1 + 3**2
    assert larger(images(96)).isfinite().all()
    names = [name for name, _ in backbone_stages(larger)]
    assert len(names) == 4 and names[-2].endswith("encoder_layer_1")


def test_dinov3_gives_the_class_token():
    spec = resolve_backbone("timm:vit_small_patch16_dinov3", None)
    assert spec.pooling == "cls"
    assert spec == resolve_backbone("timm:vit_small_patch16_dinov3", None, pooling="cls")


def test_pooling_by_attention_is_replaced():
    spec = resolve_backbone("timm:test_vit3", None, 64, pooling="mean")
    assert spec.fingerprint != resolve_backbone("timm:test_vit3", None, 64).fingerprint
    assert load_backbone(spec).encoder.attn_pool is None
    with pytest.raises(ValueError, match=r'no class token.*\n.*pooling="mean"'):
        resolve_backbone("timm:test_vit3", None, pooling="cls")


@pytest.mark.parametrize("name", ["tiny_resnet", "resnet18", "timm:resnet18", nn.Flatten()])
def test_networks_without_tokens_refuse_pooling(name):
    weights = {} if isinstance(name, nn.Module) else {"weights": None}
    with pytest.raises(ValueError, match=r"has no tokens.*\n.*pooling=\"auto\""):
        resolve_backbone(name, **weights, image_size=64, pooling="mean")


@pytest.mark.parametrize("parameter", ["pooling", "resize"])
def test_unknown_values_list_those_there_are(parameter):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter .* must be a str among"):
        resolve_backbone("tiny_resnet", **{parameter: "max"})


@pytest.mark.parametrize(
    ("name", "size", "hint"),
    [
        ("timm:vit_small_patch14_reg4_dinov2", 225, "224 or 238"),
        ("timm:vit_small_patch16_dinov3", 5, "multiple: 16"),
        ("vit_b_16", 250, "240 or 256"),
    ],
)
def test_sizes_that_patches_do_not_cover_name_the_nearest(name, size, hint):
    with pytest.raises(ValueError, match=f"patches of 1. pixels, got image_size={size}.\n.*{hint}"):
        resolve_backbone(name, None, size)


def test_other_sizes_that_a_network_refuses():
    with pytest.raises(ValueError, match=r"cannot run with image_size=250.*divisible by window"):
        resolve_backbone("timm:maxvit_tiny_tf_224", None, 250)


def test_dinov2_embeds_small_images():
    shapes = make_shapes(n_samples=2, random_state=0)
    name = "timm:vit_small_patch14_reg4_dinov2"
    embedder = ImageEmbedder(name, weights=None, image_size=224, engine="torch", cache=None)
    assert embedder.fit_transform(shapes.data).shape == (2, 384)


def test_positions_of_a_file_are_interpolated_for_another_size(tmp_path):
    network = timm.create_model("test_vit", img_size=64)
    path = saved(network, tmp_path / "w.pth")
    same, larger = (load_backbone(resolve_backbone("timm:test_vit", path, s)) for s in (64, 96))
    assert torch.equal(same.pos_embed, network.pos_embed)
    assert larger.pos_embed.shape[1] == 1 + 6**2
    assert larger(images(96)).isfinite().all()


def test_openvino_agrees_with_torch():
    pytest.importorskip("openvino")
    shapes = make_shapes(n_samples=3, random_state=0)
    embedder = ImageEmbedder(
        "timm:test_vit", weights=None, image_size=64, pooling="cls+mean", cache=None
    )
    rows = [
        embedder.set_params(engine=engine).fit_transform(shapes.data)
        for engine in ("torch", "openvino")
    ]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-3 * np.abs(rows[0]).max())


def test_pooling_and_resizing_reach_the_backbone(home):
    shapes = make_shapes(n_samples=20, random_state=0)
    embedder = ImageEmbedder("timm:test_vit", weights=None, image_size=64, engine="torch")
    rows = {}
    for pooling, resize in [("auto", "auto"), ("mean", "auto"), ("mean", "squash")]:
        embedder.set_params(pooling=pooling, resize=resize)
        # A cache that confused them would return the same rows.
        rows[pooling, resize] = embedder.fit_transform([shapes.data[0][:40]])
        assert embedder.preprocessing_.resize_size == (None if resize == "squash" else 67)
    assert len({row.tobytes() for row in rows.values()}) == 3
    model = FineTuneClassifier(
        "timm:test_vit",
        weights=None,
        image_size=64,
        pooling="cls+mean",
        resize="squash",
        trainable_stages=1,
        tuned_fraction=1,
        max_epochs=1,
        engine="torch",
        cache=None,
    ).fit(shapes.data, shapes.target)
    assert model.n_features_out_ == 128 and model.embedder_.preprocessing_.resize_size is None
    pipeline = make_transfer_pipeline("timm:test_vit", pooling="mean", resize="crop")
    assert (pipeline[0].pooling, pipeline[0].resize) == ("mean", "crop")


def test_resize_holds_for_every_source():
    for name in ("tiny_resnet", "resnet18", "timm:test_vit"):
        for resize, sizes in {"squash": [None], "crop": range(64, 80)}.items():
            spec = resolve_backbone(name, None, 64, resize=resize)
            assert spec.preprocessing.resize_size in sizes
    assert resolve_backbone("tiny_resnet", None, 64).preprocessing.resize_size is None
