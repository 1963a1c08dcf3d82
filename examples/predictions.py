"""
From a table of labels to a table of predictions
================================================

This is the task of many machine-learning competitions. ``labels.csv`` has an id and a class for
each training image. The result is a table with the probability of each class for each unlabeled
image. Run this example on generated shapes, or on your own data:

.. code-block:: shell

    python examples/predictions.py
    python examples/predictions.py FOLDER --backbone timm:inception_resnet_v2 --image-size 331

``FOLDER`` contains ``labels.csv`` with the columns ``id`` and ``breed``, the training images
``train/<id>.jpg``, and the images to predict, ``test/<id>.jpg``.
"""

import argparse
import csv
from pathlib import Path

import joblib
import numpy as np
from PIL import Image
from sklearn.metrics import classification_report
from sklearn.model_selection import train_test_split

from sktransfer import (
    HeadClassifier,
    PredictionGridDisplay,
    TrainingHistoryDisplay,
    make_transfer_pipeline,
)
from sktransfer.datasets import load_image_csv, make_shapes
from sktransfer.exceptions import MissingExtraError

parser = argparse.ArgumentParser(description="From a table of labels to a table of predictions.")
parser.add_argument("folder", nargs="?", type=Path, help="data set (default: shapes)")
parser.add_argument("--label-column", default="breed", help="class column of labels.csv")
parser.add_argument("--backbone", default="tiny_mobilenet", help="name, see list_backbones()")
parser.add_argument("--image-size", type=int, help="pixels (default: that of the backbone)")
parser.add_argument("--output", type=Path, default="predictions-output", help="output folder")
options = parser.parse_args()
options.output.mkdir(parents=True, exist_ok=True)


def write_shapes(folder):
    """Write labeled training images and a table of their ids, and unlabeled test images."""
    shapes = make_shapes(200, random_state=0)
    rows = []
    for number, (image, name) in enumerate(zip(shapes.data, shapes.target, strict=True)):
        part = "train" if number < 160 else "test"
        (folder / part).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / part / f"{number:05}.jpg")
        if part == "train":
            rows.append(f"{number:05},{name}\n")
    (folder / "labels.csv").write_text(f"id,{options.label_column}\n" + "".join(rows))
    return folder


# %%
# Read the table
# --------------
#
# The ids lack ".jpg"; ``suffix`` adds it. A missing image or a duplicate id is an error here, not
# an hour later.

folder = options.folder or write_shapes(options.output)
labeled = load_image_csv(
    folder / "labels.csv",
    folder / "train",
    image_column="id",
    label_column=options.label_column,
    suffix=".jpg",
)
images = sorted((folder / "test").glob("*.jpg"))
X_train, X_valid, y_train, y_valid = train_test_split(
    labeled.data, labeled.target, test_size=0.2, stratify=labeled.target, random_state=0
)
print(labeled.DESCR)
print(f"{len(images)} images to predict\n")

# %%
# Train
# -----
#
# The head has batch normalization, a dense layer and dropout. It learns from each image and its
# mirror image. A fifth of the training images, with all their views, decides when to stop.

head = HeadClassifier(
    hidden_units=128,
    batch_norm=True,
    dropout=0.5,
    early_stopping=True,
    validation_fraction=0.2,
    random_state=0,
)
model = make_transfer_pipeline(
    options.backbone, head, augmentation="flip", n_views=2, image_size=options.image_size
)
model.fit(X_train, y_train)

# %%
# Evaluate
# --------

print(classification_report(y_valid, model.predict(X_valid), zero_division=0))

# %%
# Learning curves and errors
# --------------------------
#
# The figures show the loss in each epoch, and the errors with the highest predicted probability.

trained = model["head"].estimator_
print(f"{trained.n_epochs_} epochs; the best was epoch {trained.best_epoch_}")
try:
    curves = TrainingHistoryDisplay.from_estimator(model)
except MissingExtraError as error:
    print(f"No figures: {error}")
else:
    curves.figure_.savefig(options.output / "curves.png", dpi=120)
    if model.score(X_valid, y_valid) < 1:
        errors = PredictionGridDisplay.from_estimator(model, X_valid, y_valid, errors_only=True)
        errors.figure_.savefig(options.output / "errors.png", dpi=120)
    print(f"Figures: {options.output}")

# %%
# Save the model, load it, and predict
# ------------------------------------

joblib.dump(model, options.output / "model.joblib")
model = joblib.load(options.output / "model.joblib")

probabilities = model.predict_proba(images)
table = options.output / "predictions.csv"
with open(table, "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["id", *model.classes_])
    for path, row in zip(images, np.round(probabilities, 6), strict=True):
        writer.writerow([path.stem, *row])
print(f"{len(images)} rows of probabilities: {table}")
