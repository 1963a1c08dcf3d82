"""Numbers, and several labels per image, on photographs.

    python benchmarks/targets.py DATA brightness
    python benchmarks/targets.py DATA size
    python benchmarks/targets.py DATA year
    python benchmarks/targets.py DATA labels

DATA contains ``scenes/train`` (class folders) and ``cars/images`` with ``cars/labels.csv``
(filename, model, split); a model is a make, a type, a body and a year. The targets are the mean
brightness of a scene, the side of a gray square that was drawn on it, the year of a car, and for
several labels the make, the body and the decade of a car. Five folds on the training part.
"""

import sys
from pathlib import Path

import numpy as np
from _machine import machine
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold, cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler

from sktransfer import HeadClassifier, HeadRegressor, make_transfer_pipeline, make_transfer_stack
from sktransfer.datasets import load_image_csv, load_image_folder
from sktransfer.images import decode_image

BACKBONES = ["tiny_resnet", "tiny_mobilenet"]
FOLDS = KFold(5, shuffle=True, random_state=0)
BODIES = ("Convertible", "Coupe", "Hatchback", "SUV", "Sedan", "Van")


def main(root, what):
    print(machine("skorch"))
    if what == "brightness":
        images = load_image_folder(root / "scenes" / "train").data
        y = np.array([decode_image(image).float().mean() for image in images])
    elif what == "size":
        rng, images, y = np.random.default_rng(0), [], []
        for path in load_image_folder(root / "scenes" / "train").data:
            pixels, side = decode_image(path).permute(1, 2, 0).numpy().copy(), rng.integers(5, 60)
            top, left = (rng.integers(length - side) for length in pixels.shape[:2])
            pixels[top : top + side, left : left + side] = 128
            images.append(pixels)
            y.append(side)
    else:
        cars = load_image_csv(
            root / "cars" / "labels.csv",
            root / "cars" / "images",
            image_column="filename",
            label_column="model",
            where={"split": "train"},
        )
        images, words = cars.data, [model.split() for model in cars.target]
        y = np.array([float(w[-1]) for w in words])
    if what == "labels":
        several = [{w[0], w[-1][:3] + "0s", *(body for body in BODIES if body in w)} for w in words]
        labels = MultiLabelBinarizer().fit_transform(several)
        print(f"{labels.shape[1]} labels, {labels.sum(axis=1).mean():.1f} per image")
        heads = {
            "`HeadClassifier()`": HeadClassifier(random_state=0),
            "logistic regressions": make_pipeline(
                StandardScaler(), OneVsRestClassifier(LogisticRegression(C=0.01, max_iter=1000))
            ),
        }

        def score(model):
            right = cross_val_predict(model, images, labels, cv=FOLDS) == labels
            return f"{right.mean():.1%}, all of an image {right.all(axis=1).mean():.1%}"
    else:
        heads = {
            "`HeadRegressor()`": HeadRegressor(random_state=0),
            '`HeadRegressor(loss="huber")`': HeadRegressor(loss="huber", random_state=0),
            "tuned ridge": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 5, 15))),
        }

        def score(model):
            return f"{cross_val_score(model, images, y, cv=FOLDS).mean():.3f}"

    print(f"\n| {what}, 5 folds | {' | '.join(BACKBONES)} | stack |\n|---|---|---|---|")
    for name, head in heads.items():
        models = [make_transfer_pipeline(b, head) for b in BACKBONES]
        models.append(make_transfer_stack(BACKBONES, head, cv=3))
        print(f"| {name} | {' | '.join(map(score, models))} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
