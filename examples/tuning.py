"""
Views, fine-tuning and a stack of both
======================================

This example compares four ways to train a classifier on the same images, from the cheapest to the
most expensive. Run it on generated shapes, or on your own images:

.. code-block:: shell

    python examples/tuning.py
    python examples/tuning.py FOLDER

``FOLDER`` contains one folder of images per class. Which way is best depends on the images, so the
example cross-validates all of them and prints the time that each takes. The few generated shapes
show how to compare, not which way is best in general.
"""

import argparse
import time
from pathlib import Path

from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from sktransfer import FineTuneClassifier, make_transfer_pipeline
from sktransfer.datasets import load_image_folder, make_shapes

parser = argparse.ArgumentParser(description="Compare ways to use a pretrained backbone.")
parser.add_argument("folder", nargs="?", type=Path, help="class folders (default: shapes)")
options = parser.parse_args()
data = load_image_folder(options.folder) if options.folder else make_shapes(48, random_state=0)

# %%
# Four classifiers
# ----------------
#
# ``n_views=4`` trains on four views of each image and averages the predictions over as many
# (test-time augmentation). ``FineTuneClassifier`` trains the last stage of the backbone
# together with its head. Both are classifiers like any other, and so they stack.

frozen = make_transfer_pipeline("tiny_mobilenet")
views = make_transfer_pipeline("tiny_mobilenet", augmentation="crop", n_views=4)
tuned = FineTuneClassifier(
    "tiny_mobilenet", trainable_stages=1, augmentation="crop", max_epochs=10, random_state=0
)
ways = {
    "frozen": frozen,
    "frozen, with views": views,
    "fine-tuned": tuned,
    "stack of all": StackingClassifier(
        [("frozen", frozen), ("views", views), ("tuned", tuned)],
        LogisticRegression(max_iter=1000),
        cv=2,
    ),
}

# %%
# Cross-validate them
# -------------------
#
# scikit-learn splits images, so no fold is tested on a view of a training image. The embeddings of
# images and views are cached: the second fold already finds most of them.

print(f"{'':24}{'accuracy':>16}{'seconds':>10}")
for name, classifier in ways.items():
    begun = time.perf_counter()
    scores = cross_val_score(classifier, data.data, data.target, cv=3)
    seconds = time.perf_counter() - begun
    print(f"{name:24}{scores.mean():>9.3f} ± {scores.std():.3f}{seconds:>11.1f}", flush=True)
