"""Rows in memory, and the counts of hits; shared by the whole process."""

import os
from collections import Counter, OrderedDict

import numpy as np

from .._utils._fork import fork_safe_lock
from ._location import memory_limit

__all__ = ["RowMemory", "memory"]

#: Approximate overhead of a row in Python, in bytes.
_OVERHEAD = 350


class RowMemory:
    """Rows in memory, at most `memory_limit` bytes.

    The oldest rows of the least recently used cache go first. Caches are known by their path as
    text, because comparing paths of `pathlib` is slow.
    """

    def __init__(self):
        # {path of a cache: {key: row}}: caches in the order of their use, rows of their arrival
        self._caches = OrderedDict()
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
            found = list(map(self._cache(path).get, keys))
        others = [index for index, row in enumerate(found) if row is None]
        if keys and not others:
            np.concatenate(found, out=out.reshape(-1))  # much faster than one by one
            return []
        for index, row in enumerate(found):
            if row is not None:
                out[index] = row
        return others

    def put_many(self, path, keys, rows):
        """Keep copies of rows."""
        with self._lock:
            known = self._cache(path)
            for key, row in zip(keys, rows, strict=True):
                self.n_bytes += (key not in known) * (row.nbytes + _OVERHEAD)
                known[key] = row.copy()
            limit = memory_limit()
            while self.n_bytes > limit:
                path, oldest = next(iter(self._caches.items()))
                if oldest:
                    self.n_bytes -= oldest.popitem(last=False)[1].nbytes + _OVERHEAD
                else:
                    del self._caches[path]

    def forget(self, path):
        """Drop all rows of one cache."""
        with self._lock:
            for row in self._caches.pop(os.fspath(path), {}).values():
                self.n_bytes -= row.nbytes + _OVERHEAD

    def _cache(self, path):
        """Return the rows of a cache, which is then the most recently used one."""
        known = self._caches.setdefault(os.fspath(path), OrderedDict())
        self._caches.move_to_end(os.fspath(path))
        return known


memory = RowMemory()
