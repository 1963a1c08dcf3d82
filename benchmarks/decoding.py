"""Milliseconds to decode and resize 12-megapixel photographs, and what fast decoding changes.

    python benchmarks/decoding.py FOLDER [--network efficientnet_lite0] [--number 16]

The photographs of FOLDER are enlarged to 4000 x 3000 pixels, with grain as a phone's sensor adds
it, and encoded in each format. Exact and fast decoding of each image run in turn on one thread;
figures are medians of CPU milliseconds. Embedding uses all cores.
"""

import argparse
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
import torch
from _machine import machine
from embedding import image_files
from PIL import Image

from sktransfer import ImageEmbedder
from sktransfer.images import decode_image, fit_to_network

FORMATS = {
    "JPEG": {"quality": 90},
    "PNG": {"compress_level": 3},
    "WEBP": {"quality": 90, "method": 2},
    "HEIF": {"quality": 80},
}


def photographs(folder, number):
    """Yield enlarged images."""
    random = np.random.default_rng(0)
    for file in image_files(folder, number):
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC))
        grain = random.normal(0, 4, (3000, 4000, 1)).round().astype(np.int16)
        yield Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def encode(image, format):
    stream = BytesIO()
    image.save(stream, format, **FORMATS[format])
    return stream.getvalue()


def prepare(data, preprocessing, min_side):
    """Return what the network sees, and the CPU milliseconds to decode and to resize."""
    times = [time.process_time()]
    decoded = decode_image(data, min_side=min_side)
    times.append(time.process_time())
    pixels = fit_to_network(decoded, preprocessing)
    times.append(time.process_time())
    return pixels.numpy().astype(np.int16), 1000 * np.diff(times)


def by_scale(images, preprocessing):
    """Print where the time of JPEG files goes at each scale that libjpeg offers."""
    print("\n| JPEG decoded at | decoding, ms | resizing, ms |\n|---|---|---|")
    for scale in (1, 2, 4, 8):
        times = [prepare(data, preprocessing, 3000 // scale)[1] for data in images]
        decoding, resizing = np.median(times, axis=0)
        print(f"| 1/{scale} | {decoding:.1f} | {resizing:.1f} |", flush=True)


def embed(network, images, rounds=3):
    """Print how fast both ways embed, in turn and without a cache, and how near the results are."""
    rows, seconds = {}, {"exact": [], "fast": []}
    for decoding in [*seconds] * rounds:
        embedder = ImageEmbedder(network, decoding=decoding, cache=None).fit(images)
        embedder.transform(images[:2])  # loads the network
        begun = time.perf_counter()
        rows[decoding] = embedder.transform(images)
        seconds[decoding].append(time.perf_counter() - begun)
    unit = {how: row / np.linalg.norm(row, axis=1, keepdims=True) for how, row in rows.items()}
    exact, fast = (len(images) / min(times) for times in seconds.values())
    print(
        f"\nEmbedding JPEG: {exact:.1f} images/s exact, {fast:.1f} fast, {fast / exact:.2f} x; "
        f"least cosine {(unit['exact'] * unit['fast']).sum(1).min():.5f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--number", type=int, default=16)
    args = parser.parse_args()
    pillow_heif.register_heif_opener()
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    print(machine("Pillow", "pillow-heif"), "\n")
    preprocessing = ImageEmbedder(args.network).fit(["any"]).preprocessing_
    encoded = {format: [] for format in FORMATS}
    for image in photographs(args.folder, args.number):
        for format in FORMATS:
            encoded[format].append(encode(image, format))
    print(f"{args.number} images of 4000 x 3000 pixels, {args.network}\n")
    print("| format | MB | exact, ms | fast, ms | ratio | difference of 255 |")
    print("|---|---|---|---|---|---|")
    for format, images in encoded.items():
        rounds = [
            [prepare(data, preprocessing, side) for side in (None, preprocessing.min_decoded_side)]
            for data in images
        ]
        exact, fast = (np.median([both[side][1].sum() for both in rounds]) for side in (0, 1))
        difference = np.mean([np.abs(both[0][0] - both[1][0]).mean() for both in rounds])
        print(
            f"| {format} | {np.mean([len(data) for data in images]) / 1e6:.1f} | {exact:.0f} "
            f"| {fast:.0f} | {exact / fast:.2f} | {difference:.2f} |",
            flush=True,
        )
    by_scale(encoded["JPEG"], preprocessing)
    torch.set_num_threads(n_threads)
    embed(args.network, encoded["JPEG"])


if __name__ == "__main__":
    main()
