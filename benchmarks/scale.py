"""Embedding with several workers, and into files larger than memory.

    python benchmarks/scale.py [--images 2000] [--backbone tiny_mobilenet] [--memory 2000 20000]

Prints images per second for a bare loop (decode, resize and run the network, one image at a time),
for one worker (this process), for writing Parquet files, and for a Dask cluster of two workers, all
with one thread each; the overhead per image beyond the bare loop; and the peak memory of a process
that writes embeddings of generated images to Parquet files.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib
import torch
from _machine import machine
from PIL import Image

import sktransfer
from sktransfer import ImageEmbedder
from sktransfer.datasets import make_shapes
from sktransfer.distributed import write_embeddings
from sktransfer.embedder import network_of
from sktransfer.images import decode_image, fit_to_network


def draw(folder, n_images):
    """Write JPEG files of 320 x 240 pixels, and return their paths."""
    shapes = make_shapes(200, image_size=64, random_state=0).data
    paths = []
    for number in range(n_images):
        image = Image.fromarray(shapes[number % 200]).resize((320, 240))
        paths.append(str(folder / f"{number:06}.jpg"))
        image.save(paths[-1], quality=90, comment=str(number))  # a digest of its own
    return paths


def bare_loop(network, paths):
    """Decode, resize, and run the network, as many images at a time as it takes."""
    runner, rows, how = network.runner(), network.runtime.rows, network.preprocessing
    for start in range(0, len(paths), rows):
        frames = [
            fit_to_network(decode_image(path, min_side=how.min_decoded_side), how)
            for path in paths[start : start + rows]
        ]
        runner(torch.stack(frames + frames[:1] * (rows - len(frames))))


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def speed(backbone, n_images, repeats):
    from distributed import Client

    with tempfile.TemporaryDirectory() as folder:
        paths = draw(Path(folder), n_images)
        embedder = ImageEmbedder(backbone, cache=None).fit(paths)
        few = paths[:64]
        ways = {
            "bare loop": lambda paths: bare_loop(network_of(embedder), paths),
            "1 worker": embedder.transform,
            "Parquet files": lambda paths: write_embeddings(
                embedder, paths, f"{folder}/{time.time_ns()}", rows_per_file=500
            ),
        }
        times = {}
        for name, way in ways.items():
            way(few)
            times[name] = min(seconds(way, paths) for _ in range(repeats))
        with (
            Client(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"),
            joblib.parallel_config("dask"),
        ):
            embedder.transform(few)  # the workers load the network
            times["Dask, 2 workers"] = min(
                seconds(embedder.transform, paths) for _ in range(repeats)
            )
    print(f"| {'way':15} | images/s | ms per image | beyond the bare loop |")
    print(f"|{'-' * 17}|---------:|-------------:|---------------------:|")
    for name, taken in times.items():
        more = f"{taken / times['bare loop'] - 1:+.1%}"
        ms = 1000 * taken / n_images
        print(f"| {name:15} | {n_images / taken:8.1f} | {ms:12.2f} | {more:>20} |", flush=True)


MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
from sktransfer import ImageEmbedder
from sktransfer.distributed import write_embeddings

def images(n):
    rng = np.random.default_rng(0)
    for _ in range(n):
        yield rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)

embedder = ImageEmbedder(image_size=32, engine="torch", cache=None)
write_embeddings(embedder, images(int(sys.argv[1])), sys.argv[2], rows_per_file=500)
# Not getrusage, whose peak includes that of the process that started this one.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1000)
"""


def peak(n_images):
    """Return the peak memory in MB of a process that writes embeddings out of core."""
    environment = os.environ | {"PYTHONPATH": str(Path(sktransfer.__file__).parents[1])}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", MEMORY, str(n_images), f"{folder}/out"]
        return float(subprocess.check_output(command, env=environment))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--backbone", default="tiny_mobilenet")
    parser.add_argument("--memory", type=int, nargs="*", default=[2000, 20_000])
    parser.add_argument("--skip-speed", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine("dask", "pyarrow", "openvino"), "\n")
    if not options.skip_speed:
        print(f"{options.backbone}, {options.images:,} JPEG files, one thread per process\n")
        speed(options.backbone, options.images, options.repeats)
    for n_images in options.memory:
        print(f"\nPeak memory, {n_images:,} images out of core: {peak(n_images):.0f} MB")


if __name__ == "__main__":
    main()
