"""Several processes at one cache, some of them killed."""

import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cache_worker
import new_process
import numpy as np
import pytest
from cache_worker import N_ROWS

import sktransfer
from sktransfer.cache._database import Database

SCRIPT = Path(cache_worker.__file__)
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(sktransfer.__file__).parents[1])}

WORK = """
from cache_worker import work

work(folder, output, **options)
"""


@pytest.fixture
def start(tmp_path):
    """Start a worker and wait until it begins to embed; all share a cache and a log."""
    processes = []

    def start(*, share_work, batch_size=8, seconds=0.01):
        options = {"share_work": share_work, "batch_size": batch_size, "seconds": seconds}
        output = tmp_path / f"{len(processes)}.npy"
        process = new_process.start(WORK, folder=tmp_path, output=output, options=options)
        process.output = output
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.join()


def await_ready(process):
    while not process.output.with_suffix(".ready").exists():
        assert process.exitcode is None
        time.sleep(0.001)


def expected_rows():
    return np.stack([cache_worker.row(number) for number in range(N_ROWS)])


def assert_right(process):
    process.join(timeout=60)
    assert process.exitcode == 0
    assert np.load(process.output).tobytes() == expected_rows().tobytes()


def computed(tmp_path):
    log = tmp_path / "log"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


@pytest.mark.parametrize("share_work", [True, False])
def test_processes_compute_each_row_once(start, tmp_path, share_work):
    processes = [start(share_work=share_work) for _ in range(4)]
    for process in processes:
        assert_right(process)
    assert sorted(computed(tmp_path)) == list(range(N_ROWS))


@pytest.mark.parametrize("share_work", [True, False])
def test_killed_at_any_moment_and_continued(start, tmp_path, share_work):
    moments, batch_size, n_kills = random.Random(int(share_work)), 8, 0
    while True:
        process = start(share_work=share_work, batch_size=batch_size)
        await_ready(process)
        time.sleep(moments.uniform(0.0, 0.25))
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        n_kills += 1
        if n_kills == 10:
            process = start(share_work=share_work, batch_size=batch_size)
            break
    assert_right(process)
    numbers = computed(tmp_path)
    assert set(numbers) == set(range(N_ROWS))
    assert n_kills >= 2
    assert len(numbers) - N_ROWS <= n_kills * batch_size


def test_who_waits_for_a_killed_process_goes_on(start, tmp_path):
    victim = start(share_work=False, seconds=0.05)
    await_ready(victim)
    while not computed(tmp_path):
        time.sleep(0.01)
    heir = start(share_work=False)
    await_ready(heir)
    time.sleep(0.2)
    victim.kill()
    assert_right(heir)
    assert len(computed(tmp_path)) - N_ROWS <= 8


FORKING = """
    import os, runpy, sys, threading

    worker = runpy.run_path(sys.argv[1])
    make, key, row = worker["cache"], worker["key"], worker["row"]

    def compute(positions):
        yield from ((position, row(position)) for position in positions)

    def embed(first):
        keys = [key(number) for number in range(first, first + 4)]
        cache = make(sys.argv[2])
        worker["look_up_or_compute"](cache, keys, compute, batch_size=2, share_work=False)

    def write():
        for first in range(0, 200, 4):
            embed(first)

    writer = threading.Thread(target=write)
    writer.start()
    children = []
    for number in range(8):
        child = os.fork()
        if not child:
            embed(1000 + 2 * number)
            os._exit(0)
        children.append(child)
    writer.join()
    statuses = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(statuses))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_forked_while_a_thread_writes_can_use_the_cache(tmp_path):
    script = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORKING)]
    subprocess.run([*script, SCRIPT, tmp_path], env=ENVIRONMENT, check=True, timeout=60)


def test_a_connection_is_not_used_after_a_fork(tmp_path, monkeypatch):
    pid = os.getpid()
    with Database(tmp_path / "x.sqlite") as database:
        database.write({b"key": b"row"})
        inherited = database._connection
        # As in a child: from here on the process has another number.
        monkeypatch.setattr(os, "getpid", lambda: pid + 1)
        assert database.read("SELECT row FROM rows") == [(b"row",)]
        assert database._connection is not inherited
    inherited.execute("SELECT 1")  # still open: closing it is its parent's business
    inherited.close()
