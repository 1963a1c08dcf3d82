"""Rows in memory, and the counts of hits; shared by the whole process."""

import os
from collections import Counter, OrderedDict
from itertools import repeat

import numpy as np

from .._utils._fork import fork_safe_lock
from ._location import memory_limit

#: Approximate overhead of a row in Python, in bytes.
_OVERHEAD = 250


class RowMemory:
    """Rows in memory, at most `memory_limit` bytes; the least recently used caches go first.

    The rows of a cache are one array, so thousands are copied at once. Caches are known by their
    path as text, because comparing paths of `pathlib` is slow.
    """

    def __init__(self):
        self._caches = OrderedDict()  # {path: ({key: index}, array)}, least recently used first
        self._lock = fork_safe_lock()
        self.n_bytes = 0
        #: {path of a cache: number of rows} that were in the cache, and that were computed.
        self.hits, self.misses = Counter(), Counter()

    def count(self, path, *, hits=0, misses=0):
        """Count rows of a cache that were found or computed."""
        with self._lock:
            self.hits[os.fspath(path)] += hits
            self.misses[os.fspath(path)] += misses

    def copy_into(self, out, path, keys):
        """Fill in the rows of ``keys`` that are here and return the indices of the others."""
        with self._lock:
            places, rows = self._use(os.fspath(path))
            found = np.fromiter(map(places.get, keys, repeat(-1)), np.int64, len(keys))
        here = np.flatnonzero(found >= 0)
        if 0 < len(here) == len(out):  # the usual case, without copies in between
            rows.take(found, axis=0, out=out, mode="clip")
        elif len(here):
            out[here] = rows[found[here]]
        return np.flatnonzero(found < 0).tolist()

    def put_many(self, path, keys, rows, n_expected=0):
        """Keep copies of rows; more are expected to follow, for which there should be room."""
        path, limit, n_row_bytes = os.fspath(path), memory_limit(), rows[0].nbytes + _OVERHEAD
        with self._lock:
            places, kept = self._use(path)
            new = {key: index for index, key in enumerate(keys) if key not in places}
            n_bytes = len(new) * n_row_bytes
            while self.n_bytes and self.n_bytes + n_bytes > limit:
                self._drop(next(iter(self._caches)))
            if not new or n_bytes > limit:
                return
            places, kept = self._use(path)
            start, stop = len(places), len(places) + len(new)
            if stop > len(kept):  # memory that nothing was written to costs nothing
                room = max(2 * stop, min(start + n_expected, limit // n_row_bytes))
                grown = np.empty((room, rows.shape[1]), rows.dtype)
                grown[:start] = kept[:start] if start else 0
                kept = grown
            kept[start:stop] = rows if len(new) == len(rows) else rows[list(new.values())]
            places.update(zip(new, range(start, stop), strict=True))
            self._caches[path] = places, kept
            self.n_bytes += n_bytes

    def forget(self, path):
        """Drop all rows of one cache."""
        with self._lock:
            self._drop(os.fspath(path))

    def _use(self, path):
        """Return the rows of a cache, which is then the most recently used one."""
        entry = self._caches.setdefault(path, ({}, np.empty((0, 0))))
        self._caches.move_to_end(path)
        return entry

    def _drop(self, path):
        places, rows = self._caches.pop(path, ({}, ()))
        self.n_bytes -= len(places) * (rows[0].nbytes + _OVERHEAD) if places else 0


memory = RowMemory()

#: Digests of files: {directory of a cache: {path of a file: (stamp, digest)}}. Paths are text,
#: which compares faster than `pathlib.Path`.
known_files = {}
