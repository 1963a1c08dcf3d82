"""`EmbeddingCache`: rows of one kind by key, in memory and on disk, for one call."""

import re
import shutil
import zlib
from contextlib import AbstractContextManager
from hashlib import blake2b
from pathlib import Path

import numpy as np

from .._utils._sizes import size_text
from ._claims import StripeLocks, claims
from ._database import Database
from ._failures import Trouble, trouble_from, warn_once
from ._location import (
    EMBEDDINGS,
    LOCKS,
    cache_limit,
    file_size,
    make_private,
    warn_if_exposed,
)
from ._memory import memory

#: Bytes to leave free on a disk, or this fraction of a small one.
_RESERVE_BYTES, _RESERVE_FRACTION = 10**9, 0.05

_CREATE_TABLE = (
    "CREATE TABLE IF NOT EXISTS rows "
    "(digest BLOB PRIMARY KEY, row BLOB NOT NULL, checksum INTEGER NOT NULL)"
)
_SELECT_RANGE = "SELECT * FROM rows WHERE rowid > ? AND rowid <= ?"
_INSERT = "INSERT OR REPLACE INTO rows VALUES (?, ?, ?)"

#: Rows per SQL statement. Other processes wait at most as long as one statement takes.
_CHUNK = 500


class EmbeddingCache(AbstractContextManager):
    """Rows by key, in memory and in one file on disk: a context manager for one call.

    If the disk fails, one warning is emitted, and this call continues without the disk. A ``root``
    of None caches nothing, not even in memory. ``key`` is everything that a row depends on besides
    its own key; `clear_cache` finds the file by the first word of ``description``.
    """

    def __init__(self, root, key, n_features, *, description, dtype=np.float32):
        self.n_features, self.dtype = n_features, np.dtype(dtype)
        self.root, self.path = root, None
        self.readable = self.writable = root is not None
        if root is None:
            return
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", description.split()[0])[:60]
        name = f"{name}-{blake2b(key.encode(), digest_size=6).hexdigest()}"
        self.path = Path(root).absolute() / EMBEDDINGS / f"{name}.sqlite"
        self._locks = StripeLocks(Path(root).absolute() / LOCKS / name)
        meta = {"key": key, "description": description, "n_features": str(n_features)}
        self._database = Database(self.path, _CREATE_TABLE, meta)

    def __exit__(self, *exc_info):
        if self.root is not None:
            self._locks.release_all()
            self._database.close()

    def recall(self, keys, out):
        """Fill in the rows that are in memory and return the indices of the others."""
        if self.root is None:
            return range(len(keys))
        others = memory.copy_into(out, self.path, keys)
        memory.count(self.path, hits=len(keys) - len(others))
        return others

    def read(self, keys):
        """Yield (keys, rows) of what is on disk, some hundred rows at a time."""
        if not self.readable:
            return
        warn_if_exposed(self.root)
        keys, n_bytes = dict.fromkeys(keys), self.n_features * self.dtype.itemsize
        try:
            for found in self._chunks(keys):
                good = {row[0]: row[1] for row in found if _is_intact(*row)}
                good = {key: row for key, row in good.items() if len(row) == n_bytes}
                if n_damaged := len(found) - len(good):
                    detail = f"{n_damaged} rows have wrong checksums; they are computed again"
                    warn_once(self.path, Trouble("unusable", detail))
                if good:
                    rows = np.frombuffer(b"".join(good.values()), self.dtype)
                    rows = rows.reshape(-1, self.n_features)
                    memory.put_many(self.path, good, rows, len(keys))
                    memory.count(self.path, hits=len(rows))
                    yield list(good), rows
        except Trouble as trouble:
            self.readable = False
            self.stop_writing(trouble)

    def claim(self, keys, n_rows=None):
        """Divide the work with other processes, so that each row is computed once.

        Yields keys and rows that others have computed in the meantime, and the keys that only the
        caller computes, and must `write` before it asks for more: about ``n_rows``, or all. Of the
        dict ``keys``, those with the same value are claimed together.
        """
        if self.root is None:
            return [(([], []), list(keys))]
        return claims(self, self._locks, keys, n_rows)

    def write(self, settled):
        """Commit rows, given as {key: row or None for a failure}, and release their claims."""
        if self.root is None or not settled:
            return
        rows = {key: row for key, row in settled.items() if row is not None}
        if rows:
            memory.put_many(self.path, rows, np.array(list(rows.values())))
        memory.count(self.path, misses=len(settled))
        if rows and self.writable:
            sealed = [
                (key, data := row.tobytes(), _checksum(key, data)) for key, row in rows.items()
            ]
            try:
                self._check_room(sum(len(data) for _, data, _ in sealed))
                self._database.write(_INSERT, sealed)
            except Trouble as trouble:
                self.stop_writing(trouble)
        self._locks.settle(settled)

    def stop_writing(self, trouble):
        """Warn about a trouble, and write nothing more during this call."""
        self.writable = False
        warn_once(self.path, trouble)

    def _chunks(self, keys):
        """Yield the rows of keys that are on disk; one pass reads more than half a file faster."""
        read, ordered = self._database.read, list(keys)
        last = sum(number for (number,) in read("SELECT ifnull(max(rowid), 0) FROM rows"))
        if 2 * len(keys) > last:
            for start in range(0, last, _CHUNK):
                rows = read(_SELECT_RANGE, (start, start + _CHUNK))
                yield [row for row in rows if row[0] in keys]
        else:
            for start in range(0, len(keys), _CHUNK):
                yield read(*_select("*", ordered[start : start + _CHUNK]))

    def _check_room(self, n_bytes):
        directory = self.path.parent
        try:
            make_private(directory)
            used = sum(map(file_size, directory.glob("*.sqlite")))
            disk = shutil.disk_usage(directory)
        except OSError as error:
            raise trouble_from(error, directory) from error
        limit = cache_limit()
        if used + n_bytes > limit:
            detail = f"it has reached its size limit: {size_text(used)} of {size_text(limit)}"
            raise Trouble("full", detail)
        if disk.free - n_bytes < min(_RESERVE_BYTES, _RESERVE_FRACTION * disk.total):
            detail = f"the disk is full: {size_text(disk.free)} of {size_text(disk.total)} free"
            raise Trouble("full", detail)


def copy_rows(file, root):
    """Copy the intact rows of a file into the cache in a directory; return how many are new."""
    n_added, last = 0, b""
    with Database(file, None, {}) as source:
        meta = dict(source.read("SELECT name, value FROM meta"))
        with EmbeddingCache(
            root, meta["key"], int(meta["n_features"]), description=meta["description"]
        ) as target:
            sql = "SELECT * FROM rows WHERE digest > ? ORDER BY digest LIMIT ?"
            while rows := source.read(sql, (last, _CHUNK)):
                last = rows[-1][0]
                known = set(target._database.read(*_select("digest", [row[0] for row in rows])))
                rows = [row for row in rows if row[:1] not in known and _is_intact(*row)]
                target._check_room(sum(len(row) for _, row, _ in rows))
                target._database.write(_INSERT, rows)
                n_added += len(rows)
    return n_added


def _select(columns, keys):
    """Return the SQL statement and its parameters that select the rows of keys."""
    return f"SELECT {columns} FROM rows WHERE digest IN ({','.join('?' * len(keys))})", keys


def _is_intact(key, row, checksum):
    return type(row) is bytes and _checksum(key, row) == checksum


def _checksum(key, row):
    # SQLite has no checksums: a flipped bit in a row would go unnoticed.
    return zlib.crc32(row, zlib.crc32(key))
