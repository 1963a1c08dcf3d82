"""
Embed on a cluster, and train on more than memory holds
=======================================================

This example embeds images in a Dask cluster of two processes on this machine, writes the embeddings
to Parquet files, and trains a head on the files, batch by batch. It checks that the results equal
those of one process. Run it on generated shapes, or on your own images:

.. code-block:: shell

    python examples/scale_out.py
    python examples/scale_out.py FOLDER --n-images 5000

``FOLDER`` contains one folder of images per class. With ``--n-images``, the images are copied until
there are so many distinct files. For a real cluster, only the first line with ``Client`` differs.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np

from sktransfer import HeadClassifier, ImageEmbedder
from sktransfer.datasets import load_image_folder, make_shapes
from sktransfer.distributed import write_embeddings


def parse():
    parser = argparse.ArgumentParser(description="Embed images in a Dask cluster.")
    parser.add_argument("folder", nargs="?", type=Path, help="class folders (default: shapes)")
    parser.add_argument("--n-images", type=int, help="copy the images to so many distinct files")
    parser.add_argument("--backbone", default="tiny_mobilenet")
    parser.add_argument("--output", type=Path, default=Path("scale-output"))
    return parser.parse_args()


def copies(data, n_images, folder):
    """Write distinct copies of the images; return their paths and labels."""
    paths = []
    for number in range(n_images):
        source = Path(data.data[number % len(data.data)])
        paths.append(str(folder / f"{number:06}{source.suffix}"))
        # Decoders ignore what follows the end of an image.
        Path(paths[-1]).write_bytes(source.read_bytes() + number.to_bytes(4))
    return np.array(paths, dtype=object), np.resize(data.target, n_images)


def train(folder, classes, label_of):
    """Train a head on a folder of Parquet files; return its accuracy on the same images."""
    from pyarrow.dataset import dataset

    embeddings, head = dataset(folder), HeadClassifier(random_state=0)
    for epoch in range(6):
        n_right = 0
        for batch in embeddings.to_batches(columns=["path", "embedding"], batch_size=1024):
            X = np.stack(batch["embedding"].to_numpy(zero_copy_only=False))
            y = [label_of[path] for path in batch["path"].to_pylist()]
            if epoch < 5:
                head.partial_fit(X, y, classes=classes)
            else:
                n_right += (head.predict(X) == y).sum()
    return n_right / embeddings.count_rows()


def main():
    try:
        from distributed import Client
    except ImportError:
        sys.exit("This example needs Dask: pip install 'sktransfer[dask,parquet]'")
    options = parse()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if options.folder is None:
            make_shapes(120, folder=folder / "shapes", random_state=0)
        data = load_image_folder(options.folder or folder / "shapes")
        paths, labels = data.data, data.target
        if options.n_images:
            paths, labels = copies(data, options.n_images, folder)
        embedder = ImageEmbedder(options.backbone, cache=None).fit(paths)

        start = time.perf_counter()
        expected = embedder.transform(paths)
        print(f"one process:   {len(paths) / (time.perf_counter() - start):7.1f} images/s")

        output = options.output / "embeddings.parquet"
        # One thread per worker: the images are divided among the workers, not the layers.
        with (
            Client(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"),
            joblib.parallel_config("dask"),
        ):
            start = time.perf_counter()
            rows = embedder.transform(paths)
            print(f"two processes: {len(paths) / (time.perf_counter() - start):7.1f} images/s")
            write_embeddings(embedder, paths, output)
        same = np.array_equal(rows, expected)
        print("the same embeddings" if same else "DIFFERENT embeddings")
        label_of = dict(zip(paths, labels, strict=True))
        accuracy = train(output, data.target_names, label_of)
        print(f"accuracy of a head trained on {output}: {accuracy:.3f}")
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
