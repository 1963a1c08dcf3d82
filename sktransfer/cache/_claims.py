"""Each row is computed by one thread of one process; the others wait for it and read it.

Keys fall into 64 stripes. Each has a file lock, which the kernel releases when its holder dies.
The holder looks on disk again, computes what is still missing, commits and releases. Nobody waits
for a lock while holding one, so there is no deadlock.
"""

import inspect
import os
import secrets
import time
from collections import defaultdict

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from ._failures import Trouble, trouble_from, warn_once
from ._location import make_private

#: Seconds between two looks of a waiting process for new rows.
GLANCE = 0.5

#: Seconds without new rows after which a waiting process computes them itself.
PATIENCE = 600.0

#: Maximum number of processes that share the work. Claiming everything takes one lock per stripe,
#: and a lock takes a millisecond or more on a slow file system.
N_STRIPES = 64

#: On a file system without locks, recent versions of filelock would use files whose existence is
#: the lock. Those outlive a killed process.
_LOCK_OPTIONS = {"fallback_to_soft": False}
if "fallback_to_soft" not in inspect.signature(BaseFileLock.__init__).parameters:
    _LOCK_OPTIONS = {}


def stripe_of(digest):
    """Return the number of the stripe of a digest."""
    return digest[0] * N_STRIPES // 256


def claims(cache, locks, keys, n_rows):
    """See `EmbeddingCache.claim`; rows whose locks fail or whose holder hangs come last."""
    missing = defaultdict(list)
    for key, digest in keys.items():
        missing[stripe_of(digest)].append(key)
    # Workers start at different stripes, so they rarely compete for one.
    start = secrets.randbelow(N_STRIPES) if n_rows else 0
    missing = {s: missing[s] for s in sorted(missing, key=lambda s: (s - start) % N_STRIPES)}
    deadline, claimed = time.monotonic() + PATIENCE, []
    try:
        while missing and cache.writable:
            before = _count(missing)
            for stripe in list(missing):
                if not cache.writable or (n_rows and len(claimed) >= n_rows):
                    break
                if locks.try_lock(stripe):
                    yield from _look(cache, missing, stripe)
                    locks.claim(stripe, missing[stripe])
                    claimed += missing.pop(stripe)
            if n_rows and len(claimed) % n_rows and len(claimed) > n_rows:
                # Claim full batches only; the rest is left to the next round.
                n_whole = len(claimed) // n_rows * n_rows
                claimed, rest = claimed[:n_whole], claimed[n_whole:]
                locks.settle(rest)
                missing = {stripe_of(keys[rest[0]]): rest, **missing}
            if claimed:
                yield ([], []), claimed
                claimed = []
            elif missing and _count(missing) == before:
                stripe = next(iter(missing))
                locks.wait(stripe, GLANCE)
                yield from _look(cache, missing, stripe)
                if left := missing.pop(stripe):
                    missing[stripe] = left  # last, so that the next glance is at another stripe
            if _count(missing) < before:
                deadline = time.monotonic() + PATIENCE
            elif time.monotonic() > deadline:
                detail = f"it has claimed embeddings but added none for {PATIENCE:.0f} s"
                warn_once(cache.path, Trouble("locked", detail))
                break
    except Trouble as trouble:
        locks.release_all()
        cache.stop_writing(trouble)
    # What was claimed when a lock failed has not been handed out yet.
    if rest := [*claimed, *(key for left in missing.values() for key in left)]:
        yield ([], []), rest


def _count(missing):
    return sum(map(len, missing.values()))


def _look(cache, missing, stripe):
    """Yield the rows of a stripe that are now on disk."""
    for keys, rows in cache.read(missing[stripe]):
        yield (keys, rows), []
        found = set(keys)
        missing[stripe] = [key for key in missing[stripe] if key not in found]


class StripeLocks:
    """The file locks in a directory that one call holds."""

    def __init__(self, directory):
        self.directory = directory
        self._held = {}  # {stripe: lock}
        self._claimed = {}  # {stripe: keys that are not settled}

    def try_lock(self, stripe):
        """Lock a stripe if it is free; return whether it was."""
        if (lock := self._acquire(stripe, 0)) is not None:
            self._held[stripe] = lock
        return lock is not None

    def wait(self, stripe, seconds):
        """Wait until a stripe is free, or for some seconds."""
        if (lock := self._acquire(stripe, seconds)) is not None:
            lock.release()

    def claim(self, stripe, keys):
        """Hold a stripe until all of these keys are settled."""
        self._claimed[stripe] = set(keys)
        self.settle(())

    def settle(self, keys):
        """Release each stripe whose claimed keys are all settled."""
        for stripe, left in list(self._claimed.items()):
            left.difference_update(keys)
            if not left:
                del self._claimed[stripe]
                self._held.pop(stripe).release()

    def release_all(self):
        self._claimed.clear()
        while self._held:
            self._held.popitem()[1].release()

    def _acquire(self, stripe, seconds):
        """Return a lock that is now held, or None."""
        lock = FileLock(os.path.join(self.directory, f"{stripe:02x}.lock"), **_LOCK_OPTIONS)
        try:
            make_private(self.directory)
            lock.acquire(timeout=seconds, poll_interval=0.05)
        except Timeout:
            return None
        except (OSError, NotImplementedError) as error:
            raise trouble_from(error, self.directory) from error
        if isinstance(lock, SoftFileLock):
            lock.release()
            raise Trouble("unusable", "its file system has no file locks")
        return lock
