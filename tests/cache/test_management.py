"""What users see of the cache: where it is, how full, and that it can be cleared."""

import contextlib
import os
import pickle
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from cache_worker import look_up_or_compute

import sktransfer
from sktransfer._utils._sizes import parse_size
from sktransfer.cache import EmbeddingCache, resolve_cache_root
from sktransfer.exceptions import CacheWarning


def fill(root, backbone, n_rows=3, n_features=4):
    """Ask for some rows; return how many were computed."""
    computed = []

    def compute(positions):
        computed.extend(positions)
        yield from ((position, np.full(n_features, position)) for position in positions)

    cache = EmbeddingCache(root, backbone, n_features, description=f"{backbone} at 224 px")
    keys = [bytes([number]) * 20 for number in range(n_rows)]
    look_up_or_compute(cache, keys, compute, batch_size=8, share_work=False)
    return len(computed)


@pytest.mark.parametrize("cache", [None, False])
def test_no_cache(cache):
    assert resolve_cache_root(cache) is None
    with pytest.raises(ValueError, match="names no cache"):
        sktransfer.cache_info(cache)
    with pytest.raises(ValueError, match="names no cache"):
        sktransfer.clear_cache(cache=cache)


def test_info_of_nothing(home):
    info = sktransfer.cache_info()
    assert (info.root, info.backbones, info.n_paths, info.n_bytes) == (home, (), 0, 0)
    assert "no embeddings" in repr(info)


def test_info(tmp_path):
    fill(tmp_path, "resnet50", 3)
    fill(tmp_path, "resnet50", 5)
    fill(tmp_path, "vgg16", 2)
    info = sktransfer.cache_info(tmp_path)
    found = [(s.backbone, s.n_rows, s.hits, s.misses) for s in info.backbones]
    assert found == [("resnet50", 5, 3, 5), ("vgg16", 2, 0, 2)]
    assert info.n_bytes == sum(file.stat().st_size for file in tmp_path.rglob("*.sqlite"))
    assert info.memory_bytes > 0
    for text in (str(tmp_path), "resnet50 at 224 px", "allowed"):
        assert text in repr(info)
    assert pickle.loads(pickle.dumps(info)) == info


def test_info_of_a_damaged_file(tmp_path):
    fill(tmp_path, "resnet50")
    (path,) = tmp_path.rglob("*.sqlite")
    path.write_bytes(b"x" * 9000)
    with pytest.warns(CacheWarning, match="is damaged"):
        info = sktransfer.cache_info(tmp_path)
    assert [info.n_rows for info in info.backbones] == [None]
    assert "unreadable" in repr(info)


def test_info_writes_nothing(tmp_path):
    root = tmp_path / "new"
    sktransfer.cache_info(root)
    sktransfer.clear_cache(cache=root)
    assert not root.exists()


def test_clear_everything(tmp_path):
    fill(tmp_path, "resnet50")
    (tmp_path / "mine.txt").write_text("not the cache's")
    size = sktransfer.cache_info(tmp_path).n_bytes
    assert sktransfer.clear_cache(cache=tmp_path) == size
    assert sktransfer.cache_info(tmp_path).backbones == ()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine.txt"]
    assert fill(tmp_path, "resnet50") == 3


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("resnet50", ["timm:a", "timm:b", "wide_resnet50_2"]),
        ("timm:*", ["resnet50", "wide_resnet50_2"]),
    ],
)
def test_clear_some_backbones(tmp_path, pattern, left):
    for backbone in ("resnet50", "wide_resnet50_2", "timm:a", "timm:b"):
        fill(tmp_path, backbone)
    sktransfer.clear_cache(pattern, cache=tmp_path)
    assert [info.backbone for info in sktransfer.cache_info(tmp_path).backbones] == left
    assert fill(tmp_path, left[0]) == 0


def test_clear_says_that_it_holds_other_backbones_only(tmp_path):
    assert sktransfer.clear_cache("resnet05", cache=tmp_path) == 0
    fill(tmp_path, "resnet50")
    with pytest.warns(CacheWarning, match="holds nothing of 'resnet05',.* It holds 'resnet50'"):
        assert sktransfer.clear_cache("resnet05", cache=tmp_path) == 0
    assert fill(tmp_path, "resnet50") == 0


def test_clear_leaves_the_databases_of_others(tmp_path):
    fill(tmp_path, "resnet50")
    alike = tmp_path / "embeddings" / f"mine-{'0' * 12}.sqlite"
    others = [tmp_path / "embeddings" / "customers.sqlite", tmp_path / "files.sqlite", alike]
    for path in others:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE customers (name TEXT)")
    with pytest.warns(CacheWarning, match="did not write"):
        sktransfer.clear_cache(cache=tmp_path)
    assert sorted(tmp_path.rglob("*.sqlite")) == sorted(others)


def test_converted_networks_are_counted_and_cleared(tmp_path):
    folder = tmp_path / "openvino"
    folder.mkdir()
    for name in ("resnet50", "timm_resnet18.a1_in1k"):
        (folder / f"{name}-{'0' * 16}.bin").write_bytes(b"x" * 100)
    (folder / "mine.txt").write_text("not the cache's")
    info = sktransfer.cache_info(tmp_path)
    assert info.network_bytes == 200
    assert "200 B converted" in repr(info)
    assert sktransfer.clear_cache("timm:*", cache=tmp_path) == 100
    assert sktransfer.clear_cache(cache=tmp_path) == 100
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_clear_paths_only(tmp_path):
    fill(tmp_path, "resnet50")
    sktransfer.clear_cache(cache=tmp_path, paths_only=True)
    assert fill(tmp_path, "resnet50") == 0
    with pytest.raises(ValueError, match="exclude each other"):
        sktransfer.clear_cache("resnet50", cache=tmp_path, paths_only=True)


@pytest.mark.parametrize("content", [b"", b"x" * 9000])
def test_clear_what_is_damaged(tmp_path, content):
    fill(tmp_path, "resnet50")
    (path,) = tmp_path.rglob("*.sqlite")
    path.write_bytes(content)
    sktransfer.clear_cache(cache=tmp_path)
    assert not path.exists()


def test_clear_what_is_in_use(tmp_path, monkeypatch):
    from sktransfer.cache import _database

    monkeypatch.setattr(_database, "PATIENCE", 0.1)
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.05)
    fill(tmp_path, "resnet50")
    (path,) = tmp_path.rglob("*.sqlite")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OSError, match="is in use"):
        sktransfer.clear_cache(cache=tmp_path)
    other.close()
    assert path.exists()


def test_a_cache_can_be_moved(tmp_path):
    fill(tmp_path / "here", "resnet50")
    os.rename(tmp_path / "here", tmp_path / "there")
    assert fill(tmp_path / "there", "resnet50") == 0


def test_merged_caches_hold_what_any_of_them_held(tmp_path, monkeypatch):
    monkeypatch.setattr("sktransfer.cache._rows.CHUNK", 50)
    fill(tmp_path / "a", "resnet50", 3)
    fill(tmp_path / "b", "resnet50", 200)
    fill(tmp_path / "b", "vgg16", 2)
    machines = tmp_path / "a", tmp_path / "b"
    assert sktransfer.merge_caches(*machines, cache=tmp_path / "all") == 202
    assert sktransfer.merge_caches(*machines, cache=tmp_path / "all") == 0
    assert fill(tmp_path / "all", "resnet50", 200) == fill(tmp_path / "all", "vgg16", 2) == 0
    assert [info.n_rows for info in sktransfer.cache_info(tmp_path / "b").backbones] == [200, 2]


def test_damaged_rows_are_not_merged(tmp_path):
    fill(tmp_path / "a", "resnet50", 5)
    (file,) = tmp_path.glob("a/embeddings/*.sqlite")
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE rows SET row = 'text' WHERE rowid = 1")
        connection.execute("UPDATE rows SET checksum = checksum + 1 WHERE rowid = 2")
    assert sktransfer.merge_caches(tmp_path / "a", cache=tmp_path / "b") == 3


def test_what_cannot_be_merged_is_an_error(tmp_path, monkeypatch):
    fill(tmp_path / "a", "resnet50", 5)
    with pytest.raises(FileNotFoundError, match="holds no embeddings"):
        sktransfer.merge_caches(tmp_path / "a", tmp_path, cache=tmp_path / "b")
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "50")
    with pytest.raises(OSError, match=r"cannot be copied to .*c: it has reached its size limit"):
        sktransfer.merge_caches(tmp_path / "a", cache=tmp_path / "c")
    (file,) = tmp_path.glob("a/embeddings/*.sqlite")
    file.write_bytes(b"x" * 5000)
    with pytest.raises(OSError, match="it is damaged"):
        sktransfer.merge_caches(tmp_path / "a", cache=tmp_path / "b")


def test_file_names_say_what_is_in_them(tmp_path):
    fill(tmp_path, "timm:a/b c")
    (path,) = tmp_path.rglob("*.sqlite")
    assert path.name.startswith("timm_a_b-")


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("0", 0), ("1000", 1000), ("512MB", 512 * 10**6), ("1.5 gb", 15 * 10**8), ("2T", 2 * 10**12)],
)
def test_sizes(text, n_bytes):
    assert parse_size(text, "size") == n_bytes


@pytest.mark.parametrize("backbone", [3, b"resnet50", ["resnet50"], Path("resnet50")], ids=str)
def test_clear_cache_takes_the_name_of_a_backbone(backbone):
    with pytest.raises(TypeError, match="'backbone' parameter of clear_cache"):
        sktransfer.clear_cache(backbone)
