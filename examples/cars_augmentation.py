"""
Fine details: larger images, views and fine-tuning
==================================================

Models of cars differ in details. Three things help a network to see them: larger images, several
views of each image, and training the upper part of the network. This example compares them, and
looks at the mistakes that remain. Run it on generated shapes, or on your own images:

.. code-block:: shell

    python examples/cars_augmentation.py
    python examples/cars_augmentation.py FOLDER --backbone efficientnet_lite0 --image-size 400

``FOLDER`` contains ``images/`` and ``labels.csv`` with the columns ``filename``, ``model`` and
``split``, which is "train" or "test". With several hundred images, add ``--validation 0.1``.
"""

# sphinx_gallery_thumbnail_path = "images/cars-confusion.png"

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import ConfusionMatrixDisplay, classification_report

from sktransfer import (
    FineTuneClassifier,
    HeadClassifier,
    PredictionGridDisplay,
    TrainingHistoryDisplay,
    make_transfer_pipeline,
)
from sktransfer.datasets import load_image_csv, make_shapes
from sktransfer.inspection import confused_pairs, error_table

parser = argparse.ArgumentParser(description="Larger images, views and fine-tuning.")
parser.add_argument("folder", nargs="?", type=Path, help="data set (default: shapes)")
parser.add_argument("--backbone", default="tiny_mobilenet", help="name, see list_backbones()")
parser.add_argument("--image-size", type=int, default=96, help="pixels")
parser.add_argument("--stages", type=int, default=3, help="stages to fine-tune")
parser.add_argument("--epochs", type=int, default=10, help="epochs of fine-tuning, at most")
parser.add_argument("--validation", type=float, default=0.2, help="fraction for early stopping")
parser.add_argument("--output", type=Path, default="cars-output", help="output folder")
options = parser.parse_args()
options.output.mkdir(parents=True, exist_ok=True)

# %%
# Images and labels
# -----------------


def load(folder, part):
    """Return the images and labels of one part, "train" or "test"."""
    if folder is None:
        shapes = make_shapes(250, n_classes=6, noise=0.4, random_state=int(part == "test"))
        return shapes.data, shapes.target
    cars = load_image_csv(
        folder / "labels.csv",
        folder / "images",
        image_column="filename",
        label_column="model",
        where={"split": part},
    )
    return cars.data, cars.target


X_train, y_train = load(options.folder, "train")
X_test, y_test = load(options.folder, "test")
print(f"{len(X_train)} training images, {len(X_test)} test images, {len(set(y_train))} classes\n")

# %%
# Four classifiers
# ----------------
#
# ``"crop"`` makes views: random regions of the image, every second one mirrored. The third
# classifier trains on four views of each image and averages its predictions over four views of a
# new image (test-time augmentation). The last one does the same, but also trains the upper stages
# of the network, and stops when its loss on validation images, a part of the training images, no
# longer falls. Cars differ in details, so it keeps the trained weights as they are.

size = options.image_size
head = HeadClassifier(random_state=0)
models = {
    "frozen": make_transfer_pipeline(options.backbone, head),
    "larger": make_transfer_pipeline(options.backbone, head, image_size=size),
    "larger, views": make_transfer_pipeline(
        options.backbone, head, image_size=size, augmentation="crop", n_views=4
    ),
    "fine-tuned": FineTuneClassifier(
        options.backbone,
        head=head,
        image_size=size,
        trainable_stages=options.stages,
        n_test_views=4,
        tuned_fraction=1,
        max_epochs=options.epochs,
        early_stopping=True,
        validation_fraction=options.validation,
        random_state=0,
    ),
}
predicted, seconds = {}, {}
for name, model in models.items():
    start = time.perf_counter()
    predicted[name] = model.fit(X_train, y_train).predict(X_test)
    seconds[name] = time.perf_counter() - start

# %%
# Precision, recall and F1
# ------------------------
#
# scikit-learn's report is a dictionary, which becomes a data frame: first the averages of each
# classifier, then the classes that the classifier with views finds hardest. To choose among
# classifiers, cross-validate them on the training images; test images are for this final table.

reports = {
    name: pd.DataFrame(classification_report(y_test, y, output_dict=True, zero_division=0)).T
    for name, y in predicted.items()
}
averages = pd.DataFrame({name: frame.loc["macro avg"] for name, frame in reports.items()}).T
averages.insert(0, "accuracy", [(y == y_test).mean() for y in predicted.values()])
averages["seconds"] = seconds
print(averages.drop(columns="support").round(3).to_string(), "\n")

shown = "larger, views"
classes = reports[shown].drop(["accuracy", "macro avg", "weighted avg"], errors="ignore")
print(f"The hardest classes of the classifier {shown!r}:")
print(classes.sort_values("f1-score").head(5).round(2).to_string(), "\n")

# %%
# The course of fine-tuning
# -------------------------
#
# Epoch 0 is the head on the frozen network. The weights of the best epoch are kept.

curves = TrainingHistoryDisplay.from_estimator(models["fine-tuned"])
curves.figure_.savefig(options.output / "curves.png", dpi=120)

# %%
# Which classes are confused
# --------------------------
#
# A matrix of 20 classes is readable without its zeros. A matrix of 196 classes is not, so it shows
# the classes of the most frequent confusions only. The table lists them.

pairs = confused_pairs(y_test, predicted[shown])
print(pairs.head(5).round(2).to_string(), "\n")

names = np.unique(y_test)
if len(names) > 30:
    names = np.unique(pairs.head(15)[["true", "predicted"]])
matrix = ConfusionMatrixDisplay.from_predictions(
    y_test,
    predicted[shown],
    labels=names,
    xticks_rotation="vertical",
    colorbar=False,
    cmap="Blues",
)
for text in matrix.text_.flat:
    text.set_visible(text.get_text() != "0")
matrix.figure_.set_size_inches(*2 * [3 + 0.3 * len(names)])
matrix.figure_.tight_layout()
matrix.figure_.savefig(options.output / "confusion.png", dpi=100)

# %%
# The worst mistakes
# ------------------
#
# The table has the images to whose class the classifier gives the lowest probability. The figure
# shows the mistakes of which the classifier is most certain.

mistakes = error_table(models[shown], X_test, y_test)
mistakes["path"] = [Path(path).name if path else "" for path in mistakes["path"]]
print(mistakes.head(5).round(2).to_string())
if len(mistakes):
    grid = PredictionGridDisplay.from_estimator(
        models[shown], X_test, y_test, errors_only=True, max_images=8
    )
    grid.figure_.savefig(options.output / "mistakes.png", dpi=120)
