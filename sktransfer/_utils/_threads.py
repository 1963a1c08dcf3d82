"""One pool of threads for the whole process, and single-threaded kernels.

A network runs on several images at a time, one thread per image, instead of on one batch with all
threads. On CPUs this is faster, because operators have no barriers inside and activations stay in
the processor's cache, and results do not depend on the number of cores.
"""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import joblib

from ._fork import IMPORTING, after_fork_in_child

#: Cached: asking takes as long as looking up a hundred embeddings.
_n_cores = cache(joblib.cpu_count)

_lock = threading.Lock()
_pools = {}  # (process id, number of threads) -> pool
_callers = 0
_share_before = 1  # torch's number of threads before the first caller
_generators = threading.RLock()
_forked = False


@after_fork_in_child
def _reset():
    global _lock, _callers, _generators, _forked
    _lock, _callers, _generators = threading.Lock(), 0, threading.RLock()
    _forked = True
    _pools.clear()


def import_torch():
    """Return torch; reading embeddings from the cache does without it."""
    with IMPORTING:
        import torch
    return torch


def loaded_torch():
    """Return torch, or None if this process has not imported it to the end."""
    torch = sys.modules.get("torch")
    return None if torch is None or getattr(torch.__spec__, "_initializing", False) else torch


def thread_share():
    """Return the number of cores, or fewer if ``OMP_NUM_THREADS`` or the user limits torch."""
    torch = loaded_torch()
    with _lock:
        if _callers:
            told = _share_before
        elif torch is not None:
            told = torch.get_num_threads()
        else:  # what torch would read
            first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
            told = int(first) if first.isdecimal() else _n_cores()
    return max(1, min(_n_cores(), told))


def inside_worker():
    """Whether this code is a task of joblib or of Dask, whose backend does not count levels."""
    backend, _ = joblib.parallel.get_active_backend()
    dask = sys.modules.get("distributed.utils")
    return bool(getattr(backend, "nesting_level", 0)) or (
        dask is not None and hasattr(dask.thread_state, "execution_state")
    )


def shared_pool():
    """Return the pool of this process, which has `thread_share` threads."""
    torch, n_threads = import_torch(), thread_share()
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
    """Make torch's kernels use one thread each, in this thread and in those of the pool."""
    global _callers, _share_before
    torch = import_torch()
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
            # One part of this setting belongs to the thread, another to the process (MKL). Other
            # callers still need 1 thread, so a thread of the pool sets the process's part again.
            shared_pool().submit(torch.set_num_threads, 1)


@contextmanager
def usable_kernels():
    """Use one thread in a forked child, which would wait forever for those of its parent."""
    if not _forked or import_torch().get_num_threads() == 1:
        yield
        return
    with single_threaded_kernels():
        yield


@contextmanager
def own_generators(devices=()):
    """Restore torch's generators at the end, and let other callers of this function wait."""
    torch = import_torch()
    with _generators, torch.random.fork_rng(devices):
        yield
