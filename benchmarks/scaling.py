"""Seconds and peak memory of embedding 1,000, 10,000 and 100,000 distinct small files.

    python benchmarks/scaling.py

Each figure comes from a new process, which has embedded one file before the clock starts. "cold"
embeds with an empty cache, "warm" finds all embeddings there, and "search", for up to 10,000 files,
is a grid search over five folds and three heads with all embeddings in the cache. The images are 32
pixels wide, so that what does not belong to the network counts most. The files are made first.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from _machine import machine
from joblib import Parallel, delayed
from PIL import Image


def write(folder, start, stop):
    """Write images of random noise, each in a file of its own."""
    for number in range(start, stop):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(folder / f"{number:06d}.jpg")


def child(what, folder, n_samples):
    """Do one thing, and print wall-clock seconds, CPU seconds, and megabytes before and at most."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import GridSearchCV

    from sktransfer import ImageEmbedder, make_transfer_pipeline

    files = [str(folder / f"{number:06d}.jpg") for number in range(n_samples)]
    options = {"image_size": 32, "cache": folder.parent / "cache"}
    ImageEmbedder("tiny_mobilenet", **options).fit_transform(files[:1])  # imports, and compiles
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    begun, cpu = time.perf_counter(), time.process_time()
    if what == "search":
        pipeline = make_transfer_pipeline("tiny_mobilenet", RidgeClassifier(), **options)
        grid = {"head__alpha": [10, 100, 1000]}
        labels = np.arange(n_samples) % 10
        GridSearchCV(pipeline, grid, cv=5).fit(files, labels)
    else:
        ImageEmbedder("tiny_mobilenet", **options).fit_transform(files)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    print(seconds, cpu, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        what, folder, n_samples = args.child
        return child(what, Path(folder), int(n_samples))
    sizes = [int(size) for size in args.sizes.split(",")]
    print(machine("openvino"), "\n")
    print("| | files | seconds | CPU seconds | CPU ms per file | memory, MB | of that, new |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    with TemporaryDirectory() as root:
        files = Path(root) / "files"
        files.mkdir()
        steps = np.linspace(0, max(sizes), 21, dtype=int)
        Parallel(-1)(delayed(write)(files, *step) for step in pairwise(steps))
        for n_samples in sizes:
            for what in ("cold", "warm", "search")[: 3 if n_samples <= 10_000 else 2]:
                if what == "cold":
                    shutil.rmtree(Path(root) / "cache", ignore_errors=True)
                command = [sys.executable, __file__, "--child", what, files, str(n_samples)]
                output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                seconds, cpu, before, peak = map(float, output.stdout.split())
                print(
                    f"| {what} | {n_samples:,} | {seconds:.2f} | {cpu:.2f} "
                    f"| {1000 * cpu / n_samples:.3f} | {peak:.0f} | {peak - before:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
