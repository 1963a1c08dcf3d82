"""The rows most recently used, in memory, and the count of hits; shared by the whole process."""

import os
from collections import Counter, OrderedDict
from dataclasses import dataclass
from itertools import count

import numpy as np

from sktransfer._store._database import fork_safe_lock
from sktransfer._store._places import memory_limit

__all__ = ["RowMemory", "Statistics", "memory", "statistics"]

#: Bytes that Python itself needs for one entry, roughly.
_OVERHEAD = 250

#: Rows of one block, at most: a place is a number of 64 bits.
_MOST = 2**24


@dataclass(frozen=True)
class _Block:
    """Rows that arrived together: what is kept, and forgotten, at a time."""

    store_path: str
    digests: list
    rows: np.ndarray

    @property
    def n_bytes(self):
        return self.rows.nbytes + _OVERHEAD * len(self.digests)


class RowMemory:
    """Rows in memory, bounded by `memory_limit` bytes; the least recently used go first.

    Rows stay in the blocks in which they arrived, so that thousands are copied out at once. Stores
    are known by their path as text, because paths of `pathlib` are slow to compare.
    """

    def __init__(self):
        self._blocks = OrderedDict()  # {number: block}, the least recently used first
        self._places = {}  # {store path: {digest: number of its block * _MOST + row in it}}
        self._numbers = count()
        self._lock = fork_safe_lock()
        self._n_bytes = 0

    @property
    def n_bytes(self):
        """Bytes in use, Python's own included."""
        return self._n_bytes

    def copy_into(self, rows, store_path, digests):
        """Fill in the rows that are here; return the positions of the others.

        Parameters
        ----------
        rows : ndarray of shape (len(digests), n_features)
            Array to fill.
        store_path : path-like
            Whose rows.
        digests : sequence of bytes
            One for each of ``rows``.
        """
        with self._lock:
            known = self._places.get(os.fspath(store_path), {})
            places = np.array([known.get(digest, -1) for digest in digests], dtype=np.int64)
            blocks = places // _MOST
            order = np.argsort(blocks, kind="stable")
            numbers, starts = np.unique(blocks[order], return_index=True)
            groups = zip(numbers.tolist(), np.split(order, starts[1:]), strict=False)
            found = [(self._use(number), group) for number, group in groups if number >= 0]
        for block, group in found:
            rows[group] = block.rows.take(places[group] % _MOST, axis=0)
        return np.flatnonzero(places < 0).tolist()

    def _use(self, number):
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def put_many(self, store_path, digests, rows):
        """Keep rows (an array that nobody changes any more), at most ``_MOST`` of them."""
        block = _Block(os.fspath(store_path), list(digests), rows)
        with self._lock:
            number = next(self._numbers)
            self._blocks[number] = block
            self._n_bytes += block.n_bytes
            first = number * _MOST
            places = self._places.setdefault(block.store_path, {})
            places.update(zip(block.digests, range(first, first + len(rows)), strict=True))
            limit = memory_limit()
            while self._n_bytes > limit:
                self._drop(next(iter(self._blocks)))

    def forget(self, store_path):
        """Drop every row of one store."""
        store_path = os.fspath(store_path)
        with self._lock:
            for number in [
                n for n, block in self._blocks.items() if block.store_path == store_path
            ]:
                self._drop(number)

    def _drop(self, number):
        block = self._blocks.pop(number)
        self._n_bytes -= block.n_bytes
        places = self._places[block.store_path]
        for digest in block.digests:
            if places.get(digest, -1) // _MOST == number:  # it has not arrived again since
                del places[digest]


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
