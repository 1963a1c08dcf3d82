"""Where a cache is and who may enter it; an impossible place costs one warning, never an error."""

import os
import stat
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from cache_worker import look_up_or_compute
from new_process import run

import sktransfer
from sktransfer import ImageEmbedder
from sktransfer.cache import EmbeddingCache, _failures, _location, resolve_cache_root
from sktransfer.cache._location import cache_limit, make_private
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import CacheWarning


@pytest.fixture(autouse=True)
def first_warnings(monkeypatch):
    """Warnings come once per process; here, once per test."""
    monkeypatch.setattr(_failures, "_warned", set())
    monkeypatch.setattr(_location, "_exposed", set())


def fill(root):
    cache = EmbeddingCache(root, "key", 4, description="tiny")
    keys = [bytes([number]) * 20 for number in range(3)]
    rows = np.ones((3, 4), dtype=np.float32)
    compute = lambda indices: ((index, rows[index]) for index in indices)  # noqa: E731
    look_up_or_compute(cache, keys, compute, batch_size=8, share_work=False)


def test_default_is_the_users_cache_directory(monkeypatch):
    monkeypatch.delenv("SKTRANSFER_HOME")
    assert resolve_cache_root(True) == Path(platformdirs.user_cache_dir("sktransfer"))


def test_environment_variable_overrides(home):
    assert resolve_cache_root(True) == home


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = tmp_path / "here"
    assert {resolve_cache_root(cache) for cache in ("here", Path("here"), "~/here")} == {expected}


@pytest.mark.parametrize("cache", [1, 0, 2.5, ["here"]])
def test_other_types_are_refused(cache):
    with pytest.raises(TypeError, match=r"cache=.* Pass True"):
        resolve_cache_root(cache)


def test_an_empty_text_is_refused():
    with pytest.raises(ValueError, match='cache="" is not a directory'):
        resolve_cache_root("")


@pytest.mark.parametrize("text", ["much", "-1GB", "1 XB", "1e9"])
def test_wrong_sizes(text, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", text)
    with pytest.raises(
        ValueError, match=r"^SKTRANSFER_CACHE_LIMIT=.* is not a size.* like \"512MB\""
    ):
        cache_limit()


@pytest.mark.parametrize("name", ["SKTRANSFER_CACHE_LIMIT", "SKTRANSFER_MEMORY_LIMIT"])
def test_a_wrong_size_is_an_error_before_any_image_is_read(name, monkeypatch, tmp_path):
    embedder = ImageEmbedder(cache=tmp_path).fit(["no-such-image.jpg"])
    monkeypatch.setenv(name, "much")
    with pytest.raises(ValueError, match=f"{name}='much' is not a size"):
        embedder.transform(["no-such-image.jpg"])


def test_a_size_may_have_any_number_of_digits(monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", f"{10**400}GB")
    assert cache_limit() == 10**409


@pytest.mark.parametrize("cache", ["a\0b", "a\ud800b", "~no-such-user/x"])
def test_an_impossible_path_costs_one_warning(cache):
    with pytest.warns(CacheWarning, match="cannot be used") as caught:
        assert resolve_cache_root(cache) is None
        assert resolve_cache_root(cache) is None
    assert len(caught) == 1
    with pytest.raises(ValueError, match="names no cache"):
        sktransfer.cache_info(cache)


def test_a_home_of_no_user_costs_one_warning(monkeypatch):
    monkeypatch.setenv("SKTRANSFER_HOME", "~no-such-user/x")
    images = make_shapes(4, random_state=0).data
    with pytest.warns(CacheWarning, match="no-such-user"):
        ImageEmbedder(image_size=32, engine="torch").fit_transform(images)


PROGRAM = """
import os, warnings
for name in ("HOME", "SKTRANSFER_HOME", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
from sktransfer import ImageEmbedder
from sktransfer.datasets import make_shapes
shapes = make_shapes(4, random_state=0)
embedder = ImageEmbedder(image_size=32, engine="torch", cache=None).fit(shapes.data)
embedder.transform(shapes.data)  # imports everything
os.setresuid(54321, 54321, 0)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        embedder.set_params(cache=True).transform(shapes.data)
os.setresuid(0, 0, 0)  # what measures coverage writes a file at the end
messages = [str(w.message) for w in caught if w.category.__name__ == "CacheWarning"]
assert len(messages) == 1, messages
assert "home directory" in messages[0], messages
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_user_without_a_home_directory_gets_one_warning():
    run(PROGRAM)


def test_only_the_owner_may_enter(tmp_path):
    before = os.umask(0)
    try:
        fill(tmp_path / "new" / "cache")
    finally:
        os.umask(before)
    for place in ("new", "new/cache", "new/cache/embeddings", "new/cache/locks"):
        assert stat.S_IMODE((tmp_path / place).stat().st_mode) == 0o700
    assert make_private(tmp_path) is None  # which exists, and stays as it is


@pytest.mark.parametrize("place", [".", "embeddings"])
def test_a_cache_that_others_may_write_to_gets_one_warning(tmp_path, place):
    fill(tmp_path / "cache")
    (tmp_path / "cache" / place).chmod(0o777)
    images = make_shapes(4, random_state=0).data
    embedder = ImageEmbedder(image_size=32, engine="torch", cache=tmp_path / "cache").fit(images)
    with pytest.warns(CacheWarning, match="(?s)Other users may write to.*chmod go-w") as caught:
        embedder.transform(images)
        embedder.transform(images)
    assert len(caught) == 1
