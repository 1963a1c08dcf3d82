"""The tutorial of the cars: 196 models, half of 8,144 images to learn from, half to test.

    python benchmarks/cars196.py DATA frozen --size 224
    python benchmarks/cars196.py DATA views --size 224
    python benchmarks/cars196.py DATA fine-tuned --size 224 --save lite0.joblib
    python benchmarks/cars196.py DATA saved --models lite0.joblib lite2.joblib --confusion cars.png

DATA contains ``cars_train`` (00001.jpg and so on) and ``train_perfect_preds.txt``, whose lines are
the classes of the images, 1 to 196. Nothing is chosen on the test half.
"""

import argparse
import time
from pathlib import Path

import joblib
import numpy as np
from _machine import machine
from sklearn.metrics import ConfusionMatrixDisplay, precision_recall_fscore_support
from sklearn.model_selection import train_test_split

from sktransfer import FineTuneClassifier, make_transfer_pipeline


def model(args):
    """Return an estimator of images."""
    if args.way == "fine-tuned":
        return FineTuneClassifier(
            args.backbone,
            image_size=args.size,
            trainable_stages=args.stages,
            tuned_fraction=args.tuned_fraction or "auto",
            n_views=args.views,
            n_test_views=args.test_views,
            max_epochs=args.epochs,
            memory_limit=args.memory,
            random_state=0,
            verbose=2,
        )
    views = {"augmentation": "crop", "n_views": args.views} if args.way == "views" else {}
    return make_transfer_pipeline(args.backbone, image_size=args.size, random_state=0, **views)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("way", choices=["frozen", "views", "fine-tuned", "saved"])
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--views", type=int, default=4, help="of each image in training")
    parser.add_argument("--stages", type=int, default=3, help="that fine-tuning trains")
    parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning")
    parser.add_argument("--memory", default="2GB", help="limit of the outputs that are kept")
    parser.add_argument("--tuned-fraction", type=float, help="chosen by a trial by default")
    parser.add_argument("--save", type=Path, help="keep the fitted model in this file")
    parser.add_argument("--models", type=Path, nargs="+", help="whose probabilities are averaged")
    parser.add_argument("--test-views", type=int, default=1, help="of each image, if fine-tuned")
    parser.add_argument("--confusion", type=Path, help="draw the confusion matrix into this file")
    args = parser.parse_args()
    y = np.loadtxt(args.data / "train_perfect_preds.txt", dtype=int)
    X = [str(args.data / "cars_train" / f"{number:05d}.jpg") for number in range(1, len(y) + 1)]
    train, test = train_test_split(np.arange(len(y)), test_size=0.5, stratify=y, random_state=0)
    print(machine("openvino", "timm"))
    if args.way == "saved":
        models = [joblib.load(file) for file in args.models]
        for classifier in models:
            classifier.set_params(n_test_views=args.test_views)
        print(*args.models, f"with {args.test_views} test views")
    else:
        models = [model(args)]
        begun, cpu = time.perf_counter(), time.process_time()
        models[0].fit([X[i] for i in train], y[train])
        print(f"{args.backbone}, {args.size} px, {args.way}: {len(train)} + {len(test)} images")
        print(f"fit {time.perf_counter() - begun:.0f} s, {time.process_time() - cpu:.0f} CPU s")
        if args.save:
            joblib.dump(models[0], args.save)
    begun, cpu = time.perf_counter(), time.process_time()
    images = [X[i] for i in test]
    probabilities = np.mean([classifier.predict_proba(images) for classifier in models], axis=0)
    predicted = models[0].classes_[probabilities.argmax(axis=1)]
    print(f"predict {time.perf_counter() - begun:.0f} s, {time.process_time() - cpu:.0f} CPU s")
    scores = precision_recall_fscore_support(y[test], predicted, average="macro", zero_division=0)
    print(
        f"accuracy {np.mean(predicted == y[test]):.1%}, macro averages: precision "
        f"{scores[0]:.1%}, recall {scores[1]:.1%}, F1 {scores[2]:.1%}"
    )
    pairs, counts = np.unique(
        np.stack([y[test], predicted])[:, predicted != y[test]], axis=1, return_counts=True
    )
    most = ", ".join(
        f"{counts[i]} x {pairs[0, i]} as {pairs[1, i]}" for i in np.argsort(-counts)[:5]
    )
    print(f"most frequent mistakes: {most}")
    if args.confusion:
        display = ConfusionMatrixDisplay.from_predictions(
            y[test], predicted, include_values=False, normalize="true", cmap="Greys"
        )
        display.ax_.set(xticks=[], yticks=[])
        display.figure_.savefig(args.confusion, dpi=150)


if __name__ == "__main__":
    main()
