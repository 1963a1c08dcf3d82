"""One pool of threads for the whole process, and kernels that use one thread each.

A network runs on several images at once, one thread each, rather than on one batch with all
threads. On CPUs this is faster (no barriers inside an operator, activations that stay in the
cache), it overlaps decoding with inference for nothing, and the bits of a result cannot depend on
how many cores there are. Everything in the process shares the pool, so that several callers in
threads of their own never put more threads to work than there are cores.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from queue import SimpleQueue

import joblib
import torch

_lock = threading.Lock()
_pools = {}  # (process id, number of threads) -> pool
_callers = 0
_share_before = 1  # what torch was told before the first caller came in
_generators = threading.RLock()
_forked = False


def _reset():
    """Begin anew in a forked child, whatever the parent held at that moment."""
    global _lock, _callers, _generators, _forked
    _lock, _callers, _generators = threading.Lock(), 0, threading.RLock()
    _forked = True
    _pools.clear()


if hasattr(os, "register_at_fork"):  # Windows has none, and no fork either
    os.register_at_fork(after_in_child=_reset)


def thread_share():
    """Return how many threads this process may keep busy.

    The cores that it may run on, or fewer where torch was told so: joblib's workers say it through
    ``OMP_NUM_THREADS``, users through ``torch.set_num_threads``.
    """
    with _lock:
        told = torch.get_num_threads() if _callers == 0 else _share_before
    return max(1, min(_n_cores(), told))


@cache
def _n_cores():
    # Kept, as scikit-learn keeps it: to ask takes as long as looking up a hundred embeddings.
    return joblib.cpu_count()


def shared_pool():
    """Return the pool of this process, with as many threads as it may keep busy."""
    n_threads = thread_share()
    with _lock:
        # The process is part of the key because a parent's threads do not survive a fork.
        key = os.getpid(), n_threads
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(
                n_threads,
                thread_name_prefix="sktransfer",
                initializer=torch.set_num_threads,
                initargs=(1,),
            )
        return _pools[key]


@contextmanager
def single_threaded_kernels():
    """Let torch's kernels use one thread each, in this thread and in the pool's, for a while."""
    global _callers, _share_before
    with _lock:
        own = torch.get_num_threads()
        if _callers == 0:
            _share_before = own
        _callers += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _callers -= 1
            last = _callers == 0
            torch.set_num_threads(own)
        if not last:
            # The setting is partly the thread's own and partly the process's (MKL). Others are
            # still at work: one of the pool's threads sets the process's part back to 1.
            shared_pool().submit(torch.set_num_threads, 1)


@contextmanager
def usable_kernels():
    """Let torch's kernels use the threads that there are.

    A forked child has none of those that its parent's kernels had, and would wait for them for
    ever: its kernels use one thread.
    """
    if not _forked:
        yield
        return
    with single_threaded_kernels():
        yield


@contextmanager
def own_generators(devices=()):
    """Let this thread alone draw from torch's generators, and leave them as they were.

    They are the process's: others that want them through this function wait. Only threads of the
    user's own that draw from them meanwhile cannot be kept out.
    """
    with _generators, torch.random.fork_rng(devices):
        yield


def map_unordered(function, tasks, limit):
    """Yield ``function(task)`` for each task as it is done, at most ``limit`` of them under way.

    ``tasks`` is drawn from only when there is room, so that memory stays bounded. An exception of
    ``function`` is raised here; what has begun is then waited for, so that nothing runs on unseen.
    """
    pool, running, done, tasks = shared_pool(), set(), SimpleQueue(), iter(tasks)
    try:
        while True:
            while len(running) < limit and (task := next(tasks, None)) is not None:
                future = pool.submit(function, task)
                running.add(future)
                # `concurrent.futures.wait` locks all that are running, each time one is done.
                future.add_done_callback(done.put)
            if not running:
                return
            future = done.get()
            running.remove(future)
            yield future.result()
    finally:
        for future in running:
            future.cancel()
        wait(running)
