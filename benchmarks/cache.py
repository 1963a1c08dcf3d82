"""Cost of the cache: looking up embeddings, and recognizing unchanged files.

    python benchmarks/cache.py [--rows 10000] [--features 2048] [--repeats 3]

Prints a table of wall-clock and processor seconds. Exits with 1 if a wall-clock time exceeds its
limit; on a busy machine, wall-clock time includes the work of other programs. "Fresh process" is
timed in a process that has imported the package and done nothing else. The operating system may
still have the file in its own cache.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np

import sktransfer
from sktransfer.cache import EmbeddingCache

#: Maximum seconds for 10,000 rows of 2,048 floats, or for 10,000 paths.
LIMITS = {
    "lookup from disk, fresh process": 0.5,
    "lookup from memory": 0.1,
    "digests of unchanged paths, fresh process": 0.2,
    "digests of unchanged paths, same process": 0.2,
}


def keys(n_rows, first=0):
    return [blake2b(str(first + i).encode(), digest_size=20).digest() for i in range(n_rows)]


def embedding_cache(root, n_features):
    return EmbeddingCache(root, "benchmark", n_features, description="benchmark")


def timed(function):
    """Wall-clock seconds, and processor seconds of this process."""
    clock, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - clock, time.process_time() - processor


def look_up(root, n_rows, n_features):
    """Times of the first and of later lookups in this process."""
    wanted = keys(n_rows)

    def read():
        rows = np.empty((n_rows, n_features), np.float32)
        with embedding_cache(root, n_features) as cache:
            missing = {wanted[index]: index for index in cache.recall(wanted, rows)}
            for found, block in cache.read(missing):
                for key, row in zip(found, block, strict=True):
                    rows[missing.pop(key)] = row
        if missing:
            raise RuntimeError(f"{len(missing)} rows are missing from the cache.")

    return [timed(read) for _ in range(4)]


def write(root, n_rows, n_features, first=0, commit=32):
    """Time to write rows, ``commit`` rows per transaction."""
    rows = np.random.default_rng(0).normal(size=(n_rows, n_features)).astype(np.float32)
    row_of = dict(zip(keys(n_rows, first), rows, strict=True))

    def fill():
        with embedding_cache(root, n_features) as cache:
            for _, claimed in cache.claim({key: key for key in row_of}):
                for start in range(0, len(claimed), commit):
                    cache.write({key: row_of[key] for key in claimed[start : start + commit]})

    return timed(fill)


def make_files(folder, n_files):
    folder.mkdir()
    content = os.urandom(20_000)
    for number in range(n_files):
        (folder / f"{number}.jpg").write_bytes(number.to_bytes(4) + content)


def digest_paths(root, folder):
    """Times of the first and the second digest of all files in this process."""
    from sktransfer.images import digest_images  # imports torch, which nothing else needs here

    paths = sorted(map(str, folder.iterdir()))
    return [timed(lambda: digest_images(paths, root)) for _ in range(2)]


def stream(root, n_rows, n_features):
    """Growth of this process in MB while it streams ten sets, after the first two."""
    sizes = []
    for block in range(12):
        write(root, n_rows, n_features, first=block * n_rows, commit=n_rows)
        sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
    return sizes[-1] - sizes[1]


def in_fresh_process(function, *arguments, **environment):
    """Run one of the functions above in a new process."""
    command = [sys.executable, __file__, "--child", function.__name__, *map(str, arguments)]
    path = str(Path(sktransfer.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": path} | environment
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def child(name, arguments):
    function = {f.__name__: f for f in (look_up, digest_paths, stream)}[name]
    arguments = [int(a) if a.isdigit() else Path(a) for a in arguments]
    print(json.dumps(function(*arguments)))


def measure(folder, n_rows, n_features, repeats):
    figures = {"write, a commit every 32 rows": write(folder, n_rows, n_features)}
    lookups = [in_fresh_process(look_up, folder, n_rows, n_features) for _ in range(repeats)]
    figures["lookup from disk, fresh process"] = min(times[0] for times in lookups)
    figures["lookup from memory"] = min(min(times[1:]) for times in lookups)
    make_files(folder / "files", n_rows)
    time.sleep(2.1)  # digests of files changed more recently are not kept
    new, again = in_fresh_process(digest_paths, folder, folder / "files")
    figures["digests of new paths"] = new
    figures["digests of unchanged paths, same process"] = again
    digests = [in_fresh_process(digest_paths, folder, folder / "files") for _ in range(repeats)]
    figures["digests of unchanged paths, fresh process"] = min(times[0] for times in digests)
    return figures


def report(figures):
    """Print the figures and return whether all are within their limits."""
    print(
        f"| {'what':41} | seconds | processor | limit |\n|{'-' * 43}|--------:|----------:|------:|"
    )
    for what, (clock, processor) in figures.items():
        limit = LIMITS.get(what, "")
        print(f"| {what:41} | {clock:7.3f} | {processor:9.3f} | {limit:5} |")
    return all(figures[what][0] <= limit for what, limit in LIMITS.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"{options.rows:,} rows of {options.features:,} floats; best of {options.repeats}\n")
        good = report(measure(Path(folder), options.rows, options.features, options.repeats))
        growth = in_fresh_process(
            stream, Path(folder) / "stream", 1000, options.features, SKTRANSFER_MEMORY_LIMIT="20MB"
        )
        print(f"\nStreaming 10 x 1,000 rows at a memory limit of 20 MB: {growth:+.1f} MB")
    sys.exit(0 if good and growth < 20 else 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
    else:
        main()
