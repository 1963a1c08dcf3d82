"""Time and accuracy of heads next to their alternatives.

Prints four tables:

- one epoch on 10,000 embeddings of 2,048 values: a plain torch loop, ``HeadClassifier`` and
  ``skorch.NeuralNetClassifier`` with default settings;
- a whole fit of heads and of scikit-learn's ``LogisticRegression``;
- a whole fit alone, and with two other processes that keep the cores busy;
- with ``--data``: cross-validated accuracy of a default head and of a tuned logistic regression on
  the embeddings of the bundled backbones.

With ``--stopping``, it prints another table instead: heads with a hidden layer at several learning
rates, with and without early stopping.

    python benchmarks/heads.py [--data DATA]     # DATA as for benchmarks/accuracy.py
    python benchmarks/heads.py --data DATA --stopping

Rounds are interleaved and the least time of several counts, so other work on the machine affects
the ratios little. On a busy machine, set OMP_NUM_THREADS=1 and read the processor seconds.
"""

import argparse
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import accuracy
import numpy as np
import skorch
import torch
from _machine import machine
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import ImageEmbedder
from sktransfer._training._samples import EmbeddingDataset
from sktransfer.heads import HeadClassifier

N_ROWS, N_FEATURES, N_CLASSES, BATCH = 10_000, 2_048, 10, 128


def embeddings(n_rows=N_ROWS):
    """Return made-up embeddings as float32 and their classes."""
    X, y = make_classification(
        n_rows, N_FEATURES, n_informative=100, n_redundant=300, n_classes=N_CLASSES, random_state=0
    )
    return (X / X.std()).astype(np.float32), y


def plain_epoch(X, y):
    """Return a function that trains a linear layer for one epoch in a plain loop."""
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    layer = torch.nn.Linear(N_FEATURES, N_CLASSES)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3, weight_decay=1e-4)

    def epoch():
        for rows in torch.randperm(len(X)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(X[rows]), y[rows]).backward()
            optimizer.step()

    return epoch


def head_epoch(X, y):
    """Return a function that trains a default head for one more epoch."""
    net = HeadClassifier(max_epochs=1, batch_size=BATCH, random_state=0).fit(X, y).net_
    rows = EmbeddingDataset(torch.from_numpy(X), torch.from_numpy(y), is_scaled=True)
    return lambda: net.partial_fit((rows, None), epochs=1)


def skorch_epoch(X, y):
    """Return a function that trains skorch's classifier on the same rows for one epoch.

    Its validation split is switched off, because it would leave a fifth fewer training rows.
    """
    net = skorch.NeuralNetClassifier(
        torch.nn.Linear,
        module__in_features=N_FEATURES,
        module__out_features=N_CLASSES,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        optimizer__weight_decay=1e-4,
        lr=1e-3,
        batch_size=BATCH,
        train_split=None,
        verbose=0,
    ).initialize()
    return lambda: net.partial_fit(X, y, epochs=1)


def least_seconds(functions, rounds):
    """Return the least (wall, processor) time of each function over interleaved rounds."""
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            wall, processor = time.perf_counter(), time.process_time()
            function()
            times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {name: np.min(seconds, axis=0) for name, seconds in times.items()}


def epoch_table(rounds):
    """Print the time of one epoch, and ratios."""
    X, y = embeddings()
    epochs = {
        "plain torch loop": plain_epoch(X, y),
        "HeadClassifier": head_epoch(X, y),
        "skorch.NeuralNetClassifier": skorch_epoch(X, y),
    }
    least = least_seconds(epochs, rounds)
    plain = least["plain torch loop"]
    print(f"\n| one epoch, {N_ROWS} × {N_FEATURES}, batch {BATCH} ", end="")
    print("| seconds | times plain torch ", end="")
    print("| processor seconds | times plain torch |\n|---|---|---|---|---|")
    for name, (wall, processor) in least.items():
        print(f"| {name} | {wall:.3f} | {wall / plain[0]:.2f} ", end="")
        print(f"| {processor:.3f} | {processor / plain[1]:.2f} |")


def fit_table():
    """Print time and held-out accuracy of whole fits."""
    X, y = embeddings(N_ROWS + 2_000)
    models = {
        "HeadClassifier()": HeadClassifier(random_state=0),
        "HeadClassifier(hidden_units=256)": HeadClassifier(256, random_state=0),
        "LogisticRegression(C=1)": LogisticRegression(max_iter=1000),
        "LogisticRegression(C=0.001)": LogisticRegression(C=0.001, max_iter=1000),
    }
    print(f"\n| whole fit, {N_ROWS} × {N_FEATURES} | seconds | accuracy on 2000 other rows |")
    print("|---|---|---|")
    for name, model in models.items():
        start = time.perf_counter()
        model.fit(X[:N_ROWS], y[:N_ROWS])
        seconds = time.perf_counter() - start
        accuracy = model.score(X[N_ROWS:], y[N_ROWS:])
        print(f"| {name} | {seconds:.1f} | {accuracy:.3f} |", flush=True)


def busy_table(rounds=3):
    """Print the time of a whole fit on an idle and on a busy machine."""
    print("\n| whole fit, median | alone, seconds | with two busy processes | ratio |")
    print("|---|---|---|---|")
    for n_rows, n_features, n_classes in ((4_072, 1_280, 196), (360, 768, 6)):
        X = np.random.default_rng(0).normal(size=(n_rows, n_features)).astype(np.float32)
        y = np.arange(n_rows) % n_classes
        X[np.arange(n_rows), y] += 6
        medians = []
        for n_others in (0, 2):
            busy = [sys.executable, "-c", "while True: pass"]
            others = [subprocess.Popen(busy) for _ in range(n_others)]
            seconds = []
            for _ in range(rounds):
                start = time.perf_counter()
                HeadClassifier(random_state=0).fit(X, y)
                seconds.append(time.perf_counter() - start)
            for process in others:
                process.kill()
            medians.append(np.median(seconds))
        alone, beside = medians
        print(f"| {n_rows} × {n_features}, {n_classes} classes ", end="")
        print(f"| {alone:.2f} | {beside:.2f} | {beside / alone:.2f} |", flush=True)


def tuned_logistic_regression(X, y, cv):
    """Return the best cross-validated accuracy over C, on raw and standardized features."""
    raw = LogisticRegression(max_iter=1000)
    standardized = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    searches = [
        GridSearchCV(raw, {"C": np.logspace(-2, 1, 4)}, cv=cv),
        GridSearchCV(standardized, {"logisticregression__C": np.logspace(-4, -1, 4)}, cv=cv),
    ]
    return max(search.fit(X, y).best_score_ for search in searches)


def accuracy_table(root):
    """Print the cross-validated accuracy of heads on embeddings of images."""
    print("\n| 5-fold accuracy, training part | HeadClassifier() | tuned LogisticRegression |")
    print("|---|---|---|")
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    for name in ("scenes", "cars", "dogs"):
        images, y, _, _ = accuracy.SETS[name](root)
        for backbone in accuracy.BACKBONES:
            X = ImageEmbedder(backbone).fit_transform(images)
            ours = cross_val_score(HeadClassifier(random_state=0), X, y, cv=cv).mean()
            theirs = tuned_logistic_regression(X, y, cv)
            print(f"| {name}, {backbone} | {ours:.1%} | {theirs:.1%} |", flush=True)


def stopping_table(root):
    """Print the accuracy of heads with a hidden layer by learning rate and stopping rule."""
    heads = {"256": {}, "256, dropout, batch norm": {"dropout": 0.3, "batch_norm": True}}
    stops = [{}, *({"early_stopping": True, "scoring": s} for s in ("loss", "accuracy"))]
    print("\n| 5-fold accuracy, training part | hidden units | lr | all epochs ", end="")
    print("| early stopping, loss | early stopping, accuracy |\n|---|---|---|---|---|---|")
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    for name, backbone in product(("scenes", "cars", "dogs"), accuracy.BACKBONES):
        images, y, _, _ = accuracy.SETS[name](root)
        X = ImageEmbedder(backbone).fit_transform(images)
        for (label, params), lr in product(heads.items(), (0.0005, 0.001, 0.002, 0.004)):
            models = [HeadClassifier(256, lr=lr, random_state=0, **params, **s) for s in stops]
            scores = [cross_val_score(model, X, y, cv=cv, n_jobs=-1).mean() for model in models]
            cells = " | ".join(f"{score:.1%}" for score in scores)
            print(f"| {name}, {backbone} | {label} | {lr} | {cells} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="images to cross-validate on")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of the epoch table")
    parser.add_argument("--skip-fits", action="store_true", help="skip the table of fits")
    parser.add_argument("--stopping", action="store_true", help="print the stopping table only")
    args = parser.parse_args()
    print(machine("skorch"))
    if args.stopping:
        return stopping_table(args.data)
    epoch_table(args.rounds)
    if not args.skip_fits:
        fit_table()
        busy_table()
    if args.data:
        accuracy_table(args.data)


if __name__ == "__main__":
    main()
