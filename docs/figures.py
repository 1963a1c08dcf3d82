"""The figures of the documentation, except those that the examples save.

python docs/figures.py                            # of drawn shapes, into docs/images
python docs/figures.py --cars DATA --to FOLDER    # of photographs, see benchmarks/accuracy.py
python docs/figures.py --results                  # of the accuracies in benchmarks/RESULTS.md
"""

import argparse
import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import PredictionGridDisplay, make_transfer_pipeline
from sktransfer.datasets import make_shapes
from sktransfer.inspection import (
    EmbeddingMapDisplay,
    ImageGridDisplay,
    NeighborsDisplay,
    OcclusionDisplay,
    confused_pairs,
    find_label_issues,
)

HERE = Path(__file__).parent


def draw(X, y, X_test, y_test):
    """Yield the name and the display of each figure."""
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    model = make_transfer_pipeline("tiny_mobilenet", head).fit(X, y)
    yield "sample", ImageGridDisplay.from_data(X, y, max_images=10)
    yield "views", ImageGridDisplay.from_augmentation(X[0], "color", n_views=5)
    yield "map", EmbeddingMapDisplay.from_estimator(model[:-1], X, y)
    yield "neighbors", NeighborsDisplay.from_estimator(model[:-1], X, y, queries=X_test[:2])
    options = {"errors_only": True, "max_images": 8}
    yield "errors", PredictionGridDisplay.from_estimator(model, X_test, y_test, **options)
    yield "occlusion", OcclusionDisplay.from_estimator(model, X_test[:4])
    rng = np.random.default_rng(0)
    given, wrong = y.copy(), rng.permutation(len(y))[: len(y) // 20]
    given[wrong] = rng.permutation(given[wrong])
    issues = find_label_issues(model, X, given).head(8)
    shown, given, suggested = X[issues.index], issues["label"], issues["suggested"]
    yield "labels", PredictionGridDisplay.from_predictions(shown, given, suggested)
    y_pred = model.predict(X_test)
    pairs = confused_pairs(y_test, y_pred).head(10)
    matrix = ConfusionMatrixDisplay.from_predictions(
        y_test,
        y_pred,
        labels=np.unique(pairs[["true", "predicted"]]),
        xticks_rotation="vertical",
        colorbar=False,
        cmap="Blues",
    )
    for text in matrix.text_.flat:
        text.set_visible(text.get_text() != "0")
    yield "confusion", matrix


def draw_accuracies(results):
    """Draw the test accuracies of two networks, of their stack, and of the stack with views.

    Gray text on no background is readable on light and dark pages.
    """
    colors = {"efficientnet_lite0": "#3f78b0", "efficientnet_lite2": "#3f78b0"}
    colors |= {"stack of both": "#b85c14", "stack of both, 4 views": "#b85c14"}
    gray = {f"{part}.color": "#808080" for part in ("text", "ytick")}
    with plt.rc_context({**gray, "font.size": 11}):
        figure, axes = plt.subplots(3, figsize=(6, 4.2), sharex=True, layout="constrained")
        for ax, name in zip(axes, ("scenes", "dogs", "cars"), strict=True):
            values = [
                float(re.search(rf"\| {name} .* {row}[^|]*\|.*\| ([\d.]+)% \|\n", results)[1])
                for row in colors
            ]
            bars = ax.barh(list(colors), values, color=colors.values())
            ax.bar_label(bars, list(colors), label_type="center", color="white", size=10)
            ax.bar_label(bars, fmt=" %.1f %%")
            ax.set_ylabel(name, color="#808080", size=13)
            ax.set(xlim=(0, 105), xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            ax.invert_yaxis()
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cars", type=Path, help="folder of the data sets")
    parser.add_argument("--results", action="store_true", help="draw accuracies only")
    parser.add_argument("--to", type=Path, default=HERE / "images", help="folder of the figures")
    options = parser.parse_args()
    if options.results:
        results = (HERE.parent / "benchmarks" / "RESULTS.md").read_text("utf-8")
        draw_accuracies(results).savefig(options.to / "accuracy.png", dpi=150, transparent=True)
        sys.exit()
    if options.cars:
        sys.path.append(str(HERE.parent / "benchmarks"))
        from accuracy import cars

        data = cars(options.cars)
    else:
        train, test = make_shapes(120, random_state=0), make_shapes(300, random_state=1)
        data = train.data, train.target, test.data, test.target
    options.to.mkdir(exist_ok=True)
    for name, display in draw(*data):
        file = options.to / f"{name}.jpg"
        display.figure_.savefig(file, dpi=80, bbox_inches="tight", pil_kwargs={"quality": 70})
