"""A bounded cache for objects that are expensive to build."""

import math
import threading
from collections import OrderedDict
from weakref import WeakValueDictionary

from ._fork import after_fork_in_child


class LRU:
    """Keep the most recently used objects; thread-safe and safe after a fork.

    Create it once, at module level. The most recently used object stays, whatever its size.
    """

    def __init__(self, max_items, max_bytes=math.inf, size_of=lambda value: 0):
        self.max_items, self.max_bytes, self._size_of = max_items, max_bytes, size_of
        self._items = OrderedDict()  # {key: (value, size)}
        self._reset_locks()
        after_fork_in_child(self._reset_locks)

    def _reset_locks(self):
        self._lock = threading.Lock()
        self._building = WeakValueDictionary()  # {key: lock}, while a thread holds or awaits it

    def get(self, key, build):
        """Return the object of a key. If it is missing, one thread builds it and others wait."""
        with self._lock:
            building = self._building.setdefault(key, threading.Lock())
        with building:
            with self._lock:
                if key in self._items:
                    self._items.move_to_end(key)
                    return self._items[key][0]
            value = build()
            with self._lock:
                self._items[key] = value, self._size_of(value)
                while len(self._items) > 1 and (
                    len(self._items) > self.max_items
                    or sum(size for _, size in self._items.values()) > self.max_bytes
                ):
                    self._items.popitem(last=False)
            return value

    def clear(self):
        """Forget all objects."""
        with self._lock:
            self._items.clear()
