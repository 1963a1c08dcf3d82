"""A process that embeds numbers through the store; started, and killed, by the store's tests.

Usage: cache_worker.py ROOT N_ROWS BATCH_SIZE SHARE_WORK SECONDS LOG OUTPUT

Each row that is computed adds one line to LOG before its computing begins.
"""

import hashlib
import sys
import time
from pathlib import Path

import numpy as np

# Not np.random: a fork while another thread imports it for the first time would never end.
from numpy.random import default_rng

from sktransfer.cache import EmbeddingCache, embed_once

N_FEATURES = 16


def key(number):
    return hashlib.blake2b(str(number).encode(), digest_size=20).digest()


def row(number):
    return default_rng(number).normal(size=N_FEATURES).astype(np.float32)


def store(root):
    return EmbeddingCache("a key", N_FEATURES, root=Path(root), description="numbers, 16 wide")


def slow_compute(log, in_flight, seconds):
    """Compute as the real network does: some rows are in flight while none is delivered."""

    def compute(positions):
        for start in range(0, len(positions), in_flight):
            chunk = positions[start : start + in_flight]
            with open(log, "a") as file:
                file.write("".join(f"{number}\n" for number in chunk))
            time.sleep(seconds)
            yield from ((number, row(number)) for number in chunk)

    return compute


def main(root, n_rows, batch_size, share_work, seconds, log, output):
    compute = slow_compute(log, max(1, int(batch_size) // 2), float(seconds))
    keys = [key(number) for number in range(int(n_rows))]
    print("ready", flush=True)
    rows, _ = embed_once(
        store(root), keys, compute, batch_size=int(batch_size), share_work=share_work == "True"
    )
    np.save(output, rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
