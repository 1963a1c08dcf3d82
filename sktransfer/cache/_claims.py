"""``embed_once``: every row is computed by one thread of one process, the others read it.

The keys fall into 64 stripes by their first bits, and each stripe has a file lock, which the kernel
releases when its holder dies. Whoever holds a stripe looks on disk again, computes what is
still missing, commits and releases. Nobody waits for a lock while holding one, so nobody can
deadlock.
"""

import inspect
import os
import secrets
import time
from collections import deque
from contextlib import ExitStack, closing

import numpy as np
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from ._failures import Trouble, trouble_from, warn_once
from ._memory import memory, statistics
from ._rows import StoredRows

__all__ = ["embed_once"]

#: Seconds after which a waiting process looks whether rows have arrived.
_GLANCE = 0.5

#: Seconds without any new row after which a waiting process computes for itself.
_PATIENCE = 600.0

#: As many processes can share the work. A call that computes locks each stripe of which it misses a
#: row, which takes a millisecond or more where a file system is slow.
_N_STRIPES = 64

#: Where there are no locks, recent versions of filelock would put up with files whose existence
#: means a lock: those outlive a killed process.
_LOCK_OPTIONS = {"fallback_to_soft": False}
if "fallback_to_soft" not in inspect.signature(BaseFileLock.__init__).parameters:
    _LOCK_OPTIONS = {}


def embed_once(store, digests, compute, *, batch_size, share_work, progress=None):
    """Look rows up by digest; compute each that nobody has, once, and store it.

    Parameters
    ----------
    store : EmbeddingCache
        Where rows are kept. With ``root=None`` nothing is kept, on disk or in memory, but each
        digest is still computed only once during the call.
    digests : sequence of bytes
        One key of 20 bytes for each row of the result; equal keys share a row.
    compute : callable
        ``compute(positions)`` gets indices into ``digests`` and yields ``(position, result)`` for
        each of them, lazily and in any order. A result is a row of ``n_features`` floats or an
        exception, which marks that row as failed. At most ``batch_size // 2`` rows may be in
        flight when it yields, so that a killed process loses no more than one batch.
    batch_size : int
        Rows that the network takes at once; at least half as many go into a commit.
    share_work : bool
        Whether other processes are likely to ask for the same rows now: about one batch, and at
        least one stripe, is then claimed at a time. False claims all that is missing at once.
    progress : callable, default=None
        Called with the number of rows that have been settled since its last call; the numbers
        add up to ``len(digests)``.

    Returns
    -------
    rows : ndarray of shape (len(digests), n_features), dtype float32
        NaN where a row failed.
    failures : dict of int to Exception
        Position and exception of each failed row. Failures are never stored.

    Raises
    ------
    RuntimeError
        If ``compute`` leaves out a position, or yields one twice or unasked.
    ValueError
        If a computed row has another length than ``n_features``.

    Warns
    -----
    CacheWarning
        If the store cannot be used; the result is right nevertheless.
    """
    task = _Task(store, digests, progress)
    if store.root is None:
        _compute(task, list(task.missing), compute, unit=len(digests) or 1)
        return task.result()
    if task.missing:
        with StoredRows(store) as disk:
            _look_up_or_compute(task, disk, compute, batch_size, share_work)
    result = task.result()
    statistics.count(store.path, hits=len(digests) - task.n_computed, misses=task.n_computed)
    return result


def _look_up_or_compute(task, disk, compute, batch_size, share_work):
    _look_on_disk(task, disk, task.missing)
    unit = max(1, batch_size // 2)
    if task.missing and disk.writable:
        with _Claims(task, disk, batch_size if share_work else None) as claims:
            while digests := claims.next():
                _compute(task, digests, compute, unit=unit, disk=disk, release=claims.release)
    # Whatever no claim could be had for, because the store failed or somebody hangs.
    _compute(task, list(task.missing), compute, unit=unit, disk=disk)


def _look_on_disk(task, disk, digests):
    for found in disk.read(digests):
        if found:
            task.take(found, _remembered(task.store, found))


def _remembered(store, found):
    """Keep rows, given as {digest: bytes}, in memory; return them as one array."""
    rows = np.frombuffer(b"".join(found.values()), dtype="<f4").reshape(-1, store.n_features)
    memory.put_many(store.path, found, rows)
    return rows


def _compute(task, digests, compute, *, unit, disk=None, release=None):
    """Compute rows and commit them ``unit`` at a time, also those before an error."""
    if not digests:
        return
    commit = _Commits(task.store, unit, disk, release)
    expected = {task.missing[digest]: digest for digest in digests}
    try:
        with closing(_lazily(compute, list(expected))) as results:
            for position, result in results:
                digest = _asked_for(position, expected)
                commit.add(digest, task.settle(digest, result))
    finally:
        commit.flush()
    if expected:
        raise RuntimeError(f"compute yielded no result for {len(expected)} of its positions.")


def _lazily(compute, positions):
    yield from compute(positions)


def _asked_for(position, expected):
    try:
        return expected.pop(position)
    except KeyError:
        raise RuntimeError(
            f"compute yielded position {position!r} twice, or without having been asked for it."
        ) from None


class _Task:
    """The rows of one call: what is missing, beyond what is in memory, and what has arrived."""

    def __init__(self, store, digests, progress):
        self.store = store
        self.rows = np.empty((len(digests), store.n_features), dtype=np.float32)
        self.failures = {}
        self.n_computed = 0
        self.missing = {}
        self._copies = []
        self._progress = progress or (lambda n: None)
        positions = range(len(digests))
        if store.root is not None:
            positions = memory.copy_into(self.rows, store.path, digests)
            self._progress(len(digests) - len(positions))
        for position in positions:
            first = self.missing.setdefault(digests[position], position)
            if first != position:
                self._copies.append((position, first))

    def take(self, digests, rows):
        """Fill in rows that were found."""
        self.rows[[self.missing.pop(digest) for digest in digests]] = rows
        self._progress(len(rows))

    def settle(self, digest, result):
        """Fill in one computed row; return its bytes, None for a failure."""
        position = self.missing[digest]
        if isinstance(result, BaseException):
            self.failures[position] = result
            self.rows[position] = np.nan
            row = None
        else:
            row = self._as_bytes(result)
            self.rows[position] = np.frombuffer(row, dtype="<f4")
        del self.missing[digest]
        self.n_computed += 1
        self._progress(1)
        return row

    def _as_bytes(self, result):
        row = np.asarray(result, dtype="<f4")
        if row.shape != (self.store.n_features,):
            raise ValueError(
                f"compute yielded a row of shape {row.shape}; expected ({self.store.n_features},)."
            )
        return row.tobytes()

    def result(self):
        """Copy rows to their duplicates and return (rows, failures)."""
        for position, first in self._copies:
            self.rows[position] = self.rows[first]
            if first in self.failures:
                self.failures[position] = self.failures[first]
        if self._copies:
            self._progress(len(self._copies))
        return self.rows, dict(sorted(self.failures.items()))


class _Commits:
    """Gathers computed rows and commits them; then their claims may go."""

    def __init__(self, store, unit, disk, release):
        self._store, self._unit, self._disk, self._release = store, unit, disk, release
        self._rows, self._settled = {}, []

    def add(self, digest, row):
        """Take one row, or None for a failure, and commit when there are enough."""
        self._settled.append(digest)
        if row is not None:
            self._rows[digest] = row
        if len(self._settled) >= self._unit:
            self.flush()

    def flush(self):
        """Commit what there is."""
        rows, settled = self._rows, self._settled
        self._rows, self._settled = {}, []
        if self._disk is not None and rows:
            self._disk.write(rows.items())
            _remembered(self._store, rows)
        if self._release is not None:
            self._release(settled)


def _stripe_of(digest):
    """Return the number of the stripe to which a key of bytes belongs."""
    return digest[0] * _N_STRIPES // 256


class _Claims:
    """Takes turns at the stripes of a task; holds file locks, which it never waits for in numbers.

    Parameters
    ----------
    task : _Task
    disk : StoredRows
    batch_size : int or None
        Rows to claim at a time, None for all.
    """

    def __init__(self, task, disk, batch_size):
        self._task, self._disk, self._batch_size = task, disk, batch_size
        self._stripes = {}
        for digest in task.missing:
            self._stripes.setdefault(_stripe_of(digest), []).append(digest)
        # Workers that start at different places meet late.
        start = secrets.randbelow(_N_STRIPES) if batch_size else 0
        self._order = deque(sorted(self._stripes, key=lambda stripe: (stripe - start) % _N_STRIPES))
        self._locks = _StripeLocks(task.store.lock_dir)
        self._claimed = {}

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._locks.release_all()

    def next(self):
        """Return digests that only this caller computes now; none when all is done or fails."""
        deadline = time.monotonic() + _PATIENCE
        try:
            self._locks.make_directory()
            while self._order and self._disk.writable:
                n_missing = len(self._task.missing)
                if digests := self._claim():
                    return digests
                if len(self._task.missing) < n_missing:
                    deadline = time.monotonic() + _PATIENCE
                elif time.monotonic() > deadline:
                    warn_once(self._task.store.path, Trouble("held"))
                    break
                elif self._order:
                    self._wait()
        except Trouble as trouble:
            self._locks.release_all()
            self._disk.stop_writing(trouble)
        return []

    def release(self, digests):
        """Release each stripe whose claimed rows have all been settled."""
        for digest in digests:
            stripe = _stripe_of(digest)
            self._claimed[stripe] -= 1
            if not self._claimed[stripe]:
                self._locks.release(stripe)

    def _claim(self):
        claimed = []
        for stripe in list(self._order):
            if self._batch_size and len(claimed) >= self._batch_size:
                break
            if not self._missing_of(stripe):
                self._order.remove(stripe)
            elif self._locks.try_lock(stripe):
                claimed += self._look_again(stripe)
        return self._whole_batches(claimed)

    def _missing_of(self, stripe):
        missing = self._task.missing
        self._stripes[stripe] = [digest for digest in self._stripes[stripe] if digest in missing]
        return self._stripes[stripe]

    def _look_again(self, stripe):
        """Read what others have stored of a stripe just locked; return what is missing still."""
        _look_on_disk(self._task, self._disk, self._stripes[stripe])
        left = self._missing_of(stripe)
        self._claimed[stripe] = len(left)
        if not left:
            self._locks.release(stripe)
        return left

    def _whole_batches(self, claimed):
        """Give back what would make the network run on a batch that is not full."""
        if self._batch_size and len(claimed) > self._batch_size:
            n_whole = len(claimed) // self._batch_size * self._batch_size
            self.release(claimed[n_whole:])
            claimed = claimed[:n_whole]
        if claimed:
            self._order.rotate(-self._order.index(_stripe_of(claimed[-1])))
        return claimed

    def _wait(self):
        """Wait for one stripe, holding none, and read what has been stored of it meanwhile."""
        stripe = self._order[0]
        self._locks.wait(stripe, _GLANCE)
        _look_on_disk(self._task, self._disk, self._missing_of(stripe))


class _StripeLocks:
    """The file locks of one store that one call holds."""

    def __init__(self, directory):
        self._directory = directory
        self._held = {}

    def make_directory(self):
        """Make the directory of the lock files."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise trouble_from(error, self._directory) from error

    def try_lock(self, stripe):
        """Lock a stripe if nobody holds it; return whether it is held now."""
        lock = self._lock(stripe)
        if self._acquire(lock, timeout=0):
            self._held[stripe] = lock
        return stripe in self._held

    def wait(self, stripe, seconds):
        """Wait until a stripe is free, or some seconds have passed."""
        lock = self._lock(stripe)
        if self._acquire(lock, timeout=seconds):
            lock.release()

    def release(self, stripe):
        """Release a stripe that is held."""
        self._held.pop(stripe).release()

    def release_all(self):
        """Release every stripe that is held."""
        with ExitStack() as stack:
            for lock in self._held.values():
                stack.callback(lock.release)
            self._held = {}

    def _lock(self, stripe):
        path = os.path.join(self._directory, f"{stripe:02x}.lock")
        return FileLock(path, **_LOCK_OPTIONS)

    def _acquire(self, lock, timeout):
        try:
            lock.acquire(timeout=timeout, poll_interval=0.02)
            if isinstance(lock, SoftFileLock):
                lock.release()
                raise NotImplementedError("flock is missing")
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            raise trouble_from(error, self._directory) from error
        return True
