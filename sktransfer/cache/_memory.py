"""The rows most recently used, in memory, and the count of hits; shared by the whole process."""

import os
from collections import Counter, OrderedDict
from itertools import count, repeat

import numpy as np

from ._database import fork_safe_lock
from ._location import memory_limit

__all__ = ["RowMemory", "Statistics", "memory", "statistics"]

#: Bytes that Python itself needs for one entry, roughly.
_OVERHEAD = 250

#: Bytes of rows in one block, at most, and the part of the memory allowed that they may be.
_BLOCK_BYTES, _BLOCK_SHARE = 8 * 10**6, 1 / 64

#: More than the rows of any block: the number of a block times this, plus a row, is a place.
_MOST = 2**24


class _Block:
    """Rows of one store that arrived one after the other: what is kept, and forgotten, at a time.

    Most systems give memory when it is first written to, so that unused room takes next to none.
    """

    def __init__(self, store_path, room, n_features):
        self.store_path = store_path
        self.digests = []
        self.rows = np.empty((room, n_features), dtype=np.float32)

    @property
    def room(self):
        return len(self.rows) - len(self.digests)

    @property
    def n_bytes(self):
        return (self.rows[:1].nbytes + _OVERHEAD) * len(self.digests)

    def append(self, digests, rows):
        """Take rows; return where the first of them is."""
        first = len(self.digests)
        self.rows[first : first + len(rows)] = rows
        self.digests += digests
        return first


class RowMemory:
    """Rows in memory, bounded by `memory_limit` bytes; the least recently used go first.

    Rows stay in large blocks, so that thousands are copied out at once. Stores are known by their
    path as text, because paths of `pathlib` are slow to compare.
    """

    def __init__(self):
        self._blocks = OrderedDict()  # {number: block}, the least recently used first
        self._newest = {}  # {store path: number of the block that is being filled}
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
        rows : ndarray of shape (len(digests), n_features), dtype float32
            Array to fill.
        store_path : path-like
            Whose rows.
        digests : sequence of bytes
            One for each of ``rows``.
        """
        with self._lock:
            known = self._places.get(os.fspath(store_path), {})
            places = np.fromiter(map(known.get, digests, repeat(-1)), np.int64, len(digests))
            owners = places // _MOST
            numbers = np.unique(owners).tolist()
            blocks = {number: self._use(number) for number in numbers if number >= 0}
        if len(blocks) == len(numbers) == 1:  # the usual case, without copies in between
            (block,) = blocks.values()
            block.rows.take(places % _MOST, axis=0, out=rows, mode="clip")
            return []
        for number, block in blocks.items():
            here = np.flatnonzero(owners == number)
            rows[here] = block.rows[places[here] % _MOST]
        return np.flatnonzero(places < 0).tolist()

    def _use(self, number):
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def put_many(self, store_path, digests, rows):
        """Keep a copy of rows: an array of shape (len(digests), n_features), dtype float32."""
        store_path, digests = os.fspath(store_path), list(digests)
        start = 0
        with self._lock:
            while start < len(digests):
                number = self._with_room(store_path, rows.shape[1])
                stop = start + self._blocks[number].room
                self._append(number, digests[start:stop], rows[start:stop])
                start = stop

    def _with_room(self, store_path, n_features):
        """Return the number of the block of a store that has room, a new one if need be."""
        number = self._newest.get(store_path)
        if number not in self._blocks or not self._blocks[number].room:
            number = self._newest[store_path] = next(self._numbers)
            room = min(memory_limit() * _BLOCK_SHARE, _BLOCK_BYTES) // (4 * n_features)
            self._blocks[number] = _Block(store_path, max(1, int(room)), n_features)
        return number

    def _append(self, number, digests, rows):
        block = self._use(number)
        before = block.n_bytes
        first = number * _MOST + block.append(digests, rows)
        self._n_bytes += block.n_bytes - before
        places = self._places.setdefault(block.store_path, {})
        places.update(zip(digests, range(first, first + len(digests)), strict=True))
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
