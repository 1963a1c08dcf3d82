"""Names, weights, preprocessing and loading of backbones."""

import copy
import dataclasses
import functools
import hashlib
import http.server
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import torch
import torchvision
from new_process import other_hashes, start
from safetensors.torch import save_file
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms._presets import ImageClassification

from sktransfer.backbones import (
    Preprocessing,
    _named,
    _networks,
    _registry,
    list_backbones,
    load_backbone,
    resolve_backbone,
)
from sktransfer.backbones._custom import module_fingerprint
from sktransfer.backbones._weights import file_digest, official_file, read_state
from sktransfer.backbones._widths import TORCHVISION_WIDTHS
from sktransfer.exceptions import (
    FingerprintMismatchError,
    MissingExtraError,
    RandomWeightsWarning,
    UnknownBackboneError,
    WeightsError,
)

SMALL = "shufflenet_v2_x0_5"


@pytest.fixture(autouse=True)
def no_networks_from_before():
    _registry._shared.clear()
    yield
    _registry._shared.clear()


def build(name, seed=1, **options):
    """A torchvision network with its classifier and seeded random weights."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        return torchvision.models.get_model(name, weights=None, **options).eval()


def saved(network, path):
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    else:
        torch.save(network.state_dict(), path)
    return path


def images(size, n=2):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------- names


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


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownBackboneError, match=r"Did you mean 'resnet50'"):
        resolve_backbone("resnet_50")


@pytest.mark.parametrize("backbone", [None, 3, nn.Linear])
def test_what_is_neither_name_nor_module_is_a_type_error(backbone):
    with pytest.raises(TypeError, match=r"name or a torch\.nn\.Module"):
        resolve_backbone(backbone)


def test_timm_name_without_timm_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sktransfer\[timm\]'"):
        resolve_backbone("timm:resnet18")


def test_listing_without_timm_has_no_timm_names(monkeypatch):
    monkeypatch.setattr(_networks, "has_timm", lambda: False)
    assert not [name for name in list_backbones() if name.startswith("timm:")]


# ------------------------------------------------------------------------------------- widths


def last_width(name):
    """Width of the input of the last Linear layer, from a network built without real tensors."""
    # RegNet's constructor computes with tensors, which those without memory cannot do.
    device = "cpu" if name.startswith("regnet") else "meta"
    with _networks._building(random=False), torch.device(device):
        network = torchvision.models.get_model(name, weights=None)
    return [m for m in network.modules() if isinstance(m, nn.Linear)][-1].in_features


def test_widths_are_recorded_for_all_torchvision_networks():
    names = torchvision.models.list_models(module=torchvision.models)
    assert sorted(names) == sorted(TORCHVISION_WIDTHS)


def test_recorded_widths_are_those_of_the_networks():
    # SqueezeNet has no Linear layer; its width is checked by running it, further down.
    names = [name for name in TORCHVISION_WIDTHS if not name.startswith("squeezenet")]
    assert {name: last_width(name) for name in names} == {n: TORCHVISION_WIDTHS[n] for n in names}


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


def test_vit_embeds_to_its_class_token(tmp_path):
    network = build("vit_b_32", image_size=64)
    path = saved(network, tmp_path / "w.pth")
    spec = resolve_backbone("vit_b_32", path, image_size=64)
    x = images(64)
    with torch.inference_mode():
        torch.testing.assert_close(network.heads(load_backbone(spec)(x)), network(x))
    with pytest.raises(WeightsError, match="another image size"):
        load_backbone(resolve_backbone("vit_b_32", path))


def test_loaded_network_is_frozen_and_in_evaluation_mode(tmp_path):
    network = load_backbone(resolve_backbone(SMALL, saved(build(SMALL), tmp_path / "w.pth")))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())


def test_loading_leaves_the_random_state_alone(tmp_path):
    before = torch.random.get_rng_state()
    load_backbone(resolve_backbone(SMALL, saved(build(SMALL), tmp_path / "w.pth")))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": v for key, v in state.items()}},
        lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
        lambda state: {k: v.half() if v.is_floating_point() else v for k, v in state.items()},
    ],
    ids=["state_dict", "model", "module.", "both", "old batch norm", "half precision"],
)
def test_wrapped_checkpoints_are_accepted(wrap, tmp_path):
    network = build(SMALL)
    torch.save(wrap(dict(network.state_dict())), tmp_path / "w.pth")
    loaded = load_backbone(resolve_backbone(SMALL, tmp_path / "w.pth"))
    torch.testing.assert_close(
        loaded.conv1[0].weight, network.conv1[0].weight, rtol=1e-3, atol=1e-3
    )
    assert loaded.conv1[0].weight.dtype == torch.float32


def test_old_densenet_names_are_accepted(tmp_path):
    network = build("densenet121")
    old = {
        key.replace(f".{kind}{i}.", f".{kind}.{i}."): value
        for key, value in network.state_dict().items()
        for kind, i in [
            next(
                (
                    (k, i)
                    for k in ("norm", "conv")
                    for i in "12"
                    if "denselayer" in key and f".{k}{i}." in key
                ),
                ("-", "-"),
            )
        ]
    }
    assert old.keys() != network.state_dict().keys()
    torch.save(old, tmp_path / "w.pth")
    loaded = load_backbone(resolve_backbone("densenet121", tmp_path / "w.pth"))
    torch.testing.assert_close(loaded.features.norm5.bias, network.features.norm5.bias)


def test_another_number_of_classes_is_fine(tmp_path):
    path = saved(build("resnet18", num_classes=7), tmp_path / "w.pth")
    assert load_backbone(resolve_backbone("resnet18", path))(images(32)).shape == (2, 512)


@pytest.mark.parametrize(
    ("file_of", "loaded_as", "message"),
    [
        ("resnet18", "resnet34", "a part of the network"),
        ("resnet34", "resnet18", "larger network"),
        ("mobilenet_v2", "resnet18", "another architecture"),
        ("shufflenet_v2_x1_0", "shufflenet_v2_x0_5", "another member of the family"),
    ],
)
def test_weights_of_another_network_say_what_does_not_fit(file_of, loaded_as, message, tmp_path):
    spec = resolve_backbone(loaded_as, saved(build(file_of), tmp_path / "w.pth"))
    with pytest.raises(WeightsError, match=message) as caught:
        load_backbone(spec)
    assert "w.pth" in str(caught.value) and ".weight" in str(caught.value)


def in_itself():
    """A dictionary that holds itself."""
    outer = {}
    outer["model"] = outer
    return outer


class Surprise:
    """What a pickle may hide."""

    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("w.pth", lambda path: path.write_bytes(b""), "broken"),
        ("w.pth", lambda path: path.write_text("hello"), "broken"),
        ("w.safetensors", lambda path: path.write_text("hello, tensors"), "broken"),
        ("w.pth", lambda path: torch.save(Surprise(), path), "more than tensors"),
        ("w.pth", lambda path: torch.save([1, 2], path), "it is a list"),
        ("w.pth", lambda path: torch.save({"epoch": 2}, path), r"keys \['epoch'\]"),
        ("w.pth", lambda path: torch.save({0: torch.ones(2)}, path), r"keys \['0'\]"),
        ("w.pth", lambda path: torch.save({"a": torch.ones(2), "b": 3}, path), "no dict"),
        ("w.pth", lambda path: torch.save(in_itself(), path), r"keys \['model'\]"),
    ],
)
def test_files_that_hold_no_weights(name, write, message, tmp_path):
    write(tmp_path / name)
    spec = resolve_backbone(SMALL, tmp_path / name)
    with pytest.raises(WeightsError, match=message):
        load_backbone(spec)


def test_numbers_that_would_be_cut_are_refused(tmp_path):
    state = {k: v.to(torch.int8) for k, v in build(SMALL).state_dict().items() if v.ndim}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"no floating-point numbers:\n.*int8"):
        load_backbone(resolve_backbone(SMALL, tmp_path / "w.pth"))


def test_missing_file_and_wrong_ending_are_found_before_loading(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        resolve_backbone(SMALL, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="ends in"):
        resolve_backbone(SMALL, tmp_path / "w.onnx")


# --------------------------------------------------------------------------- official, by name


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
    with pytest.raises(WeightsError, match="another network than 'resnet50'"):
        resolve_backbone("resnet50", weights)


def test_unknown_member_lists_those_there_are():
    with pytest.raises(WeightsError, match=r"\['IMAGENET1K_V1', 'IMAGENET1K_V2'\]"):
        resolve_backbone("resnet50", "IMAGENET22K")


def test_weights_without_classifier_layers_are_refused():
    with pytest.raises(WeightsError, match="no classifier layers"):
        resolve_backbone("vgg16", "IMAGENET1K_FEATURES")


def test_swag_weights_bring_their_image_size():
    assert resolve_backbone("vit_b_16", "IMAGENET1K_SWAG_E2E_V1").preprocessing.image_size == 384


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("inception_v3", 74, "at least 75"),
        ("vit_b_16", 256, "224 pixels only"),
        ("maxvit_t", 256, "224 pixels only"),
        ("resnet18", 0, "number of pixels"),
        ("resnet18", 96.5, "number of pixels"),
        ("tiny_resnet", 16, "at least 32"),
    ],
)
def test_image_sizes_that_a_network_cannot_take(name, size, message):
    with pytest.raises(ValueError, match=message):
        resolve_backbone(name, image_size=size)


@pytest.mark.parametrize("weights", [True, 1.5, b"w.pth"])
def test_weights_of_a_wrong_type(weights):
    with pytest.raises(TypeError, match="weights is"):
        resolve_backbone("resnet18", weights)


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
        (224, 256, "nearest"),
        (224, 256, "bilinear", (0.5, 0.5)),
        (224, 256, "bilinear", (0.5, 0.5, float("nan"))),
        (224, 256, "bilinear", (0.5, 0.5, 0.5), (1.0, 1.0, 0.0)),
    ],
)
def test_preprocessing_refuses_what_it_cannot_do(wrong):
    with pytest.raises(ValueError):
        Preprocessing(*wrong)


# ---------------------------------------------------------------------------------- downloads


class Server(http.server.ThreadingHTTPServer):
    """Serves one file under any name; `cut` bytes of it are missing at the end."""

    def __init__(self, content, cut=0, delay=0.0):
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.cut, self.delay, self.asked = content, cut, delay, 0

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/models/{name}"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        time.sleep(self.server.delay)
        content = self.server.content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) - self.server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    running = []

    def start(content, **options):
        server = Server(content, **options)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """The folder into which torch downloads, made private."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def official(tmp_path, monkeypatch, checkpoints):
    """Content of an official file of `SMALL`, its name, and a way to say where it is served."""
    content = saved(build(SMALL), tmp_path / "official.pth").read_bytes()
    name = f"{SMALL}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    member = torchvision.models.get_model_weights(SMALL).DEFAULT

    def at(url):
        monkeypatch.setattr(member.value, "url", url)

    return content, name, at


def left(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_download_of_the_right_file(serve, official, checkpoints):
    content, name, at = official
    server = serve(content)
    at(server.url(name))
    network = load_backbone(resolve_backbone(SMALL))
    assert left(checkpoints) == [name]
    assert (checkpoints / name).read_bytes() == content
    torch.testing.assert_close(network.conv1[0].weight, build(SMALL).conv1[0].weight)
    _registry._shared.clear()
    load_backbone(resolve_backbone(SMALL))
    assert server.asked == 1


def test_download_shows_progress(serve, official, checkpoints, capsys):
    content, name, at = official
    at(serve(content).url(name))
    load_backbone(resolve_backbone(SMALL))
    assert name in capsys.readouterr().err


def test_download_with_a_wrong_hash_leaves_nothing(serve, official, checkpoints):
    content, name, at = official
    url = serve(content[:-1] + b"!").url(name)
    at(url)
    with pytest.raises(WeightsError, match="wrong hash") as caught:
        load_backbone(resolve_backbone(SMALL))
    for part in (url, repr(name), repr(str(checkpoints))):
        assert part in str(caught.value)
    assert left(checkpoints) == []


def test_download_that_is_cut_off_leaves_nothing(serve, official, checkpoints):
    content, name, at = official
    url = serve(content, cut=1000).url(name)
    at(url)
    with pytest.raises(WeightsError, match="cut off after") as caught:
        load_backbone(resolve_backbone(SMALL))
    assert url in str(caught.value) and str(len(content)) in str(caught.value)
    assert left(checkpoints) == []


def test_refused_connection_says_which_file_to_put_where(serve, official, checkpoints):
    content, name, at = official
    server = serve(content)
    server.server_close()
    at(server.url(name))
    with pytest.raises(WeightsError, match="cannot be downloaded") as caught:
        load_backbone(resolve_backbone(SMALL))
    for part in (server.url(name), repr(name), repr(str(checkpoints)), "tiny_mobilenet"):
        assert part in str(caught.value)
    assert left(checkpoints) == []


def test_file_put_by_hand_needs_no_network(official, checkpoints):
    content, name, at = official
    at(f"http://127.0.0.1:9/{name}")
    checkpoints.mkdir(parents=True)
    (checkpoints / name).write_bytes(content)
    load_backbone(resolve_backbone(SMALL))


def test_wrong_file_put_by_hand_is_found_out(official, checkpoints):
    content, name, at = official
    at(f"http://127.0.0.1:9/{name}")
    checkpoints.mkdir(parents=True)
    (checkpoints / name).write_bytes(content[:-1] + b"!")
    with pytest.raises(FingerprintMismatchError, match="not the official one"):
        load_backbone(resolve_backbone(SMALL))


def test_folder_that_cannot_be_made_is_a_weights_error(serve, official, checkpoints):
    content, name, at = official
    at(serve(content).url(name))
    checkpoints.parent.parent.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        load_backbone(resolve_backbone(SMALL))


def test_several_processes_download_once(serve, checkpoints):
    content = b"weights" * 1000
    name = f"some-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server = serve(content, delay=2.0)
    program = "from sktransfer.backbones._weights import official_file; official_file(url, 'x')"
    processes = [start(program, url=server.url(name)) for _ in range(2)]
    for process in processes:
        process.join(timeout=100)
    assert [process.exitcode for process in processes] == [0, 0]
    assert server.asked == 1
    assert (checkpoints / name).read_bytes() == content


def test_threads_download_once(serve, checkpoints):
    content = b"weights"
    server = serve(content, delay=0.2)
    url = server.url(f"some-{hashlib.sha256(content).hexdigest()[:8]}.pth")
    threads = [threading.Thread(target=official_file, args=(url, "x")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == 1


# --------------------------------------------------------------------------------- fingerprints


def test_digest_of_a_file_follows_its_content(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"one")
    assert file_digest(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"two!")
    assert file_digest(path) == hashlib.sha256(b"two!").hexdigest()


def test_weights_file_that_changed_is_found_out_even_after_loading(tmp_path):
    path = saved(build(SMALL), tmp_path / "w.pth")
    spec = resolve_backbone(SMALL, path)
    load_backbone(spec)
    saved(build(SMALL, seed=2), path)
    with pytest.raises(FingerprintMismatchError, match=r"expected: .*\n.*found: "):
        load_backbone(spec)


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    saved(build(SMALL), tmp_path / "w.pth")
    monkeypatch.chdir(tmp_path)
    assert resolve_backbone(SMALL, "w.pth").weights == str(tmp_path / "w.pth")


# ------------------------------------------------------------------------------ random weights


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
    _registry._shared.clear()
    torch.rand(3)
    second = load_backbone(spec).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert resolve_backbone("tiny_resnet", None).fingerprint == spec.fingerprint
    assert str(torch.__version__) in spec.fingerprint


@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.RandomWeightsWarning")
def test_random_transformers_of_two_sizes_are_two_networks():
    small, large = (resolve_backbone("vit_b_32", None, image_size=size) for size in (32, 64))
    assert small.fingerprint != large.fingerprint
    assert load_backbone(small)(images(32)).shape == (2, 768)
    assert load_backbone(large)(images(64)).shape == (2, 768)


# ------------------------------------------------------------------------------------- bundled


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
    state = read_state(_named._own("tiny_resnet"))
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
    torch.save(dict(read_state(_named._own(name))), tmp_path / "w.pth")
    expected = resolve_backbone(name).preprocessing
    assert resolve_backbone(name, tmp_path / "w.pth").preprocessing == expected


@pytest.mark.parametrize(
    "header",
    [
        {"image_size": "abc"},
        {"image_size": "0"},
        {"image_size": "96", "mean": "1e-3, -0.2"},
        {"image_size": "96", "std": "0, 0, 0"},
    ],
)
def test_a_header_that_makes_no_sense_is_a_weights_error(header, tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors", metadata=header)
    with pytest.raises(WeightsError, match="describes no preprocessing"):
        resolve_backbone("tiny_resnet", tmp_path / "w.safetensors")


def test_a_broken_file_of_bundled_weights_is_a_weights_error(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match="is broken"):
        resolve_backbone("tiny_resnet", tmp_path / "w.safetensors")


# ---------------------------------------------------------------------------------------- timm


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
        x = images(size or 299, 1)
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
    assert "timm/resnet18.a2_in1k" in spec.fingerprint
    with pytest.raises(WeightsError, match=r"it has \['a1_in1k'"):
        resolve_backbone("timm:resnet18", "a9_in1k")


def test_timm_tags_do_not_contradict_each_other():
    pytest.importorskip("timm")
    assert resolve_backbone("timm:resnet18.a2_in1k", "a2_in1k")
    with pytest.raises(WeightsError, match="names the weights 'a1_in1k', and weights='a2_in1k'"):
        resolve_backbone("timm:resnet18.a1_in1k", "a2_in1k")


def test_timm_unknown_name_suggests_the_nearest():
    pytest.importorskip("timm")
    with pytest.raises(UnknownBackboneError, match="'timm:resnet18'"):
        resolve_backbone("timm:resnet_18")


def test_timm_transformers_keep_their_size():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="224 pixels only"):
        resolve_backbone("timm:vit_tiny_patch16_224", image_size=256)


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


# ---------------------------------------------------------------------------------- custom modules


class Own(nn.Module):
    """Mean colour, times a setting that its repr does not show."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale
        self.layer = nn.Linear(3, 5)

    def forward(self, x):
        return self.layer(x.mean((2, 3))) * self.scale


class OwnWithOtherForward(Own):
    def forward(self, x):
        return self.layer(x.amax((2, 3))) * self.scale


def own(kind=Own, **settings):
    torch.manual_seed(0)
    return kind(**settings)


def test_custom_module_is_copied_and_never_changed():
    module = own().double().train()
    spec = resolve_backbone(module)
    network = load_backbone(spec)
    assert (spec.name, spec.weights, spec.n_features) == ("Own", "custom", 5)
    assert spec.preprocessing == Preprocessing(224, 256)
    assert network(images(8)).dtype == torch.float32
    assert module.training and module.layer.weight.requires_grad
    assert module.layer.weight.dtype == torch.float64


def test_custom_module_travels_with_its_specification():
    spec = pickle.loads(pickle.dumps(resolve_backbone(own())))
    torch.testing.assert_close(load_backbone(spec)(images(8)), own()(images(8)))


def test_custom_module_may_bring_its_preprocessing():
    module = own()
    module.preprocessing = Preprocessing(64, None, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert resolve_backbone(module).preprocessing == module.preprocessing
    assert resolve_backbone(module, image_size=96).preprocessing.image_size == 96
    module.preprocessing = "resize"
    with pytest.raises(TypeError, match="Preprocessing"):
        resolve_backbone(module)


def test_fingerprint_of_an_custom_module_follows_weights_settings_and_code():
    base = own()
    trained = copy.deepcopy(base)
    with torch.no_grad():
        trained.layer.bias += 1
    others = [trained, own(scale=2.0), own(OwnWithOtherForward)]
    prints = [resolve_backbone(module).fingerprint for module in (base, *others)]
    assert len(set(prints)) == 4
    assert resolve_backbone(own()).fingerprint == prints[0]
    assert resolve_backbone(base.eval()).fingerprint == prints[0]


def test_code_alone_changes_the_fingerprint(monkeypatch):
    before = resolve_backbone(own()).fingerprint
    monkeypatch.setattr(Own, "forward", lambda self, x: self.layer(x.amax((2, 3))))
    assert resolve_backbone(own()).fingerprint != before


class Holder(nn.Module):
    """Keeps something, under a name that is its own business."""

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


def fingerprint(kept):
    return module_fingerprint(Holder(kept))


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
        (lambda x: x.mean((2, 3)), lambda x: x.amax((2, 3))),
        (lambda x: (lambda y: y + 1)(x), lambda x: (lambda y: y + 2)(x)),
        (lambda x, k=1: x * k, lambda x, k=2: x * k),
        (scaled(1), scaled(2)),
        (functools.partial(scaled, 1), functools.partial(scaled, 2)),
        (Config(["a"]), Config(["b"])),
        (Preprocessing(64, None), Preprocessing(32, None)),
    ],
)
def test_fingerprint_of_an_custom_module_follows_whatever_it_holds(one, other):
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
    prints = [module_fingerprint(module) for module in (holder(1), holder(2), hooked)]
    assert len(set(prints)) == 3


def test_methods_and_attributes_of_a_class_change_the_fingerprint(monkeypatch):
    prints = [fingerprint(1)]
    monkeypatch.setattr(Holder, "helper", lambda self, x: x.amax((2, 3)))
    prints.append(fingerprint(1))
    monkeypatch.setattr(Holder, "factor", 2, raising=False)
    prints.append(fingerprint(1))
    assert len(set(prints)) == 3


def test_cycles_do_not_trouble_the_fingerprint():
    module = Holder([])
    module._kept.append(module)
    assert module_fingerprint(module) == module_fingerprint(copy.deepcopy(module))


def test_fingerprint_of_a_feature_extractor_is_that_of_its_copies_and_pickles():
    network = build("resnet18")
    third, fourth = (create_feature_extractor(network, [layer]) for layer in ("layer3", "layer4"))
    expected = module_fingerprint(third.eval())
    assert module_fingerprint(copy.deepcopy(third)) == expected
    assert module_fingerprint(pickle.loads(pickle.dumps(third))) == expected
    assert module_fingerprint(fourth.eval()) != expected


def test_what_cannot_be_digested_makes_a_fingerprint_of_the_instance():
    one, other = Holder(threading.Lock()), Holder(threading.Lock())
    assert module_fingerprint(one) == module_fingerprint(one)
    assert module_fingerprint(one) != module_fingerprint(other)


PRINT_FINGERPRINTS = """
import torch
from torch import nn
from torchvision.models import mobilenet_v3_small
from sktransfer.backbones._custom import module_fingerprint

class Net(nn.Module):
    names = {"a", "b", "c"}

    def __init__(self):
        super().__init__()
        self.pick = lambda x: x[:, :2] if x in {"e", "f", "g"} else x
        self.settings = {"kind": torch.float32, "act": nn.functional.relu, "sizes": {"x", "y", "z"}}

torch.manual_seed(0)
print(module_fingerprint(Net()))
print(module_fingerprint(mobilenet_v3_small()))
"""


def test_fingerprint_of_an_custom_module_is_the_same_in_other_processes(capsys):
    other = subprocess.run(
        [sys.executable, "-c", PRINT_FINGERPRINTS],
        env=other_hashes(),
        capture_output=True,
        text=True,
        check=True,
    )
    exec(PRINT_FINGERPRINTS, {"__name__": "__main__"})
    assert other.stdout == capsys.readouterr().out
    assert other.stdout.count(":code=") == 2


def test_custom_module_that_was_trained_on_is_found_out():
    module = own()
    spec = resolve_backbone(module)
    with torch.no_grad():
        module.layer.weight += 1
    with pytest.raises(FingerprintMismatchError, match="not those with which"):
        load_backbone(spec)


def test_custom_module_must_give_rows():
    with pytest.raises(ValueError, match=r"gave \(1, 4, 224, 224\)"):
        resolve_backbone(nn.Conv2d(3, 4, 3, padding=1))


def test_weights_do_not_go_with_an_custom_module():
    with pytest.raises(ValueError, match="brings its weights along"):
        resolve_backbone(own(), weights=None)


# ------------------------------------------------------------------------------------- sharing


def test_network_is_shared_by_threads_and_loaded_once(monkeypatch):
    loads = []
    original = _registry._load

    def slow(spec):
        loads.append(spec.name)
        time.sleep(0.1)
        return original(spec)

    monkeypatch.setattr(_registry, "_load", slow)
    spec, networks = resolve_backbone("tiny_resnet"), []
    threads = [
        threading.Thread(target=lambda: networks.append(load_backbone(spec))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["tiny_resnet"]
    assert len({id(network) for network in networks}) == 1


def test_least_recently_used_network_goes_first():
    shared = _registry._SharedNetworks(most=2)
    first, second = (
        shared.get("a", lambda: nn.Linear(1, 1)),
        shared.get("b", lambda: nn.Linear(1, 1)),
    )
    assert shared.get("a", None) is first
    shared.get("c", lambda: nn.Linear(1, 1))
    assert shared.get("a", None) is first
    assert shared.get("b", lambda: nn.Linear(1, 1)) is not second


def test_networks_are_bounded_by_their_bytes():
    shared = _registry._SharedNetworks(most_bytes=100)
    first = shared.get("a", lambda: nn.Linear(20, 1))
    assert shared.get("a", None) is first
    shared.get("b", lambda: nn.Linear(20, 1))
    assert shared.get("a", lambda: nn.Linear(20, 1)) is not first


def test_load_that_fails_can_be_tried_again():
    shared = _registry._SharedNetworks()
    with pytest.raises(ZeroDivisionError):
        shared.get("a", lambda: 1 / 0)
    assert shared.get("a", lambda: nn.Linear(1, 1)) is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_locks_held_at_a_fork_are_free_in_the_child():
    with _registry._shared._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if _registry._shared._lock.acquire(timeout=1) else 1)
    assert os.waitpid(child, 0)[1] == 0
