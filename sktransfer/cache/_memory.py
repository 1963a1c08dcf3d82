"""The most recently used rows, in memory, and the counts of hits; shared by the whole process."""

import os
from collections import Counter, OrderedDict
from itertools import count, repeat

import numpy as np

from .._utils._fork import fork_safe_lock
from ._location import memory_limit

__all__ = ["RowMemory", "Statistics", "memory", "statistics"]

#: Bytes that Python needs for one entry, roughly.
_OVERHEAD = 250

#: The size of a block of rows: at most so many bytes, and at most this fraction of the limit.
_BLOCK_BYTES, _BLOCK_FRACTION = 8 * 10**6, 1 / 64

#: More than the rows of any block. A place is the number of a block times this, plus a row.
_STEP = 2**24


class _Block:
    """Rows of one cache that arrived one after the other; they are forgotten together.

    Most systems provide memory when it is first written to, so unused room costs almost nothing.
    """

    def __init__(self, path, room, n_features, dtype):
        self.path, self.keys = path, []
        self.rows = np.empty((room, n_features), dtype)

    @property
    def room(self):
        return len(self.rows) - len(self.keys)

    @property
    def n_bytes(self):
        return (self.rows[:1].nbytes + _OVERHEAD) * len(self.keys)


class RowMemory:
    """Rows in memory, at most `memory_limit` bytes; the least recently used go first.

    Rows are kept in large blocks, so that thousands are copied at once. Caches are known by their
    path as text, because comparing paths of `pathlib` is slow.
    """

    def __init__(self):
        self._blocks = OrderedDict()  # {number: block}, the least recently used first
        self._newest = {}  # {path of a cache: number of the block that is being filled}
        self._places = {}  # {path of a cache: {key: place}}
        self._numbers = count()
        self._lock = fork_safe_lock()
        self.n_bytes = 0

    def copy_into(self, rows, path, keys):
        """Fill in the rows that are here and return the indices of the others.

        Parameters
        ----------
        rows : ndarray of shape (len(keys), n_features)
            Array to fill.
        path : path-like
            Path of the cache.
        keys : sequence of bytes or None
            One for each of ``rows``; None is never here.
        """
        with self._lock:
            known = self._places.get(os.fspath(path), {})
            places = np.fromiter(map(known.get, keys, repeat(-1)), np.int64, len(keys))
            owners = places // _STEP
            numbers = np.unique(owners).tolist()
            blocks = {number: self._use(number) for number in numbers if number >= 0}
        if len(blocks) == len(numbers) == 1:  # the usual case, without copies in between
            (block,) = blocks.values()
            block.rows.take(places % _STEP, axis=0, out=rows, mode="clip")
            return []
        for number, block in blocks.items():
            here = np.flatnonzero(owners == number)
            rows[here] = block.rows[places[here] % _STEP]
        return np.flatnonzero(places < 0).tolist()

    def put_many(self, path, keys, rows):
        """Keep a copy of rows, an array of shape (len(keys), n_features)."""
        path, keys, start = os.fspath(path), list(keys), 0
        with self._lock:
            while start < len(keys):
                number = self._with_room(path, rows)
                stop = start + self._blocks[number].room
                self._append(number, keys[start:stop], rows[start:stop])
                start = stop

    def forget(self, path):
        """Drop all rows of one cache."""
        path = os.fspath(path)
        with self._lock:
            for number in [n for n, block in self._blocks.items() if block.path == path]:
                self._drop(number)

    def _use(self, number):
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _with_room(self, path, rows):
        """Return the number of a block that has room, a new one if necessary."""
        number = self._newest.get(path)
        if number not in self._blocks or not self._blocks[number].room:
            number = self._newest[path] = next(self._numbers)
            room = min(memory_limit() * _BLOCK_FRACTION, _BLOCK_BYTES) // rows[:1].nbytes
            self._blocks[number] = _Block(path, max(1, int(room)), rows.shape[1], rows.dtype)
        return number

    def _append(self, number, keys, rows):
        block = self._use(number)
        first, before = len(block.keys), block.n_bytes
        block.rows[first : first + len(keys)] = rows
        block.keys += keys
        self.n_bytes += block.n_bytes - before
        start = number * _STEP + first
        places = self._places.setdefault(block.path, {})
        places.update(zip(keys, range(start, start + len(keys)), strict=True))
        limit = memory_limit()
        while self.n_bytes > limit:
            self._drop(next(iter(self._blocks)))

    def _drop(self, number):
        block = self._blocks.pop(number)
        self.n_bytes -= block.n_bytes
        places = self._places[block.path]
        for key in block.keys:
            if places.get(key, -1) // _STEP == number:  # it has not arrived again since
                del places[key]


class Statistics:
    """How many rows of each cache this process was given and how many it computed."""

    def __init__(self):
        self._hits, self._misses = Counter(), Counter()
        self._lock = fork_safe_lock()

    def count(self, path, *, hits=0, misses=0):
        with self._lock:
            self._hits[path] += hits
            self._misses[path] += misses

    def of(self, path):
        """Return (hits, misses) of one cache."""
        return self._hits[path], self._misses[path]


memory = RowMemory()
statistics = Statistics()
