"""Which classifier suits 5, 10 or 20 images per class.

    python benchmarks/few_images.py DATA scenes,dogs,cars

DATA is as for ``benchmarks/accuracy.py``. Each draw takes 5, 10 or 20 training images of each
class and evaluates on the other training images. The test part is not read.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
from _machine import machine
from accuracy import SETS
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from sktransfer import HeadClassifier, ImageEmbedder, MultiViewClassifier

BACKBONE, N_DRAWS, N_VIEWS = "efficientnet_lite0", 10, 4
CENTROID = make_pipeline(Normalizer(), NearestCentroid())
RIDGE = make_pipeline(Normalizer(), RidgeClassifierCV(np.logspace(-3, 2, 11)))
LOGISTIC = make_pipeline(Normalizer(), LogisticRegression(C=100, max_iter=1000))
HEAD = HeadClassifier(random_state=0)
CLASSIFIERS = {
    "nearest class mean": CENTROID,
    "ridge": RIDGE,
    "logistic regression": LOGISTIC,
    "`HeadClassifier()`": HEAD,
    "nearest class mean, 4 views": MultiViewClassifier(CENTROID),
    "logistic regression, 4 views": MultiViewClassifier(LOGISTIC),
    "`HeadClassifier()`, 4 views": MultiViewClassifier(HEAD),
}


def draw(y, n_per_class, seed):
    """Return the indices of `n_per_class` images of each class, and those of all others."""
    rng = np.random.default_rng(seed)
    chosen = [
        rng.choice(np.flatnonzero(y == label), n_per_class, replace=False) for label in np.unique(y)
    ]
    chosen = np.concatenate(chosen)
    return chosen, np.setdiff1d(np.arange(len(y)), chosen)


def main(root, names):
    # Sparse features that are zero in all images of a class.
    warnings.filterwarnings("ignore", "self.within_class_std_dev_ has at least 1 zero")
    print(machine("timm"), "\n")
    print("| set | images per class | " + " | ".join(CLASSIFIERS) + " |")
    print("|---" * (2 + len(CLASSIFIERS)) + "|")
    for name in names:
        X, y, _, _ = SETS[name](root)
        embedder = ImageEmbedder(
            BACKBONE, augmentation="crop", n_views=N_VIEWS, random_state=0
        ).fit(X)
        views = embedder.transform(X)
        for n_per_class in (5, 10, 20):
            cells = []
            for label, classifier in CLASSIFIERS.items():
                features = views if "views" in label else views[:, 0]
                scores = []
                for seed in range(N_DRAWS):
                    train, rest = draw(y, n_per_class, seed)
                    classifier.fit(features[train], y[train])
                    scores.append(100 * classifier.score(features[rest], y[rest]))
                cells.append(f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f}")
            print(f"| {name} | {n_per_class} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","))
