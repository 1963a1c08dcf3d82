"""Digests of many images, without reading the files that have not changed since the last time.

A file counts as unchanged while its absolute path, size, modification time, change time and inode
are the same, as in git. Files changed within the last two seconds are not remembered: they may
change again within the same tick of the file system's clock.
"""

import hashlib
import os
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from operator import attrgetter

from .._utils._directories import working_directory
from .._utils._fork import fork_safe_lock
from ..cache import KNOWN_FILES, Database, Trouble, on_clear, warn_once
from ..exceptions import UnreadableImageError
from ._containers import is_path
from ._digests import digest_image

__all__ = ["digest_images"]

#: Seconds within which a file may change without a sign, on the coarsest file systems (FAT).
_RACY_SECONDS = 2.0

#: Files of one cache that one process remembers in memory, some 300 bytes each.
_MAX_IN_MEMORY = 300_000

#: Images that are looked up, digested and remembered together.
_SLICE = 10_000

#: Images that a thread digests at a time: a handover takes as long as digesting a small file.
_HANDFUL = 16

#: Rows that one SQL query asks for.
_CHUNK = 500

_CREATE_TABLE = (
    "CREATE TABLE IF NOT EXISTS paths "
    "(path BLOB PRIMARY KEY, stamp TEXT NOT NULL, digest BLOB NOT NULL, "
    "checksum INTEGER NOT NULL) WITHOUT ROWID"
)

#: What this process remembers: {root: {path: (stamp, digest)}}. The roots are text, because
#: pathlib's paths are slow to compare.
_in_memory = {}
_lock = fork_safe_lock()


@on_clear
def _forget(root):
    _in_memory.pop(os.fspath(root), None)


def digest_images(images, root=None, n_threads=4):
    """Digest the content of images; files that have not changed are not read again.

    Parameters
    ----------
    images : list
        Images of any kind.
    root : pathlib.Path or None, default=None
        Directory of the cache, where the digests of files are remembered. None remembers nothing:
        every file is read.
    n_threads : int, default=4
        Number of threads that read and digest.

    Returns
    -------
    list of (bytes or UnreadableImageError)
        For each image its digest, or why it cannot be read.

    Notes
    -----
    With the environment variable ``SKTRANSFER_TRUST_PATHS=0`` every file is read, and what is
    remembered is corrected.
    """
    digests = []
    with ExitStack() as stack:
        known = None if root is None else stack.enter_context(_KnownFiles(root))
        pool = stack.enter_context(ThreadPoolExecutor(max(1, n_threads)))
        for start in range(0, len(images), _SLICE):
            digests += _digest_slice(images[start : start + _SLICE], known, pool)
    return digests


def _digest_slice(images, known, pool):
    looked_at = time.time_ns()
    files = [] if known is None else _files_of(images)
    digests = [None] * len(images) if known is None else known.recall(files)
    new = [index for index, digest in enumerate(digests) if digest is None]

    def digest_handful(start):
        for index in new[start : start + _HANDFUL]:
            try:
                digests[index] = digest_image(images[index])
            except UnreadableImageError as error:
                digests[index] = error

    list(pool.map(digest_handful, range(0, len(new), _HANDFUL)))
    if known is not None and new:
        known.learn([(*files[index], digests[index]) for index in new], looked_at)
    return digests


#: The part of ``os.stat`` that changes with a file.
_stamp_of = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")


def _files_of(images):
    """Return (absolute path, stamp) of each image, with None for what it does not have."""
    directory = working_directory()
    paths = [_absolute(directory, image) for image in images]
    try:
        stamps = list(map(_stamp_of, map(os.stat, paths)))  # no Python code for each file
    except (OSError, ValueError, TypeError):  # one of them is not a file
        stamps = [_stamp(path) for path in paths]
    return list(zip(paths, stamps, strict=True))


def _absolute(directory, image):
    if type(image) is not str:
        if not is_path(image):
            return None
        try:
            image = os.fsdecode(image)
        except Exception:  # __fspath__ may raise anything
            return None
    if os.sep != "/":
        return os.path.join(directory, image)
    return image if image.startswith("/") else directory + image  # much faster than os.path


def _stamp(path):
    try:
        return path and _stamp_of(os.stat(path))
    except (OSError, ValueError):
        return None


class _KnownFiles:
    """The digests of files in memory and on disk, for one call."""

    def __init__(self, root):
        self._entries = _in_memory.setdefault(os.fspath(root), {})
        self._database = Database(root / KNOWN_FILES, _CREATE_TABLE, {"key": "paths"})
        self._usable = True

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._database.close()

    def recall(self, files):
        """Return the digest of each (path, stamp), None for files that are new or have changed."""
        if os.environ.get("SKTRANSFER_TRUST_PATHS", "1").lower() in ("0", "false", "no"):
            return [None] * len(files)
        entries = self._entries
        digests = [
            entry[1] if (entry := entries.get(path)) and entry[0] == stamp else None
            for path, stamp in files
        ]
        rest = [i for i, (_, stamp) in enumerate(files) if stamp and digests[i] is None]
        keys = [_path_key(files[i][0]) for i in rest]
        rows = {}
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            sql = f"SELECT * FROM paths WHERE path IN ({','.join('?' * len(chunk))})"
            for row in self._with_disk(self._database.read, sql, chunk):
                if row == _sealed(*row[:3]):  # a damaged row is ignored
                    rows[row[0]] = row[1:3]
        for i, key in zip(rest, keys, strict=True):
            stamp, digest = rows.get(key, (None, None))
            if stamp == _stamp_text(files[i][1]):
                digests[i] = digest
        self._remember([(*files[i], digests[i]) for i in rest if digests[i]])
        return digests

    def learn(self, read, looked_at):
        """Remember (path, stamp, digest) of files that were stamped at a time (ns) and then read.

        Images without a stamp and unreadable files are ignored.
        """
        racy = looked_at - _RACY_SECONDS * 1e9
        learnt = [
            (path, stamp, digest)
            for path, stamp, digest in read
            if stamp
            and isinstance(digest, bytes)
            and max(stamp[1:3]) <= racy
            and _stamp(path) == stamp
        ]
        self._remember(learnt)
        if learnt:
            rows = [_sealed(_path_key(path), _stamp_text(stamp), d) for path, stamp, d in learnt]
            sql = "INSERT OR REPLACE INTO paths VALUES (?, ?, ?, ?)"
            self._with_disk(self._database.write, sql, rows)

    def _remember(self, learnt):
        with _lock:
            for path, stamp, digest in learnt:
                self._entries.pop(path, None)  # so that it becomes the newest
                self._entries[path] = stamp, digest
            while len(self._entries) > _MAX_IN_MEMORY:
                del self._entries[next(iter(self._entries))]

    def _with_disk(self, operation, *arguments):
        """Use the database; the first failure emits a warning and is the last attempt."""
        if not self._usable:
            return []
        try:
            return operation(*arguments)
        except Trouble as trouble:
            self._usable = False
            warn_once(self._database.path, trouble)
            return []


def _path_key(path):
    # File names can reveal a lot, so none is written to disk.
    return hashlib.blake2b(os.fsencode(path), digest_size=16).digest()


def _stamp_text(stamp):
    return ":".join(map(str, stamp))


def _sealed(key, stamp, digest):
    """Return a row of the database, with its checksum."""
    return key, stamp, digest, zlib.crc32(repr((key, stamp, digest)).encode())
