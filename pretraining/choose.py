"""Choose the preprocessing of a bundled backbone on the training parts of transfer sets.

Prints the cross-validated accuracy of logistic regression on frozen embeddings, for squashed and
cropped images of several sizes. It does not use the test parts.

    python pretraining/choose.py tiny_resnet --weights runs/tiny_resnet/tiny_resnet.safetensors DATA
"""

import argparse
import sys
from pathlib import Path

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import ImageEmbedder
from sktransfer.backbones import Preprocessing, load_backbone, resolve_backbone

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import accuracy

SIZES = (112, 128, 144, 160, 192)
STRENGTHS = (1e-3, 5e-3)


def cross_validated(module, data):
    """Best accuracy over a few strengths of the logistic regression."""
    train, target, _, _ = data
    embeddings = ImageEmbedder(module, cache=None).fit_transform(train)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": STRENGTHS},
        cv=accuracy.folds(),
    )
    return search.fit(embeddings, target).best_score_


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["tiny_mobilenet", "tiny_resnet"])
    parser.add_argument("data", type=Path, help="as for benchmarks/accuracy.py")
    parser.add_argument("--weights", default="DEFAULT", help="weights file (default: bundled)")
    parser.add_argument("--sets", default="scenes,cars,dogs")
    args = parser.parse_args()
    module = load_backbone(resolve_backbone(args.name, args.weights))
    print("| set | pixels | squashed | cropped |\n|---|---|---|---|")
    for name in args.sets.split(","):
        data = accuracy.SETS[name](args.data)
        for size in SIZES:
            scores = []
            for resize_size in (None, round(size * 256 / 224)):
                module.preprocessing = Preprocessing(size, resize_size)
                scores.append(f"{cross_validated(module, data):.1%}")
            print(f"| {name} | {size} | " + " | ".join(scores) + " |", flush=True)


if __name__ == "__main__":
    main()
