"""New processes that need not import the libraries again, which takes seconds each time.

They are forked from a server that has imported the libraries, but nothing of ours, and runs nothing
else: what runs in a process begins as in one that is quite new. They put sets of strings in another
order than the process of the tests.
"""

import multiprocessing
import os
from contextlib import contextmanager
from multiprocessing import forkserver
from unittest.mock import patch

from joblib import parallel_config
from joblib.externals.loky.backend.context import set_start_method

FORKS = "forkserver" in multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if FORKS else "spawn")
CONTEXT.set_forkserver_preload(["sklearn.ensemble", "torchvision"])


def start(program, **names):
    """Start a process that runs the source ``program``, in which ``names`` are defined."""
    _start_server()
    # A child would otherwise have the environment that the server was started in.
    process = CONTEXT.Process(target=_run, args=(program, names, dict(os.environ)), daemon=True)
    process.start()
    return process


def run(program, **names):
    """Run the source ``program`` in a new process to its end, which must be a good one."""
    process = start(program, **names)
    process.join(timeout=120)
    assert process.exitcode == 0, f"ended with {process.exitcode}; its messages are in stderr"


@contextmanager
def quick_workers():
    """Start the workers of joblib as such processes."""
    _start_server()
    set_start_method("forkserver" if FORKS else None, force=True)
    with parallel_config("loky", initializer=_set_environment, initargs=(dict(os.environ),)):
        yield
    set_start_method(None, force=True)


@contextmanager
def quick_cluster():
    """Start the workers of Dask as such processes."""
    import dask
    import distributed  # noqa: F401  (its import adds settings, which the context would remove)

    _start_server()
    with dask.config.set({"distributed.worker.multiprocessing-method": CONTEXT.get_start_method()}):
        yield


def _start_server():
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    with patch.dict(os.environ, PYTHONHASHSEED=seed):
        if FORKS:
            forkserver.ensure_running()


def _set_environment(environment):
    os.environ.clear()
    os.environ.update(environment)


def _run(program, names, environment):
    _set_environment(environment)
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__", **names})
