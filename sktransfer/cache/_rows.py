"""`EmbeddingCache`: rows of one kind by key, in memory and on disk, for one call."""

import re
import shutil
from contextlib import AbstractContextManager
from hashlib import blake2b
from pathlib import Path

import numpy as np

from .._utils._sizes import size_text
from ._claims import StripeLocks, claims
from ._database import CHUNK, Database, is_intact
from ._failures import Trouble, trouble_from, warn_once
from ._location import EMBEDDINGS, LOCKS, cache_limit, file_size, make_private, warn_if_exposed
from ._memory import memory

#: Bytes to leave free on a disk, or this fraction of a small one.
_RESERVE_BYTES, _RESERVE_FRACTION = 10**9, 0.05


class EmbeddingCache(AbstractContextManager):
    """Rows of float32 by key, in memory and in one file on disk: a context manager for one call.

    If the disk fails, one warning is emitted, and this call continues without the disk. A ``root``
    of None caches nothing, not even in memory. ``key`` is everything that a row depends on besides
    its own key; `clear_cache` finds the file by the first word of ``description``.
    """

    def __init__(self, root, key, n_features, description):
        self.root, self.path, self.n_features = root, None, n_features
        self.readable = self.writable = root is not None
        if root is None:
            return
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", description.split()[0])[:60]
        name = f"{name}-{blake2b(key.encode(), digest_size=6).hexdigest()}"
        self.path = Path(root).absolute() / EMBEDDINGS / f"{name}.sqlite"
        self._locks = StripeLocks(Path(root).absolute() / LOCKS / name)
        meta = {"key": key, "description": description, "n_features": str(n_features)}
        self._database = Database(self.path, meta)

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
        keys, n_bytes = dict.fromkeys(keys), 4 * self.n_features
        try:
            for found in self._chunks(keys):
                good = [row for row in found if is_intact(*row) and len(row[1]) == n_bytes]
                good = {row[0]: row[1] for row in good}
                if n_damaged := len(found) - len(good):
                    detail = f"{n_damaged} rows have wrong checksums; they are computed again"
                    warn_once(self.path, Trouble("unusable", detail))
                if good:
                    rows = np.frombuffer(b"".join(good.values()), np.float32)
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
            rows = {key: row.tobytes() for key, row in rows.items()}
            try:
                self._check_room(sum(map(len, rows.values())))
                self._database.write(rows)
            except Trouble as trouble:
                self.stop_writing(trouble)
        self._locks.settle(settled)

    def stop_writing(self, trouble):
        """Warn about a trouble, and write nothing more during this call."""
        self.writable = False
        warn_once(self.path, trouble)

    def _chunks(self, keys):
        """Yield the rows of keys that are on disk; one pass reads more than half a file faster."""
        read, sql = self._database.read, "SELECT * FROM rows WHERE rowid > ? AND rowid <= ?"
        last = sum(number for (number,) in read("SELECT ifnull(max(rowid), 0) FROM rows"))
        if 2 * len(keys) > last:
            for start in range(0, last, CHUNK):
                yield [row for row in read(sql, (start, start + CHUNK)) if row[0] in keys]
        else:
            yield from self._database.find(list(keys))

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
    with Database(file) as source:
        meta = dict(source.read("SELECT name, value FROM meta"))
        with EmbeddingCache(
            root, meta["key"], int(meta["n_features"]), meta["description"]
        ) as target:
            sql = "SELECT * FROM rows WHERE digest > ? ORDER BY digest LIMIT ?"
            while found := source.read(sql, (last, CHUNK)):
                last = found[-1][0]
                rows = {row[0]: row[1] for row in found if is_intact(*row)}
                for known in target._database.find(list(rows), "digest"):
                    for (key,) in known:
                        del rows[key]
                target._check_room(sum(map(len, rows.values())))
                target._database.write(rows)
                n_added += len(rows)
    return n_added
