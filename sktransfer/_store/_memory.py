"""The rows most recently used, in memory, and the count of hits; shared by the whole process."""

import os
from collections import Counter, OrderedDict

from sktransfer._store._database import fork_safe_lock
from sktransfer._store._places import memory_limit

__all__ = ["RowMemory", "Statistics", "memory", "statistics"]

#: Bytes that Python itself needs for one entry, roughly.
_OVERHEAD = 250


class RowMemory:
    """Rows in memory, bounded by `memory_limit` bytes; the least recently used go first.

    Rows are kept as the bytes that SQLite returns, so that keeping one costs no copy, and stores by
    their path as text, because paths of `pathlib` are slow to compare.
    """

    def __init__(self):
        self._rows = OrderedDict()
        self._lock = fork_safe_lock()
        self._n_bytes = 0

    @property
    def n_bytes(self):
        """Bytes in use, Python's own included."""
        return self._n_bytes

    def get_many(self, store_path, digests):
        """Return {digest: row bytes} of the rows that are here."""
        rows, found, store_path = self._rows, {}, os.fspath(store_path)
        with self._lock:
            for digest in digests:
                key = (store_path, digest)
                row = rows.get(key)
                if row is not None:
                    rows.move_to_end(key)
                    found[digest] = row
        return found

    def put_many(self, store_path, items):
        """Keep (digest, row bytes) pairs."""
        limit, store_path = memory_limit(), os.fspath(store_path)
        with self._lock:
            for digest, row in items:
                key = (store_path, digest)
                if key not in self._rows:
                    self._n_bytes += len(row) + _OVERHEAD
                self._rows[key] = row
                self._rows.move_to_end(key)
            while self._n_bytes > limit:
                _, row = self._rows.popitem(last=False)
                self._n_bytes -= len(row) + _OVERHEAD

    def forget(self, store_path):
        """Drop every row of one store."""
        store_path = os.fspath(store_path)
        with self._lock:
            for key in [key for key in self._rows if key[0] == store_path]:
                self._n_bytes -= len(self._rows.pop(key)) + _OVERHEAD


class Statistics:
    """How many rows of each store this process was given and how many it computed."""

    def __init__(self):
        self._hits, self._misses = Counter(), Counter()
        self._lock = fork_safe_lock()

    def count(self, store_path, *, hits, misses):
        """Add one call."""
        with self._lock:
            self._hits[store_path] += hits
            self._misses[store_path] += misses

    def of(self, store_path):
        """Return (hits, misses) of one store."""
        with self._lock:
            return self._hits[store_path], self._misses[store_path]


memory = RowMemory()
statistics = Statistics()
