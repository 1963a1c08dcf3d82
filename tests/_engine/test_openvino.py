"""Conversions for OpenVINO are kept for other processes, and checked before use."""

import shutil

import pytest
from new_process import run
from sklearn.base import clone

from sktransfer import ImageEmbedder
from sktransfer._engine import _networks, _openvino, has_openvino
from sktransfer._utils._lru import LRU
from sktransfer.cache._memory import memory
from sktransfer.datasets import make_shapes

pytestmark = pytest.mark.skipif(not has_openvino(), reason="needs openvino")


@pytest.fixture(scope="module")
def images():
    return make_shapes(n_samples=9, image_size=40, random_state=0).data


@pytest.fixture(autouse=True)
def nothing_converted(home, monkeypatch):
    """Neither this process nor the cache has a converted network."""
    (home / "openvino").unlink()
    monkeypatch.setattr(_networks, "_runners", LRU(4))


@pytest.fixture(scope="module")
def conversion(images, tmp_path_factory):
    """A fitted embedder, its rows, and the directory of its conversion."""
    cache = tmp_path_factory.mktemp("converted")
    embedder = ImageEmbedder("tiny_resnet", image_size=48, engine="openvino", cache=cache)
    return embedder, embedder.fit_transform(images), cache / "openvino"


@pytest.fixture
def converted(conversion, home):
    """An embedder, its rows, and the path of its conversion without suffix."""
    embedder, rows, folder = conversion
    shutil.copytree(folder, home / "openvino")
    (xml,) = (home / "openvino").glob("*.xml")
    return embedder, rows, xml.with_suffix("")


def embed_in_new_process(embedder, images, monkeypatch):
    """Embed without the networks and rows that this process has in memory."""
    monkeypatch.setattr(_networks, "_runners", LRU(4))
    return clone(embedder).set_params(cache=True).fit(images).transform(images)


_convert, _results = _openvino._convert, []


def _converted(*args):
    """Convert the network of this module once."""
    if not _results:
        _results.append(_convert(*args))
    return _results[0]


@pytest.fixture
def conversions(monkeypatch):
    """One entry for each conversion."""
    made = []
    monkeypatch.setattr(_openvino, "_convert", lambda *args: made.append(args) or _converted(*args))
    return made


def forget_rows(home):
    for path in (home / "embeddings").glob("*.sqlite"):
        memory.forget(path)
    shutil.rmtree(home / "embeddings")


def test_a_conversion_is_made_once(converted, images, home, monkeypatch, conversions):
    embedder, rows, file = converted
    assert {path.suffix for path in file.parent.iterdir()} == {".xml", ".bin", ".sha256"}
    assert (embed_in_new_process(embedder, images, monkeypatch) == rows).all()
    assert conversions == []


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [(".bin", "flip"), (".xml", "cut"), (".bin", "remove"), (".sha256", "cut")],
)
def test_a_damaged_conversion_is_made_again(
    converted, images, home, monkeypatch, conversions, suffix, damage
):
    embedder, rows, file = converted
    victim = file.with_suffix(suffix)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 64
    victim.write_bytes(content if damage == "flip" else content[: len(content) // 3])
    if damage == "remove":
        victim.unlink()
    assert (embed_in_new_process(embedder, images, monkeypatch) == rows).all()
    assert len(conversions) == 1
    forget_rows(home)
    assert (embed_in_new_process(embedder, images, monkeypatch) == rows).all()
    assert len(conversions) == 1  # and it was kept


def test_a_folder_that_cannot_be_written_costs_only_time(images, home):
    (home / "openvino").write_text("a file")
    embedder = ImageEmbedder("tiny_resnet", image_size=48, engine="openvino").fit(images)
    expected = ImageEmbedder("tiny_resnet", image_size=48, engine="openvino", cache=None)
    assert (embedder.transform(images) == expected.fit_transform(images)).all()


WITHOUT_TELEMETRY = """
import os, sys
import numpy as np
import sktransfer

if imported_before:
    import openvino_telemetry
embedder = sktransfer.ImageEmbedder("tiny_mobilenet", image_size=32, engine="openvino", cache=None)
embedder.fit_transform([np.zeros((9, 9, 3), dtype=np.uint8)])
assert ("openvino_telemetry" in sys.modules) == imported_before
assert "openvino.tools.ovc" in sys.modules and not os.listdir(os.environ["HOME"])
"""


@pytest.mark.parametrize("imported_before", [False, True])
def test_nothing_is_reported_to_the_makers_of_openvino(tmp_path, monkeypatch, imported_before):
    monkeypatch.setenv("HOME", str(tmp_path))
    run(WITHOUT_TELEMETRY, imported_before=imported_before)
