"""New processes that need not import the libraries again, which takes seconds each time.

They are forked from a server that has imported the libraries, but nothing of ours, and runs nothing
else: what runs in a process begins as in one that is quite new.
"""

import multiprocessing
import os

FORKS = "forkserver" in multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if FORKS else "spawn")
CONTEXT.set_forkserver_preload(["sklearn.ensemble", "skorch", "torchvision"])


def start(program, **names):
    """Start a process that runs the source ``program``, in which ``names`` are defined."""
    # A child would otherwise have the environment that the server was started in.
    process = CONTEXT.Process(target=_run, args=(program, names, dict(os.environ)), daemon=True)
    process.start()
    return process


def run(program, **names):
    """Run the source ``program`` in a new process to its end, which must be a good one."""
    process = start(program, **names)
    process.join(timeout=120)
    assert process.exitcode == 0, f"ended with {process.exitcode}; its messages are in stderr"


def other_hashes():
    """Return an environment in which a new process puts sets of strings in another order."""
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    return {**os.environ, "PYTHONHASHSEED": seed}


def _run(program, names, environment):
    os.environ.clear()
    os.environ.update(environment)
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__", **names})
