"""Cost of a search and of a cross-validated stack beyond embedding every image once.

There are two tasks: a ``GridSearchCV`` of 20 values of C in 5 folds, and 5-fold cross-validation of
a stack of two backbones with 5 inner folds. Each is done in three ways, in turn and in new
processes:

- ``sktransfer``: on a pipeline of images, with an empty cache (cold), then again in a new process
  (warm), and cold with ``n_jobs=2``;
- ``by hand``: one embedding pass for each backbone, then the same task on the embeddings;
- ``no cache``: on a pipeline with ``cache=None``, on fewer images;
- ``memory=``: the same (the search only), with scikit-learn's own cache of transformers.

    python benchmarks/search.py FOLDER     # a folder of class folders
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from _machine import machine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import ImageEmbedder, make_transfer_pipeline, make_transfer_stack
from sktransfer._engine import Network
from sktransfer.datasets import load_image_folder

BUNDLED = ["tiny_resnet", "tiny_mobilenet"]
FEWER = 100


def head():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, tol=1e-3))


def search(estimator, name, n_jobs=None):
    grid = {f"{name}logisticregression__C": np.logspace(-4, -1, 20)}
    return GridSearchCV(estimator, grid, cv=5, n_jobs=n_jobs)


def weights_of(backbones):
    """Pretrained weights if bundled, else random weights, which take the same time."""
    return "DEFAULT" if set(backbones) <= set(BUNDLED) else None


def embed_by_hand(backbone, weights, data):
    return ImageEmbedder(backbone, weights=weights, cache=None).fit_transform(data)


def search_images(backbones, data, target, cache=True, n_jobs=None, memory=None):
    pipeline = make_transfer_pipeline(
        backbones[-1], head(), weights=weights_of(backbones), cache=cache
    ).set_params(memory=memory)
    return search(pipeline, "head__", n_jobs).fit(data, target).best_score_


def search_by_hand(backbones, data, target):
    embeddings = embed_by_hand(backbones[-1], weights_of(backbones), data)
    return search(head(), "").fit(embeddings, target).best_score_


def stack_images(backbones, data, target, cache=True, n_jobs=None):
    stack = make_transfer_stack(backbones, head(), cv=5, weights=weights_of(backbones), cache=cache)
    return cross_validate(stack, data, target, cv=5, n_jobs=n_jobs)["test_score"].mean()


def stack_by_hand(backbones, data, target):
    """The same stack on embeddings in adjacent columns of one array."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import StackingClassifier

    parts = [embed_by_hand(name, weights_of(backbones), data) for name in backbones]
    edges = np.cumsum([0, *(part.shape[1] for part in parts)])
    branches = [
        (name, make_pipeline(ColumnTransformer([("part", "passthrough", slice(*edge))]), head()))
        for name, edge in zip(backbones, pairwise(edges), strict=True)
    ]
    stack = StackingClassifier(branches, LogisticRegression(max_iter=1000), cv=5)
    return cross_validate(stack, np.hstack(parts), target, cv=5)["test_score"].mean()


TASKS = {
    "search": (search_images, search_by_hand),
    "stack": (stack_images, stack_by_hand),
}


def count_images():
    """Count images that go through networks in this process. Return a function with the count."""
    seen, build, lock = [0], Network.runner, threading.Lock()

    def runner(self):
        run = build(self)

        def counted(pixels):
            with lock:
                seen[0] += int((pixels.amax(dim=(1, 2, 3)) > 0).sum())  # black rows are padding
            return run(pixels)

        return counted

    Network.runner = runner
    return lambda: seen[0]


def images(folder, number):
    train = load_image_folder(folder)
    chosen = np.random.default_rng(0).permutation(len(train.data))[:number]
    return train.data[chosen], train.target[chosen]


def child(way, task, folder, number, n_jobs, backbones):
    """Do one task in this process and print its time."""
    data, target = images(folder, number)
    seen = count_images()
    on_images, by_hand = TASKS[task]
    begun = time.perf_counter()
    if way == "by hand":
        score = by_hand(backbones, data, target)
    elif way == "memory=":
        with tempfile.TemporaryDirectory() as memory:
            score = on_images(backbones, data, target, cache=None, memory=memory)
    else:
        cache = None if way == "no cache" else True
        score = on_images(backbones, data, target, cache=cache, n_jobs=n_jobs)
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "seen": seen(), "score": score}))


def in_new_process(way, task, args, number, home, n_jobs=1):
    command = [sys.executable, __file__, str(args.folder), "--child", way, "--task", task]
    command += ["--number", str(number), "--n-jobs", str(n_jobs), "--backbones", args.backbones]
    # A logistic regression of this size is slower with four threads than with one.
    environment = os.environ | {
        "SKTRANSFER_HOME": str(home),
        "PYTHONWARNINGS": "ignore",
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(task, args):
    """Print one row for each way to do a task."""
    results = {}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            home, other = Path(folder, "one"), Path(folder, "two")
            rounds = {
                "by hand": in_new_process("by hand", task, args, args.number, home),
                "cold": in_new_process("sktransfer", task, args, args.number, home),
                "warm, new process": in_new_process("sktransfer", task, args, args.number, home),
                "cold, n_jobs=2": in_new_process(
                    "sktransfer", task, args, args.number, other, n_jobs=2
                ),
            }
        for name, result in rounds.items():
            if name not in results or result["seconds"] < results[name]["seconds"]:
                results[name] = result
    fewer = {"cold": "sktransfer", "memory=": "memory=", "no cache": "no cache"}
    if task == "stack":
        del fewer["memory="]
    with tempfile.TemporaryDirectory() as home:
        for name, way in fewer.items():
            results[f"{name}, {FEWER} images"] = in_new_process(way, task, args, FEWER, home)
    for name, result in results.items():
        ratio = result["seconds"] / results["by hand"]["seconds"]
        # Workers count in their own processes; tests/test_exactly_once.py adds these counts up.
        seen = "in workers" if "n_jobs" in name else f"{result['seen']:,}"
        print(
            f"| {task}: {name} | {result['seconds']:.1f} | {ratio:.2f} | {seen} "
            f"| {result['score']:.3f} |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int, default=900)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument(
        "--backbones", default=",".join(BUNDLED), help="the search uses the last one"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--n-jobs", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        backbones = args.backbones.split(",")
        return child(args.child, args.task, args.folder, args.number, args.n_jobs, backbones)
    print(machine("openvino"))
    print(f"{len(images(args.folder, args.number)[0])} images, {args.backbones}\n")
    print("| | seconds | × by hand | images through a network | score |\n|---|---|---|---|---|")
    for task in args.tasks.split(","):
        measure(task, args)


if __name__ == "__main__":
    main()
