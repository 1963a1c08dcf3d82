"""A cache that fails costs time and one warning, never a result."""

import errno
import fcntl
import os
import shutil
import sqlite3
import stat
import tempfile
import threading
import warnings
from collections import namedtuple
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from cache_worker import look_up_or_compute
from filelock import FileLock

from sktransfer.cache import EmbeddingCache, _claims, _database, _rows
from sktransfer.cache._database import Database
from sktransfer.cache._failures import Trouble, trouble_from
from sktransfer.cache._memory import memory
from sktransfer.exceptions import CacheWarning

WIDTH = 512
KEYS = [blake2b(bytes([number]), digest_size=20).digest() for number in range(60)]
ROWS = np.random.default_rng(0).normal(size=(60, WIDTH)).astype(np.float32)


def make_cache(root):
    return EmbeddingCache(root, "key", WIDTH, description="tiny")


def embed(cache, n_rows=60, *, share_work=False, on_row=None):
    """Embed the first rows, check them, return how many were computed."""
    computed = []

    def compute(positions):
        for position in positions:
            computed.append(position)
            if on_row is not None:
                on_row(len(computed))
            yield position, ROWS[position]

    rows, failures = look_up_or_compute(
        make_cache(cache.root), KEYS[:n_rows], compute, batch_size=20, share_work=share_work
    )
    assert rows.tobytes() == ROWS[:n_rows].tobytes()
    assert failures == {}
    return len(computed)


def embed_twice(cache, match, n_rows=60, **options):
    """Embed; there must be one warning, in the first of two calls."""
    with pytest.warns(CacheWarning, match=match) as caught:
        first = embed(cache, n_rows, **options)
    assert len(caught) == 1
    assert str(cache.path) in str(caught[0].message)
    assert "\nHint: " in str(caught[0].message)
    memory.forget(cache.path)
    return first, embed(cache, n_rows, **options)


@pytest.fixture
def cache(tmp_path):
    return make_cache(tmp_path / "root")


@pytest.fixture
def half_full(cache):
    """A cache that holds the first 30 of 60 rows, on disk only."""
    embed(cache, 30)
    memory.forget(cache.path)
    return cache


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
def share_work(request):
    return request.param


@contextmanager
def without_privileges():
    """Root may write anywhere; nobody may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder():
    """A folder that another user can reach, as pytest's own is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for place, _, _ in os.walk(folder):
        os.chmod(place, stat.S_IRWXU)
    shutil.rmtree(folder)


def test_read_only_folder_is_read(public_folder, share_work):
    cache = make_cache(public_folder)
    embed(cache, 30)
    for place, _, names in os.walk(public_folder):
        for name in names:
            os.chmod(os.path.join(place, name), 0o444)
        os.chmod(place, 0o555)
    with without_privileges():
        memory.forget(cache.path)
        assert embed(cache, 30) == 0  # and no warning: nothing was to be written
        memory.forget(cache.path)
        assert embed_twice(cache, "cannot be written", share_work=share_work) == (30, 30)


def test_folder_that_cannot_be_made(public_folder):
    public_folder.chmod(0o555)
    cache = make_cache(public_folder / "new")
    with without_privileges():
        assert embed_twice(cache, "cannot be written") == (60, 60)


def test_folder_that_cannot_be_entered(public_folder, share_work):
    cache = make_cache(public_folder / "closed")
    embed(cache, 30)
    memory.forget(cache.path)
    (public_folder / "closed").chmod(0o600)
    with without_privileges():
        assert embed_twice(
            cache, "(?s)cannot be used.*Permission denied", share_work=share_work
        ) == (60, 60)


def test_empty_cache_that_cannot_be_written(public_folder, share_work):
    (public_folder / "embeddings").mkdir(mode=0o755)
    public_folder.chmod(0o555)
    (public_folder / "locks" / "x").mkdir(parents=True)
    with without_privileges():
        cache = make_cache(public_folder)
        assert embed_twice(cache, "cannot be written", share_work=share_work) == (60, 60)
    assert not list((public_folder / "embeddings").iterdir())


def test_a_folder_in_which_nothing_can_be_made(tmp_path, monkeypatch):
    real, closed = Path.mkdir, tmp_path / "proc"
    closed.mkdir()

    def mkdir(path, *args, **kwargs):  # as in /proc, which exists and says ENOENT
        if path.parent == closed:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert embed_twice(make_cache(closed / "x"), "cannot be used") == (60, 60)


def test_root_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    cache = make_cache(tmp_path / "file")
    assert embed_twice(cache, "cannot be used") == (60, 60)


def test_disk_full_within_a_transaction(half_full, monkeypatch, share_work):
    real = Database._read_meta

    def small_disk(self):
        self._connection.execute("PRAGMA max_page_count=1")  # no more than it has
        return real(self)

    monkeypatch.setattr(Database, "_read_meta", small_disk)
    first, second = embed_twice(half_full, "no room for more.*disk", share_work=share_work)
    assert first == second == 30
    monkeypatch.setattr(Database, "_read_meta", real)
    memory.forget(half_full.path)
    embed(half_full)
    memory.forget(half_full.path)
    assert embed(half_full) == 0


def test_disk_is_not_filled_to_the_brim(half_full, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(_rows.shutil, "disk_usage", lambda _: usage(10**12, 0, 9 * 10**8))
    assert embed_twice(half_full, "the disk is full: 900 MB of 1 TB free") == (30, 30)


def test_size_limit(half_full, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "100KB")
    assert embed_twice(half_full, "(?s)size limit: .* of 100 KB.*CACHE_LIMIT") == (30, 30)


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("offset", [0, 100, 4096])
def test_corrupted_file(half_full, offset, share_work):
    size = half_full.path.stat().st_size
    overwrite(half_full.path, offset, b"\xa5" * (size - offset))
    advice = rf"(?s)it is damaged.*clear_cache\(cache={str(half_full.root)!r}\)"
    assert embed_twice(half_full, advice, share_work=share_work) == (60, 60)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_file(half_full, share):
    os.truncate(half_full.path, int(half_full.path.stat().st_size * share))
    with pytest.warns(CacheWarning, match="it is damaged"):
        embed(half_full)


def test_a_flipped_bit_in_a_row_is_found_and_mended(half_full):
    content = half_full.path.read_bytes()
    offset = content.index(ROWS[7].tobytes()[:400]) + 200
    overwrite(half_full.path, offset, bytes([content[offset] ^ 1]))
    assert embed_twice(half_full, "1 rows have wrong checksums", 30) == (1, 0)


def test_empty_file_is_filled(cache):
    cache.path.parent.mkdir(parents=True)
    cache.path.touch()
    assert embed(cache) == 60
    memory.forget(cache.path)
    assert embed(cache) == 0


@pytest.mark.parametrize("version", ["'2'", "'²'", "'-1'", "NULL", f"'{'9' * 5000}'", "x'ff'"])
def test_other_format(half_full, version):
    before = alter(half_full, f"UPDATE meta SET value = {version} WHERE name = 'schema_version'")
    assert embed_twice(half_full, "a newer version") == (60, 60)
    assert half_full.path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE meta SET value = 'another' WHERE name = 'key'",
        "UPDATE meta SET value = 'another' WHERE name = 'key'; DROP TABLE rows",
        "DROP TABLE meta",
    ],
)
def test_a_file_that_is_not_this_store(half_full, change):
    before = alter(half_full, change)
    assert embed_twice(half_full, "it belongs to 'another'|did not write") == (60, 60)
    assert half_full.path.read_bytes() == before


def alter(cache, statement):
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.executescript(statement)
    return cache.path.read_bytes()


@pytest.mark.parametrize("victim", ["root", "file"])
def test_store_vanishes_in_the_middle(half_full, victim, share_work):
    def vanish(n_computed):
        if n_computed == 15:
            shutil.rmtree(half_full.root) if victim == "root" else half_full.path.unlink()

    with pytest.warns(CacheWarning, match="moved or deleted while in use") as caught:
        assert embed(half_full, on_row=vanish, share_work=share_work) == 30
    assert len(caught) == 1
    memory.forget(half_full.path)
    embed(half_full)
    memory.forget(half_full.path)
    assert embed(half_full) == 0  # the next call has started it anew


def test_locked_file(half_full, monkeypatch):
    monkeypatch.setattr(_database, "PATIENCE", 0.1)
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(half_full.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert embed_twice(half_full, "is locked by another process") == (60, 60)
        other.execute("ROLLBACK")
    assert embed(half_full) == 0


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_file_system_without_locks(half_full, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert embed_twice(half_full, "file locks|not implemented|No locks") == (
        30,
        30,
    )


def test_another_process_holds_a_stripe_and_hangs(half_full, monkeypatch, share_work):
    monkeypatch.setattr(_claims, "GLANCE", 0.05)
    monkeypatch.setattr(_claims, "PATIENCE", 0.2)
    stripe, held, done = _claims.stripe_of(KEYS[45]), threading.Event(), threading.Event()

    def hang():
        with FileLock(half_full._locks.directory / f"{stripe:02x}.lock"):
            held.set()
            done.wait()

    thread = threading.Thread(target=hang)
    thread.start()
    held.wait()
    try:
        with pytest.warns(CacheWarning, match="claimed embeddings but added none"):
            assert embed(half_full, share_work=share_work) == 30
    finally:
        done.set()
        thread.join()
    memory.forget(half_full.path)
    assert embed(half_full) == 0


def test_who_waits_sees_the_rows_of_all_stripes(half_full, monkeypatch):
    """The other process still holds every stripe when the rows have arrived."""
    monkeypatch.setattr(_claims, "GLANCE", 0.001)
    monkeypatch.setattr(_claims, "PATIENCE", 1.0)
    wanted, seen = {key: key for key in KEYS[30:]}, set()
    with make_cache(half_full.root) as holder, make_cache(half_full.root) as waiting:
        assert len(next(holder.claim(wanted))[1]) == 30
        with make_cache(half_full.root) as writer:
            writer.write(dict(zip(KEYS[30:], ROWS[30:], strict=True)))
        for (found, _), claimed in waiting.claim(wanted):
            assert not claimed
            seen.update(found)
    assert seen == set(wanted)


def test_rows_in_memory_outlast_the_disk(half_full):
    shutil.rmtree(half_full.root)
    half_full.root.write_text("")
    with pytest.warns(CacheWarning):
        embed(half_full)
    assert embed(half_full) == 0


def test_warnings_as_errors_leave_no_lock_behind(half_full, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "1KB")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CacheWarning):
            embed(half_full)
    monkeypatch.delenv("SKTRANSFER_CACHE_LIMIT")
    memory.forget(half_full.path)
    assert embed(half_full) == 30


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(errno.ENOSPC, ""), "full"),
        (OSError(errno.EDQUOT, ""), "full"),
        (OSError(errno.EROFS, ""), "read-only"),
        (OSError(errno.ESTALE, ""), "unusable"),
        (OSError(errno.EIO, ""), "unusable"),
        (sqlite3.OperationalError("nobody knows"), "unusable"),
        (Trouble("locked", "a reason"), "locked"),
    ],
)
def test_causes(error, cause, tmp_path):
    assert trouble_from(error, tmp_path).cause == cause
