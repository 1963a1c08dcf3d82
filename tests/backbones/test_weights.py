"""Weights files: reading, fitting, digests, and files that are refused."""

import hashlib
import os

import pytest
import torch
from networks import SMALL, build, images, saved

from sktransfer.backbones import _weights, load_backbone, resolve_backbone
from sktransfer.backbones._weights import file_digest
from sktransfer.exceptions import FingerprintMismatchError, WeightsError


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
        ("w.pth", lambda path: path.write_bytes(b""), "damaged"),
        ("w.pth", lambda path: path.write_text("hello"), "damaged"),
        ("w.safetensors", lambda path: path.write_text("hello, tensors"), "damaged"),
        ("w.pth", lambda path: torch.save(Surprise(), path), "more than tensors"),
        ("w.pth", lambda path: torch.save([1, 2], path), "it contains a list"),
        ("w.pth", lambda path: torch.save({"epoch": 2}, path), r"keys \['epoch'\]"),
        ("w.pth", lambda path: torch.save({0: torch.ones(2)}, path), r"keys \['0'\]"),
        ("w.pth", lambda path: torch.save({"a": torch.ones(2), "b": 3}, path), "must contain"),
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
    with pytest.raises(WeightsError, match=r"are not floating-point:\n.*int8"):
        load_backbone(resolve_backbone(SMALL, tmp_path / "w.pth"))


def test_weights_that_are_all_zero_are_refused(tmp_path):
    state = {k: torch.zeros_like(v) for k, v in build(SMALL).state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="are all zero"):
        load_backbone(resolve_backbone(SMALL, tmp_path / "w.pth"))


def test_missing_file_and_wrong_ending_are_found_before_loading(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        resolve_backbone(SMALL, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="must end in"):
        resolve_backbone(SMALL, tmp_path / "w.onnx")


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


def test_a_second_change_within_one_tick_of_the_clock_is_seen(tmp_path):
    path = tmp_path / "w.pth"
    digests = set()
    for number in range(50):
        path.write_bytes(b"%2d" % number)
        digests.add(file_digest(path))
    assert len(digests) == 50


def test_a_weights_file_replaced_while_it_is_loaded_is_refused(tmp_path, monkeypatch):
    path = saved(build(SMALL), tmp_path / "w.pth")
    spec = resolve_backbone(SMALL, path)
    original = torch.load

    def replaced_before(file, **options):
        os.replace(saved(build(SMALL, seed=2), tmp_path / "other.pth"), path)
        return original(file, **options)

    monkeypatch.setattr(torch, "load", replaced_before)
    with pytest.raises(FingerprintMismatchError, match=r"expected: .*\n.*found: "):
        load_backbone(spec)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("backbone", [SMALL, "tiny_resnet"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_read(name, backbone, kind, tmp_path):
    path = tmp_path / name
    make = {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
    }
    make[kind]()
    with pytest.raises(WeightsError, match="not a regular file"):
        resolve_backbone(backbone, path)


def test_a_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    path = saved(build(SMALL), tmp_path / "w.pth")
    monkeypatch.setattr(_weights, "MAX_BYTES", 1000)
    with pytest.raises(WeightsError, match="at most 1 KB are read"):
        resolve_backbone(SMALL, path)


@pytest.mark.parametrize("metadata", [3, {"": 5}, {"conv1.1": {"version": "two"}}])
def test_odd_metadata_of_a_checkpoint_is_a_weights_error(metadata, tmp_path):
    state = build(SMALL).state_dict()
    state._metadata = metadata
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="PyTorch cannot load it"):
        load_backbone(resolve_backbone(SMALL, tmp_path / "w.pth"))
