"""Computes numbers through the cache, also in processes that the tests start and kill."""

import hashlib
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

# Not np.random: a fork while another thread imports it for the first time would never end.
from numpy.random import default_rng

from sktransfer.cache import EmbeddingCache

N_FEATURES, N_ROWS = 16, 160


def look_up_or_compute(cache, keys, compute, *, batch_size, share_work):
    """Return rows and failures as `embed_images` does, from ``compute(indices)``.

    It yields (index, row or exception) of each index.
    """
    rows = np.empty((len(keys), cache.n_features), dtype=np.float32)
    failures, missing = {}, defaultdict(list)
    with cache:
        for index in cache.recall(keys, rows):
            missing[keys[index]].append(index)
        for found in cache.read(missing):
            fill(rows, missing, *found)
        groups = {key: key for key in missing}
        for found, claimed in cache.claim(groups, batch_size if share_work else None):
            fill(rows, missing, *found)
            settled = {}
            try:
                for index, row in compute([missing[key][0] for key in claimed]):
                    key, failed = keys[index], isinstance(row, Exception)
                    for same in missing.pop(key):
                        rows[same] = np.nan if failed else row
                        failures |= {same: row} if failed else {}
                    settled[key] = None if failed else rows[index]
                    if len(settled) >= max(1, batch_size // 2):
                        cache.write(settled)
                        settled = {}
            finally:
                cache.write(settled)
    return rows, dict(sorted(failures.items()))


def fill(rows, missing, keys, found):
    for key, row in zip(keys, found, strict=True):
        rows[missing.pop(key)] = row


def key(number):
    return hashlib.blake2b(str(number).encode(), digest_size=20).digest()


def row(number):
    return default_rng(number).normal(size=N_FEATURES).astype(np.float32)


def cache(root):
    return EmbeddingCache(Path(root), "a key", N_FEATURES, description="numbers, 16 wide")


def slow_compute(log, in_flight, seconds):
    """Compute as a real network does: some rows are in flight while none is delivered."""

    def compute(indices):
        for start in range(0, len(indices), in_flight):
            chunk = indices[start : start + in_flight]
            with open(log, "a") as file:
                file.write("".join(f"{number}\n" for number in chunk))
            time.sleep(seconds)
            yield from ((number, row(number)) for number in chunk)

    return compute


def work(folder, output, *, share_work, batch_size, seconds):
    """Look up or compute all rows, with a cache and a log in the folder, and save them.

    Each row that is computed adds one line to the log before its computation begins.
    """
    compute = slow_compute(folder / "log", max(1, batch_size // 2), seconds)
    keys = [key(number) for number in range(N_ROWS)]
    output.with_suffix(".ready").touch()
    rows, _ = look_up_or_compute(
        cache(folder / "cache"), keys, compute, batch_size=batch_size, share_work=share_work
    )
    np.save(output, rows)
