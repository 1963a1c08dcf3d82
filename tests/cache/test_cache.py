"""Rows are looked up, computed once and kept; nothing fails here and no other process runs."""

import gc
import itertools
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import numpy as np
import pytest
from cache_worker import look_up_or_compute

from sktransfer.cache import EmbeddingCache, cache_info
from sktransfer.cache._claims import StripeLocks
from sktransfer.cache._failures import Trouble
from sktransfer.cache._memory import RowMemory, memory
from sktransfer.exceptions import CacheWarning, UnreadableImageError

WIDTH = 8


def keys_of(numbers):
    return [blake2b(str(number).encode(), digest_size=20).digest() for number in numbers]


def row_of(number):
    return np.random.default_rng(number).normal(size=WIDTH).astype(np.float32)


def rows_of(numbers):
    return np.stack([row_of(number) for number in numbers])


class Network:
    """Computes rows of numbers and remembers which; what is in ``broken`` fails."""

    def __init__(self, numbers, broken=()):
        self.numbers, self.broken, self.computed = list(numbers), broken, []

    def __call__(self, positions):
        for position in reversed(positions):
            number = self.numbers[position]
            self.computed.append(number)
            if number in self.broken:
                yield position, UnreadableImageError(f"{number} is broken")
            else:
                yield position, row_of(number)


def make_cache(root, key="key"):
    return EmbeddingCache(root, key, WIDTH, description="tiny, 8 wide")


@pytest.fixture
def cache(tmp_path):
    return make_cache(tmp_path)


def embed(cache, numbers, *, broken=(), batch_size=4, share_work=False):
    network = Network(numbers, broken)
    rows, failures = look_up_or_compute(
        cache, keys_of(numbers), network, batch_size=batch_size, share_work=share_work
    )
    return rows, failures, network


@pytest.mark.parametrize("share_work", [False, True])
def test_rows_are_right_and_computed_once(cache, share_work):
    numbers = range(100)
    rows, failures, network = embed(cache, numbers, share_work=share_work)
    assert rows.dtype == np.float32
    assert rows.tobytes() == rows_of(numbers).tobytes()
    assert failures == {}
    assert sorted(network.computed) == list(numbers)


@pytest.mark.parametrize("forget", [False, True], ids=["memory", "disk"])
def test_a_second_call_computes_nothing(cache, forget):
    embed(cache, range(50))
    if forget:
        memory.forget(cache.path)
    shuffled = np.random.default_rng(0).permutation(50)
    rows, _, network = embed(cache, shuffled)
    assert network.computed == []
    assert rows.tobytes() == rows_of(shuffled).tobytes()


def test_only_what_is_missing_is_computed(cache):
    embed(cache, range(20))
    rows, _, network = embed(cache, range(10, 30))
    assert sorted(network.computed) == list(range(20, 30))
    assert rows.tobytes() == rows_of(range(10, 30)).tobytes()


def test_duplicates_are_computed_once(cache):
    numbers = [3, 1, 3, 3, 2, 1]
    rows, _, network = embed(cache, numbers)
    assert sorted(network.computed) == [1, 2, 3]
    assert rows.tobytes() == rows_of(numbers).tobytes()


def test_without_a_root_only_duplicates_are_spared(tmp_path):
    nowhere = make_cache(None)
    for _ in range(2):
        rows, _, network = embed(nowhere, [1, 2, 1])
        assert sorted(network.computed) == [1, 2]
        assert rows.tobytes() == rows_of([1, 2, 1]).tobytes()
    assert list(tmp_path.iterdir()) == []


def test_failures_are_nan_reported_and_tried_again(cache):
    rows, failures, _ = embed(cache, [0, 1, 2, 1], broken={1})
    assert list(failures) == [1, 3]
    assert str(failures[3]) == "1 is broken"
    assert np.isnan(rows[[1, 3]]).all()
    assert rows[[0, 2]].tobytes() == rows_of([0, 2]).tobytes()
    rows, failures, network = embed(cache, [0, 1, 2, 1])
    assert network.computed == [1]
    assert failures == {}
    assert rows.tobytes() == rows_of([0, 1, 2, 1]).tobytes()


@pytest.mark.parametrize("share_work", [False, True])
def test_a_lock_that_fails_midway_costs_no_row(cache, monkeypatch, share_work):
    acquire, n_calls = StripeLocks._acquire, itertools.count(1)

    def failing(self, stripe, seconds):
        if next(n_calls) >= 3:
            raise Trouble("unusable", "too many open files")
        return acquire(self, stripe, seconds)

    monkeypatch.setattr(StripeLocks, "_acquire", failing)
    with pytest.warns(CacheWarning, match="too many open files"):
        rows, failures, network = embed(cache, range(60), share_work=share_work)
    assert rows.tobytes() == rows_of(range(60)).tobytes()
    assert failures == {} and sorted(network.computed) == list(range(60))


def test_no_rows(cache):
    rows, failures, _ = embed(cache, [])
    assert rows.shape == (0, WIDTH)
    assert failures == {}


@pytest.mark.parametrize("other", ["key", "root"])
def test_caches_are_separate(cache, tmp_path, other):
    embed(cache, range(3))
    changed = {
        "key": make_cache(tmp_path, "other"),
        "root": make_cache(tmp_path / "else"),
    }[other]
    assert sorted(embed(changed, range(3))[2].computed) == [0, 1, 2]


def test_share_work_hands_the_network_whole_batches(cache):
    sizes = []

    def compute(positions):
        sizes.append(len(positions))
        yield from Network(range(203))(positions)

    look_up_or_compute(cache, keys_of(range(203)), compute, batch_size=16, share_work=True)
    assert sum(sizes) == 203
    assert [size % 16 for size in sizes[:-1]] == [0] * (len(sizes) - 1)


def test_rows_of_an_interrupted_call_are_kept(cache):
    def compute(positions):
        for position in positions[:7]:
            yield position, row_of(position)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look_up_or_compute(cache, keys_of(range(20)), compute, batch_size=10, share_work=False)
    memory.forget(cache.path)
    rows, _, network = embed(cache, range(20))
    assert len(network.computed) == 13
    assert rows.tobytes() == rows_of(range(20)).tobytes()


def test_threads_compute_each_row_once(cache):
    networks = []

    def work(seed):
        numbers = np.random.default_rng(seed).permutation(120)
        rows, _, network = embed(make_cache(cache.root), numbers, share_work=seed % 2 == 0)
        networks.append(network)
        return rows.tobytes() == rows_of(numbers).tobytes()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    computed = [number for network in networks for number in network.computed]
    assert sorted(computed) == list(range(120))


def test_hits_and_misses_are_counted(cache, tmp_path):
    embed(cache, range(10))
    embed(cache, [*range(12), 0])
    info = cache_info(tmp_path)
    assert (info.hits, info.misses) == (11, 12)


def test_memory_is_bounded_while_a_large_set_streams(cache, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_MEMORY_LIMIT", "40KB")
    embed(cache, range(150), batch_size=64)
    tracemalloc.start()
    try:
        sizes = []
        for start in range(0, 900, 150):
            embed(cache, range(start, start + 150), batch_size=64)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert memory.n_bytes <= 40_000
    # The first blocks fill the memory that is allowed.
    assert max(sizes[3:]) < sizes[2] + 20_000


def test_memory_drops_the_cache_used_least_recently(monkeypatch):
    monkeypatch.setenv("SKTRANSFER_MEMORY_LIMIT", "1400")  # four rows of 25
    remembered, found = RowMemory(), np.zeros((4, 25), dtype=np.float32)
    remembered.put_many("s", ["a", "b"], np.ones((2, 25), dtype=np.float32))
    remembered.put_many("t", ["c", "d"], np.full((2, 25), 3, dtype=np.float32))
    assert remembered.copy_into(found[:2], "s", ["b", "a"]) == []
    remembered.put_many("s", ["e"], np.full((1, 25), 5, dtype=np.float32))
    assert remembered.copy_into(found, "s", ["e", "b", "c", "a"]) == [2]
    assert found[:, 0].tolist() == [5, 1, 0, 1]
    assert remembered.copy_into(found[:2], "t", ["c", "d"]) == [0, 1]
    remembered.forget("s")
    assert remembered.n_bytes == 0


def test_memory_stays_below_its_limit(monkeypatch):
    monkeypatch.setenv("SKTRANSFER_MEMORY_LIMIT", "64KB")
    remembered, n_missing = RowMemory(), []
    rows = np.repeat(np.arange(1000, dtype=np.float32)[:, None], 25, axis=1)
    for start in range(0, 1000, 7):
        keys = list(range(start, min(start + 7, 1000)))
        remembered.put_many("s", keys, rows[keys])
        assert remembered.n_bytes <= 64_000
        found = np.full((len(keys), 25), -1, dtype=np.float32)
        n_missing += remembered.copy_into(found, "s", keys)
        np.testing.assert_array_equal(found, rows[keys])
    assert n_missing == []
    remembered.put_many("s", range(1000), rows)  # more than may ever be kept
    assert remembered.n_bytes <= 64_000


def test_memory_is_read_while_rows_arrive():
    remembered, n_rows, done = RowMemory(), 3000, threading.Event()
    rows = np.repeat(np.arange(n_rows, dtype=np.float32)[:, None], 25, axis=1)

    def arrive():
        for start in range(0, n_rows, 3):
            remembered.put_many("s", range(start, start + 3), rows[start : start + 3])
        done.set()

    thread = threading.Thread(target=arrive)
    thread.start()
    n_looks = 0
    while not done.is_set() or not n_looks:
        found = np.full((n_rows, 25), -1, dtype=np.float32)
        n_missing = len(remembered.copy_into(found, "s", range(n_rows)))
        n_looks += 1
        np.testing.assert_array_equal(found[: n_rows - n_missing], rows[: n_rows - n_missing])
        assert (found[n_rows - n_missing :] == -1).all()
    thread.join()


def test_memory_knows_which_cache_a_row_is_from():
    remembered, found = RowMemory(), np.zeros((2, 25), dtype=np.float32)
    remembered.put_many("s", ["a", "b"], np.ones((2, 25), dtype=np.float32))
    assert remembered.copy_into(found, "s", ["a", "b"]) == []
    assert found.all()
    assert remembered.copy_into(found, "t", ["a", "b"]) == [0, 1]


@pytest.mark.parametrize("n_wanted", [3, 1100, 1190])
def test_few_and_most_rows_of_a_large_file(cache, n_wanted):
    embed(cache, range(1200), batch_size=1200)
    memory.forget(cache.path)
    numbers = [*reversed(range(1195, 1205)), *range(n_wanted), 2, 2]
    rows, _, network = embed(cache, numbers)
    assert sorted(network.computed) == list(range(1200, 1205))
    np.testing.assert_array_equal(rows, rows_of(numbers))
