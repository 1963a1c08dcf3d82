"""How soon a new process cross-validates a logistic regression on embeddings in the cache.

The same script runs on arrays of the embeddings, in turn; times are of whole processes.

    python benchmarks/start.py FOLDER     # a folder of class folders
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _machine import machine

from sktransfer import ImageEmbedder
from sktransfer.datasets import load_image_folder

ON_ARRAYS = """
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate

X, y = np.load("embeddings.npy"), np.load("target.npy")
print(cross_validate(LogisticRegression(max_iter=200, tol=1e-3), X, y)["test_score"].mean())
"""
ON_IMAGES = """
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate
from sktransfer import make_transfer_pipeline

X, y = np.load("paths.npy"), np.load("target.npy")
model = make_transfer_pipeline({backbone!r}, LogisticRegression(max_iter=200, tol=1e-3))
print(cross_validate(model, X, y)["test_score"].mean())
"""


def run(program, folder):
    """Return (seconds, CPU seconds, score) of a new process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, float(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="tiny_mobilenet")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    data = load_image_folder(args.folder)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SKTRANSFER_HOME"] = folder
        embeddings = ImageEmbedder(args.backbone).fit_transform(data.data)
        np.save(Path(folder, "embeddings.npy"), embeddings)
        np.save(Path(folder, "paths.npy"), [os.path.abspath(path) for path in data.data])
        np.save(Path(folder, "target.npy"), data.target)
        programs = {"arrays": ON_ARRAYS, "images": ON_IMAGES.format(backbone=args.backbone)}
        runs = {name: [] for name in programs}
        for _ in range(args.rounds):
            for name, program in programs.items():
                runs[name].append(run(program, folder))
    print(machine(), f"\n{len(data.data)} images, {args.backbone}\n")
    print("| | seconds | × arrays | CPU seconds | × arrays | score |\n|---|---|---|---|---|---|")
    medians = {
        name: list(map(statistics.median, zip(*rows, strict=True))) for name, rows in runs.items()
    }
    for name, (seconds, cpu, score) in medians.items():
        ratios = seconds / medians["arrays"][0], cpu / medians["arrays"][1]
        print(
            f"| {name} | {seconds:.2f} | {ratios[0]:.2f} | {cpu:.2f} | {ratios[1]:.2f} | {score} |"
        )


if __name__ == "__main__":
    main()
