"""
A contest: from labels.csv to submission.csv
============================================

Many contests have this form. ``labels.csv`` has an id and a class for each training image. The
answer is a table with the probability of each class for each test image. Run this example on
generated shapes, or on your own data:

.. code-block:: shell

    python examples/dog_breeds_csv.py
    python examples/dog_breeds_csv.py FOLDER --backbone efficientnet_lite0
    python examples/dog_breeds_csv.py FOLDER --backbone timm:inception_resnet_v2 --image-size 331

``FOLDER`` contains ``labels.csv`` with the columns ``id`` and ``breed``, the training images
``train/<id>.jpg``, and the images to predict, ``test/<id>.jpg``. The last line is the network of
many winners (extra ``timm``; its weights are downloaded).
"""

# sphinx_gallery_thumbnail_path = "images/dogs-loss.png"

import argparse
from pathlib import Path

import joblib
import numpy as np
from PIL import Image
from sklearn.metrics import accuracy_score, log_loss

from sktransfer import (
    HeadClassifier,
    PredictionGridDisplay,
    TrainingHistoryDisplay,
    make_transfer_pipeline,
    summary,
)
from sktransfer.datasets import load_image_csv, make_shapes
from sktransfer.inspection import submission_table

parser = argparse.ArgumentParser(description="A contest: from labels.csv to submission.csv.")
parser.add_argument("folder", nargs="?", type=Path, help="data set (default: shapes)")
parser.add_argument("--label-column", default="breed", help="class column of labels.csv")
parser.add_argument("--backbone", default="tiny_mobilenet", help="name, see list_backbones()")
parser.add_argument("--image-size", type=int, help="pixels (default: that of the backbone)")
parser.add_argument("--output", type=Path, default="dogs-output", help="output folder")
options = parser.parse_args()
options.output.mkdir(parents=True, exist_ok=True)

# %%
# Read the table
# --------------
#
# The ids lack ".jpg"; ``suffix`` adds it. A missing image or a duplicate id is an error here, not
# an hour later.


def write_shapes(folder):
    """Write labeled training images and a table of their ids, and unlabeled test images."""
    shapes = make_shapes(200, random_state=0)
    rows = [f"id,{options.label_column}\n"]
    for number, (image, name) in enumerate(zip(shapes.data, shapes.target, strict=True)):
        part = "train" if number < 160 else "test"
        (folder / part).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / part / f"{number:05}.jpg")
        if part == "train":
            rows.append(f"{number:05},{name}\n")
    (folder / "labels.csv").write_text("".join(rows))
    return folder


folder = options.folder or write_shapes(options.output)
train = load_image_csv(
    folder / "labels.csv",
    folder / "train",
    image_column="id",
    label_column=options.label_column,
    suffix=".jpg",
)
images = sorted((folder / "test").glob("*.jpg"))
print(train.DESCR)
print(f"{len(images)} images to predict\n")

# %%
# Train
# -----
#
# The head has batch normalization, a dense layer and dropout. It learns from each image and its
# mirror image. A fifth of the training images, with their mirror images, judges every epoch.
# Training stops when the loss on them has not improved for ten epochs, and the head gets the
# weights of the best epoch back.

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
model.fit(train.data, train.target)

trained = model["head"].estimator_
best = trained.history_[trained.best_epoch_ - 1]
print(f"{trained.n_epochs_} epochs; the best was epoch {trained.best_epoch_}:")
print(f"  training    loss {best['train_loss']:.3f}, accuracy {best['train_accuracy']:.3f}")
print(f"  validation  loss {best['valid_loss']:.3f}, accuracy {best['valid_accuracy']:.3f}\n")

# %%
# The layers of the model
# -----------------------
#
# The backbone is frozen, the head is trainable.

print(summary(model, depth=1), "\n")

# %%
# Learning curves
# ---------------
#
# Where the validation loss rises while the training loss still falls, the head overfits. The dotted
# line marks the epoch whose weights were kept.

for metric in ("loss", "accuracy"):
    curves = TrainingHistoryDisplay.from_estimator(model, metric=metric)
    curves.figure_.savefig(options.output / f"{metric}.png", dpi=120)

# %%
# Save the model, load it, and predict
# ------------------------------------
#
# The first column has the names of the files without ".jpg". The others have the probabilities of
# the classes in sorted order.

joblib.dump(model, options.output / "model.joblib")
model = joblib.load(options.output / "model.joblib")

submission = submission_table(model, images)
submission.to_csv(options.output / "submission.csv", index=False, float_format="%.6f")
print(f"{options.output / 'submission.csv'}: {len(submission)} rows")
print(submission.head(3).round(3).to_string(index=False))

# %%
# Some images with their predictions
# ----------------------------------

grid = PredictionGridDisplay.from_estimator(model, images[:4])
grid.figure_.savefig(options.output / "predictions.png", dpi=120)

# %%
# The score of the contest
# ------------------------
#
# The organizers have the classes of the test images and compute the log loss. If ``FOLDER``
# contains them too, as ``test_labels.csv``, so can you.

if (folder / "test_labels.csv").exists():
    truth = load_image_csv(
        folder / "test_labels.csv",
        folder / "test",
        image_column="id",
        label_column=options.label_column,
        suffix=".jpg",
    )
    probabilities = submission.set_index("id").loc[truth.ids].to_numpy()
    predicted = model.classes_[np.argmax(probabilities, axis=1)]
    loss = log_loss(truth.target, probabilities, labels=model.classes_)
    accuracy = accuracy_score(truth.target, predicted)
    print(f"\nOn the test images: log loss {loss:.3f}, accuracy {accuracy:.3f}")
