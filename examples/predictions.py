"""
From a table of labels to a table of predictions
================================================

As in a contest: ``labels.csv`` has an id and a class for each training image, and what is wanted
is a table with the probabilities of every class for images without a label. Run it on drawn
shapes, or on a contest of yours:

.. code-block:: shell

    python examples/predictions.py
    python examples/predictions.py FOLDER --backbone timm:inception_resnet_v2 --image-size 331

``FOLDER`` holds ``labels.csv`` with the columns ``id,breed``, the training images
``train/<id>.jpg``, and images to predict, ``test/<id>.jpg``.
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
    AugmentedClassifier,
    HeadClassifier,
    PredictionGridDisplay,
    TrainingHistoryDisplay,
    make_transfer_pipeline,
)
from sktransfer.datasets import load_image_csv, make_shapes
from sktransfer.exceptions import MissingExtraError

parser = argparse.ArgumentParser(description="From a table of labels to a table of predictions.")
parser.add_argument("folder", nargs="?", type=Path, help="labels.csv, train/ and test/; or shapes")
parser.add_argument("--label-column", default="breed", help="column of the classes in labels.csv")
parser.add_argument("--backbone", default="tiny_mobilenet", help="sktransfer.list_backbones()")
parser.add_argument("--image-size", type=int, help="pixels; by default what suits the backbone")
parser.add_argument("--output", type=Path, default="predictions-output", help="where results go")
options = parser.parse_args()
options.output.mkdir(parents=True, exist_ok=True)


def draw_contest(folder):
    """Write shapes as a contest would give them: ids in a table, and images without a label."""
    shapes = make_shapes(160, random_state=0)
    rows = []
    for number, (image, name) in enumerate(zip(shapes.data, shapes.target, strict=True)):
        part = "train" if number < 120 else "test"
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
# The ids lack ".jpg"; `suffix` adds it. An image that is missing, or an id that appears twice, is
# an error here and not an hour later.

folder = options.folder or draw_contest(options.output)
labelled = load_image_csv(
    folder / "labels.csv",
    folder / "train",
    image_column="id",
    label_column=options.label_column,
    suffix=".jpg",
)
images = sorted((folder / "test").glob("*.jpg"))
X_train, X_valid, y_train, y_valid = train_test_split(
    labelled.data, labelled.target, test_size=0.2, stratify=labelled.target, random_state=0
)
print(labelled.DESCR)
print(f"{len(images)} images to predict\n")

# %%
# Train
# -----
#
# Batch normalisation, a dense layer and dropout, on each image and its mirror image. A fifth of
# the training images, with all their views, says when to stop. The best epoch so far is in
# ``checkpoints/``: a run that was killed goes on from there.

head = HeadClassifier(
    hidden_units=128,
    batch_norm=True,
    dropout=0.5,
    early_stopping=True,
    validation_fraction=0.2,
    checkpoint_dir=options.output / "checkpoints",
    random_state=0,
)
model = AugmentedClassifier(
    make_transfer_pipeline(options.backbone, head, image_size=options.image_size),
    augmentation="flip",
    n_views=2,
    n_test_views=2,
    random_state=0,
)
model.fit(X_train, y_train)

# %%
# Judge
# -----

print(classification_report(y_valid, model.predict(X_valid), zero_division=0))

# %%
# Curves and mistakes
# -------------------
#
# Losses after each epoch, and the mistakes of which the model is most certain.

trained = model.estimator_.named_steps["head"]
print(f"{trained.n_epochs_} epochs, of which number {trained.best_epoch_} was the best")
try:
    curves = TrainingHistoryDisplay.from_estimator(model)
except MissingExtraError as error:
    print(f"No figures: {error}")
else:
    curves.figure_.savefig(options.output / "curves.png", dpi=120)
    if model.score(X_valid, y_valid) < 1:
        wrong = PredictionGridDisplay.from_estimator(model, X_valid, y_valid, errors_only=True)
        wrong.figure_.savefig(options.output / "mistakes.png", dpi=120)
    print(f"Figures: {options.output}")

# %%
# Save the model, and predict with what was saved
# -----------------------------------------------

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
