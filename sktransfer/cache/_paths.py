"""The digests of files that have not changed since they were last read.

A file is believed to be unchanged while its absolute path, size, modification time, change time
and inode are the same, as ``git`` believes it. Files changed within the last two seconds are not
remembered: they may change again within the same tick of the clock.
"""

import hashlib
import os
import time
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import chain
from operator import attrgetter
from pathlib import Path

from .._utils._directories import working_directory
from ..exceptions import UnreadableImageError
from ._database import Database, fork_safe_lock
from ._failures import Trouble, warn_once

__all__ = ["PATHS", "PathMemory", "digest_all", "path_cache", "paths_database"]

#: File below the root of a store.
PATHS = "paths.sqlite"

#: Seconds within which a file may change without any sign, on the coarsest file systems (FAT).
_RACY_SECONDS = 2.0

#: Paths of one store that one process keeps in memory, some 300 bytes each.
_MAX_IN_MEMORY = 300_000

#: Images that are looked up, hashed and remembered together.
_SLICE = 10_000

#: Files that a thread reads and digests before it comes back for more: handing over takes as long
#: as digesting a small one.
_HANDFUL = 16

_CHUNK = 500

_CREATE_TABLE = (
    "CREATE TABLE IF NOT EXISTS paths "
    "(path BLOB PRIMARY KEY, stamp TEXT NOT NULL, digest BLOB NOT NULL, "
    "checksum INTEGER NOT NULL) WITHOUT ROWID"
)
_INSERT = "INSERT OR REPLACE INTO paths VALUES (?, ?, ?, ?)"


def digest_all(images, digest_image, *, root=None, n_threads=4):
    """Digest the content of images, reading no file that has not changed.

    Parameters
    ----------
    images : list
        Paths (``str`` or ``os.PathLike``) or images of any other kind.
    digest_image : callable
        Digests one image, path or other, into 20 bytes; raises ``UnreadableImageError``.
    root : pathlib.Path or None, default=None
        Directory of the store, where digests of paths are remembered, see `resolve_cache_root`.
        None neither remembers nor believes anything: every file is read.
    n_threads : int, default=4
        Threads that read and digest.

    Returns
    -------
    list of (bytes or UnreadableImageError)
        For each image its digest, or why it has none.

    Notes
    -----
    With the environment variable ``SKTRANSFER_TRUST_PATHS=0`` every file is read and what is
    remembered of it is put right.
    """
    digests = []
    with ExitStack() as stack:
        memory = None if root is None else stack.enter_context(PathMemory(root))
        pool = stack.enter_context(ThreadPoolExecutor(max(1, n_threads)))
        for start in range(0, len(images), _SLICE):
            digests += _digest_slice(images[start : start + _SLICE], digest_image, memory, pool.map)
    return digests


def _digest_slice(images, digest_image, memory, map_in_threads):
    looked_at = time.time_ns()
    if memory is None:
        files, digests = [], [None] * len(images)
    else:
        files = _files(images)
        digests = memory.recall(files)
    new = [position for position, digest in enumerate(digests) if digest is None]
    handfuls = [
        [images[p] for p in new[start : start + _HANDFUL]] for start in range(0, len(new), _HANDFUL)
    ]
    results = chain.from_iterable(map_in_threads(partial(_attempts, digest_image), handfuls))
    for position, result in zip(new, results, strict=True):
        digests[position] = result
    if memory is not None and new:
        memory.learn([(*files[p], digests[p]) for p in new], looked_at)
    return digests


def _attempts(digest_image, images):
    return [_attempt(digest_image, image) for image in images]


def _attempt(digest_image, image):
    try:
        return digest_image(image)
    except UnreadableImageError as error:
        return error


def _files(images):
    """Return (absolute path, stamp) of each image, with None for what it does not have."""
    directory = working_directory()
    paths = [_absolute(directory, image) for image in images]
    try:
        stamps = list(map(_stamp_of, map(os.stat, paths)))  # without a step of Python for each
    except (OSError, ValueError, TypeError):  # one of them is no file
        stamps = [path and _stamp(path) for path in paths]
    return list(zip(paths, stamps, strict=True))


def _absolute(directory, image):
    if type(image) is not str:
        if not isinstance(image, (str, os.PathLike)):
            return None
        image = os.fsdecode(image)
    if os.sep != "/":
        return os.path.join(directory, image)
    # Much faster than asking os.path for each.
    return image if image.startswith("/") else directory + image


#: What changes with a file, of what ``os.stat`` returns.
_stamp_of = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")


def _stamp(path):
    try:
        return _stamp_of(os.stat(path))
    except (OSError, ValueError):
        return None


def _stamp_text(stamp):
    return ":".join(map(str, stamp))


def _is_racy(stamp, looked_at):
    _, mtime, ctime, _ = stamp
    return max(mtime, ctime) > looked_at - _RACY_SECONDS * 1e9


def _trusts_paths():
    return os.environ.get("SKTRANSFER_TRUST_PATHS", "1").lower() not in ("0", "false", "no")


def _path_key(path):
    # Names of files can tell a lot, so none is written to disk.
    return hashlib.blake2b(os.fsencode(path), digest_size=16).digest()


class PathCache:
    """What one process remembers of paths: {root: {path: (stamp, digest)}}, bounded.

    Roots are kept as text here, because paths of `pathlib` are slow to compare.
    """

    def __init__(self):
        self._roots = {}
        self._lock = fork_safe_lock()

    def get_many(self, root, files):
        """Return the digest of each (path, stamp), None where the stamp is not the one known."""
        with self._lock:
            entries = self._roots.get(os.fspath(root), {})
            return [
                entry[1] if (entry := entries.get(path)) and entry[0] == stamp else None
                for path, stamp in files
            ]

    def put_many(self, root, learnt):
        """Remember (path, stamp, digest); the oldest of a root go when there are too many."""
        with self._lock:
            entries = self._roots.setdefault(os.fspath(root), OrderedDict())
            for path, stamp, digest in learnt:
                entries[path] = stamp, digest
                entries.move_to_end(path)
            while len(entries) > _MAX_IN_MEMORY:
                entries.popitem(last=False)

    def forget(self, root):
        """Drop what is remembered for one root."""
        with self._lock:
            self._roots.pop(os.fspath(root), None)


path_cache = PathCache()


def paths_database(root):
    """Return the file of remembered paths of one root."""
    return Database(Path(root) / PATHS, _CREATE_TABLE, {"key": "paths"})


class PathMemory:
    """Digests by path, in memory and on disk, for one call.

    Parameters
    ----------
    root : pathlib.Path
        Directory of the store.
    """

    def __init__(self, root):
        self._root = Path(root)
        self._database = paths_database(root)
        self._usable = True

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._database.close()

    def recall(self, files):
        """Return the digest of each (path, stamp), None for files that are new or have changed."""
        if not _trusts_paths():
            return [None] * len(files)
        digests = path_cache.get_many(self._root, files)
        rest = [p for p, (_, stamp) in enumerate(files) if stamp and digests[p] is None]
        if rest:
            found = self._recall_from_disk([files[position] for position in rest])
            for position, digest in zip(rest, found, strict=True):
                digests[position] = digest
        return digests

    def _recall_from_disk(self, files):
        keys = [_path_key(path) for path, _ in files]
        stored = dict(self._stored(list(set(keys))))
        digests = []
        for key, (_, stamp) in zip(keys, files, strict=True):
            old_stamp, digest = stored.get(key, (None, None))
            digests.append(digest if old_stamp == _stamp_text(stamp) else None)
        found = [(*file, digest) for file, digest in zip(files, digests, strict=True) if digest]
        path_cache.put_many(self._root, found)
        return digests

    def learn(self, read, looked_at):
        """Remember (path, stamp, digest) of files read after they were looked at (time in ns).

        Images that are no files have no stamp and are not remembered, nor is what could not be
        read.
        """
        learnt = [
            (path, stamp, digest)
            for path, stamp, digest in read
            if stamp
            and isinstance(digest, bytes)
            and not _is_racy(stamp, looked_at)
            and _stamp(path) == stamp
        ]
        path_cache.put_many(self._root, learnt)
        rows = [
            _sealed(_path_key(path), _stamp_text(stamp), digest) for path, stamp, digest in learnt
        ]
        if rows:
            self._with_disk(self._database.write, _INSERT, rows)

    def _stored(self, keys):
        """Yield (path key, (stamp, digest)) from disk."""
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            sql = f"SELECT * FROM paths WHERE path IN ({marks})"
            for row in self._with_disk(self._database.read, sql, chunk):
                # A damaged entry counts as none: the file is read again.
                if row == _sealed(*row[:3]):
                    yield row[0], row[1:3]

    def _with_disk(self, operation, *arguments):
        """Run an operation on the file; after a failure, warned of once, none runs any more."""
        if not self._usable:
            return []
        try:
            return operation(*arguments)
        except Trouble as trouble:
            self._usable = False
            warn_once(self._database.path, trouble)
            return []


def _sealed(key, stamp, digest):
    """Return a row of the file: what is to be remembered and its checksum."""
    return key, stamp, digest, zlib.crc32(repr((key, stamp, digest)).encode())
