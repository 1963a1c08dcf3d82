"""Milliseconds to decode and resize 12-megapixel photographs, and what fast decoding changes.

    python benchmarks/decoding.py FOLDER [--network efficientnet_lite0] [--number 16]

The photographs of FOLDER are enlarged to 4000 x 3000 pixels, with grain as a phone's sensor adds
it, and encoded in each format. Exact and fast decoding of each image run in turn.
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
    """Return what the network sees, and the seconds."""
    begun = time.perf_counter()
    pixels = fit_to_network(decode_image(data, min_side=min_side), preprocessing)
    return pixels.numpy().astype(np.int16), time.perf_counter() - begun


def embed(network, decoding, images):
    """Return embeddings without a cache, and the seconds, both cores at work."""
    embedder = ImageEmbedder(network, decoding=decoding, cache=None).fit(images)
    embedder.transform(images[:2])  # loads the network
    begun = time.perf_counter()
    rows = embedder.transform(images)
    return rows, time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--number", type=int, default=16)
    args = parser.parse_args()
    pillow_heif.register_heif_opener()
    torch.set_num_threads(1)
    print(machine("Pillow", "pillow-heif"), "\n")
    preprocessing = ImageEmbedder(args.network).fit(["any"]).preprocessing_
    encoded = {format: [] for format in FORMATS}
    for image in photographs(args.folder, args.number):
        for format in FORMATS:
            encoded[format].append(encode(image, format))
    print(f"{args.number} images of 4000 x 3000 pixels, {args.network}, one thread\n")
    print("| format | MB | exact, ms | fast, ms | ratio | difference of 255 |")
    print("|---|---|---|---|---|---|")
    for format, images in encoded.items():
        rounds = [
            [prepare(data, preprocessing, side) for side in (None, preprocessing.min_decoded_side)]
            for data in images
        ]
        exact, fast = ([1000 * both[side][1] for both in rounds] for side in (0, 1))
        difference = np.mean([np.abs(both[0][0] - both[1][0]).mean() for both in rounds])
        print(
            f"| {format} | {np.mean([len(data) for data in images]) / 1e6:.1f} "
            f"| {np.median(exact):.0f} | {np.median(fast):.0f} "
            f"| {np.median(exact) / np.median(fast):.2f} | {difference:.2f} |",
            flush=True,
        )
    results = {how: embed(args.network, how, encoded["JPEG"]) for how in ("exact", "fast", "exact")}
    rows = {
        how: row / np.linalg.norm(row, axis=1, keepdims=True) for how, (row, _) in results.items()
    }
    cosine = (rows["exact"] * rows["fast"]).sum(1).min()
    speeds = {how: args.number / seconds for how, (_, seconds) in results.items()}
    print(
        f"\nEmbedding JPEG: {speeds['exact']:.1f} images/s exact, {speeds['fast']:.1f} fast, "
        f"{speeds['fast'] / speeds['exact']:.2f} x; least cosine {cosine:.5f}"
    )


if __name__ == "__main__":
    main()
