"""Test accuracy of two backbones and their stack on four data sets.

    python benchmarks/accuracy.py DATA --baselines  # next to raw pixels and random weights
    python benchmarks/accuracy.py DATA --ways       # frozen, with views, fine-tuned, stacks
    python benchmarks/accuracy.py DATA --backbones efficientnet_lite0,efficientnet_lite2
    python benchmarks/accuracy.py DATA --sizes 224,320,400 --backbones efficientnet_lite0
    python benchmarks/accuracy.py DATA --defaults   # fine-tuned with default settings, and frozen
    python benchmarks/accuracy.py DATA --vote --backbones efficientnet_lite0,efficientnet_lite2

DATA contains:

- ``scenes/train`` and ``scenes/test``: class folders;
- ``cars/images`` with ``cars/labels.csv`` (filename, model, split);
- ``dogs/train`` and ``dogs/test`` with ``dogs/labels.csv``, ``dogs/test_labels.csv`` (id, breed).

The fourth set is scikit-learn's digits.

Cross-validation on the training part chooses everything. Only the chosen model is evaluated on the
test part: once, or with ``--ways`` once for each of five seeds.
"""

import argparse
import time
import warnings
from itertools import combinations, product
from pathlib import Path

import numpy as np
from _machine import machine
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_predict,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import (
    FineTuneClassifier,
    HeadClassifier,
    ImageEmbedder,
    make_transfer_pipeline,
    make_transfer_stack,
)
from sktransfer.datasets import load_image_csv, load_image_folder
from sktransfer.exceptions import RandomWeightsWarning
from sktransfer.images import check_images, decode_image

BUNDLED = ["tiny_resnet", "tiny_mobilenet"]
STRENGTHS = np.logspace(-4, -1, 7)
N_VIEWS = 4


# ---------------------------------------------------------------------------------------- data


def scenes(root):
    train, test = (load_image_folder(root / "scenes" / part) for part in ("train", "test"))
    return train.data, train.target, test.data, test.target


def cars(root):
    parts = [
        load_image_csv(
            root / "cars" / "labels.csv",
            root / "cars" / "images",
            image_column="filename",
            label_column="model",
            where={"split": part},
        )
        for part in ("train", "test")
    ]
    return parts[0].data, parts[0].target, parts[1].data, parts[1].target


def dogs(root):
    parts = [
        load_image_csv(
            root / "dogs" / table,
            root / "dogs" / part,
            image_column="id",
            label_column="breed",
            suffix=".jpg",
        )
        for table, part in (("labels.csv", "train"), ("test_labels.csv", "test"))
    ]
    return parts[0].data, parts[0].target, parts[1].data, parts[1].target


def digits(root):
    X, y = load_digits(return_X_y=True)
    images = (X.reshape(-1, 8, 8) / 16 * 255).astype(np.uint8)
    train, test, y_train, y_test = train_test_split(
        images, y.astype(str), test_size=0.5, stratify=y, random_state=0
    )
    return train, y_train, test, y_test


SETS = {"scenes": scenes, "cars": cars, "dogs": dogs, "digits": digits}
#: A mirrored or cropped digit may be a different digit.
WITH_VIEWS = ("scenes", "cars", "dogs")


# -------------------------------------------------------------------------------------- models


class RawPixels(TransformerMixin, BaseEstimator):
    """The pixels of the images, squashed to 32 x 32."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        from torch.nn.functional import interpolate

        images = [decode_image(image)[None].float() for image in check_images(X)]
        small = [interpolate(p, (32, 32), mode="bilinear", antialias=True) for p in images]
        return np.stack([p.flatten().numpy() for p in small]) / 255

    def __sklearn_is_fitted__(self):
        return True


def head(C=1.0):
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500, tol=1e-3))


def folds(n=5):
    return StratifiedKFold(n, shuffle=True, random_state=0)


def tuned():
    """Grid search over the strength of a logistic regression on embeddings."""
    return GridSearchCV(head(), {"logisticregression__C": STRENGTHS}, cv=folds(), n_jobs=-1)


def stack_of(strengths, **views):
    """The stack of some backbones, with one strength per branch."""
    final = LogisticRegression(max_iter=500)
    stack = make_transfer_stack(list(strengths), head(), final, cv=folds(), **views)
    path = "head__estimator" if views else "head"
    return stack.set_params(
        **{f"{name}__{path}__logisticregression__C": C for name, C in strengths.items()}
    )


def tuned_stack(strengths):
    """Grid search over how the stack combines its branches."""
    grid = {
        "stack_method": ["predict_proba", "decision_function"],
        "final_estimator__C": [0.01, 0.1, 1.0],
    }
    return GridSearchCV(stack_of(strengths), grid, cv=folds(), n_jobs=-1)


def tuned_views(strengths, combination):
    """Grid search over the augmentation of the views that the heads train on."""
    # The heads see N_VIEWS times as many rows, against which their penalty is weighed.
    strengths = {name: C / N_VIEWS for name, C in strengths.items()}
    stack = stack_of(strengths, augmentation="crop", n_views=N_VIEWS).set_params(**combination)
    grids = [
        {f"{name}__embedder__augmentation": [augmentation] for name in strengths}
        for augmentation in ("flip", "crop")
    ]
    return GridSearchCV(stack, grids, cv=folds(), n_jobs=-1)


def singles(backbones, baselines):
    """Name and features of every row of the table except the stacks."""
    if baselines:
        yield "raw pixels", RawPixels()
        for name in backbones:
            yield f"{name}, random weights", ImageEmbedder(name, weights=None)
    for name in backbones:
        yield name, ImageEmbedder(name)


def figures(name, data, backbones, baselines):
    """Yield (row, cross-validated accuracy, test accuracy, seconds) for one set."""
    train, y_train, test, y_test = data
    strengths = {}
    for row, features in singles(backbones, baselines):
        begun = time.perf_counter()
        search = tuned().fit(features.fit_transform(train), y_train)
        strengths[row] = search.best_params_["logisticregression__C"]
        score = search.score(features.transform(test), y_test)
        yield row, search.best_score_, score, time.perf_counter() - begun
    begun = time.perf_counter()
    strengths = {backbone: strengths[backbone] for backbone in backbones}
    stack = tuned_stack(strengths).fit(train, y_train)
    yield "stack of both", *scores(stack, test, y_test), time.perf_counter() - begun
    if name in WITH_VIEWS:
        begun = time.perf_counter()
        views = tuned_views(strengths, stack.best_params_).fit(train, y_train)
        augmentation = views.best_params_[f"{backbones[0]}__embedder__augmentation"]
        row = f'stack of both, {N_VIEWS} views, "{augmentation}"'
        yield row, *scores(views, test, y_test), time.perf_counter() - begun


def scores(search, test, y_test):
    return search.best_score_, search.score(test, y_test)


# --------------------------------------------------------------- views, fine-tuning and stacks


def ways(seed):
    """Estimator and grid of each way to use the bundled backbones."""
    head = HeadClassifier(random_state=seed)
    views = {"augmentation": "crop", "n_views": N_VIEWS, "random_state": seed}
    backbones = {"embedder__backbone": BUNDLED}
    return {
        "frozen": (make_transfer_pipeline(head=head), backbones),
        "frozen, with views": (
            make_transfer_pipeline(head=head, **views),
            backbones | {"embedder__augmentation": ["flip", "crop"]},
        ),
        "fine-tuned": (
            FineTuneClassifier(tuned_fraction=1, random_state=seed),
            {"backbone": BUNDLED[1:], "trainable_stages": [1, 3]},
        ),
        "stack of both": (make_transfer_stack(BUNDLED, head), {}),
        "stack of both, with views": (make_transfer_stack(BUNDLED, head, **views), {}),
    }


def choose(data):
    """Yield (way, best parameters, cross-validated accuracy, seconds) from the training part."""
    train, y_train, _, _ = data
    for way, (estimator, grid) in ways(seed=0).items():
        if not grid:
            yield way, {}, None, 0.0
            continue
        begun = time.perf_counter()
        search = GridSearchCV(estimator, grid, cv=folds(3), n_jobs=-1, refit=False)
        search.fit(train, y_train)
        yield way, search.best_params_, search.best_score_, time.perf_counter() - begun


def chosen(way, params, seed):
    """The estimator of a way with its chosen parameters, or the stack of all."""
    if way in params:
        return ways(seed)[way][0].set_params(**params[way])
    branches = [(name, chosen(name, params, seed)) for name in params if params[name]]
    return StackingClassifier(branches, LogisticRegression(max_iter=500), cv=folds(2))


def test_score(way, params, seed, data):
    """(test accuracy, seconds of the fit) for one seed."""
    train, y_train, test, y_test = data
    begun = time.perf_counter()
    model = chosen(way, params, seed).fit(train, y_train)
    return model.score(test, y_test), time.perf_counter() - begun


def compare_ways(name, data, n_seeds):
    """Print a row for each way: chosen parameters, accuracy, and gain over frozen."""
    rows = {way: rest for way, *rest in choose(data)}
    params = {way: rest[0] for way, rest in rows.items()}
    rows["stack of all"] = ("", None, 0.0)
    baseline = None
    for way, (what, cv_score, searched) in rows.items():
        results = Parallel(-1)(
            delayed(test_score)(way, params, seed, data) for seed in range(n_seeds)
        )
        scores, seconds = map(np.array, zip(*results, strict=True))
        baseline = scores if baseline is None else baseline
        gain = 100 * (scores - baseline)
        what = ", ".join(map(str, what.values())) if what else ""
        print(
            f"| {name} | {way} | {what} | {'' if cv_score is None else f'{cv_score:.1%}'} "
            f"| {scores.mean():.1%} ± {100 * scores.std(ddof=1):.1f} "
            f"| {gain.mean():+.1f} ± {gain.std(ddof=1):.1f} "
            f"| {searched:.0f} | {seconds.mean():.0f} |",
            flush=True,
        )


def print_defaults(args):
    """Print the accuracy of the defaults of fine-tuning in three folds of the training parts."""
    print("| set | frozen | fine-tuned | gain of each fold, points | fractions | fit, CPU s |")
    print("|---|---|---|---|---|---|")
    for name in args.sets.split(","):
        if name not in WITH_VIEWS:
            continue
        images, y, _, _ = SETS[name](args.data)
        images, scores, seconds, fractions = np.array(images), [], [], []
        for train, test in folds(3).split(images, y):
            pair = []
            for params in ({"trainable_stages": 0}, {}):
                model = FineTuneClassifier(
                    "efficientnet_lite0", image_size=160, random_state=0, **params
                )
                begun = time.process_time()
                model.fit(images[train], y[train])
                seconds.append(time.process_time() - begun)
                pair.append(100 * model.score(images[test], y[test]))
            scores.append(pair)
            fractions.append(f"{model.tuned_fraction_:g}")
        frozen, tuned = np.transpose(scores)
        print(
            f"| {name} | {frozen.mean():.1f} % | {tuned.mean():.1f} % "
            f"| {', '.join(f'{gain:+.1f}' for gain in tuned - frozen)} "
            f"| {', '.join(fractions)} "
            f"| {np.mean(seconds[1::2]):.0f} |",
            flush=True,
        )


VOTERS = ("flip", "crop", "fine-tuned")


def voter(kind, backbone):
    """Return a fine-tuned backbone, or a frozen one with views of one kind."""
    if kind == "fine-tuned":
        return FineTuneClassifier(backbone, trainable_stages=5, tuned_fraction=1, random_state=0)
    views = {"augmentation": kind, "n_views": N_VIEWS}
    return make_transfer_pipeline(backbone, **views, random_state=0)


def print_votes(args):
    """Average frozen and fine-tuned backbones."""
    backbones = args.backbones.split(",")
    models = {key: voter(*key) for key in product(VOTERS, backbones)}
    kinds, names = (
        [some for n in range(len(all_)) for some in combinations(all_, n + 1)]
        for all_ in (VOTERS, backbones)
    )
    averages = {
        f"{' + '.join(who)} | {' + '.join(where)}": list(product(who, where))
        for who, where in product(kinds, names)
    }
    print("| set | who votes | backbones | cross-validated | test |\n|---|---|---|---|---|")
    for name in args.sets.split(","):
        print_averages(name, SETS[name](args.data), models, averages, folds(3))


def print_sizes(args):
    """Average frozen backbones at several sizes of images."""
    backbones, sizes = args.backbones.split(","), args.sizes.split(",")
    keys = list(product(backbones, sizes))
    averages = {f"{backbone}, {size} px": [(backbone, size)] for backbone, size in keys}
    if len(sizes) > 1:
        averages |= {f"{name}, all sizes": [k for k in keys if k[0] == name] for name in backbones}
    if len(backbones) > 1:
        averages |= {f"all, {size} px": [k for k in keys if k[1] == size] for size in sizes}
        averages["all, all sizes"] = keys
    print("| set | backbones and sizes | cross-validated | test |\n|---|---|---|---|")
    for name in args.sets.split(","):
        data, models = SETS[name](args.data), {}
        for backbone, size in keys:
            embedder = ImageEmbedder(backbone, image_size=int(size))
            search = tuned().fit(embedder.fit_transform(data[0]), data[1])
            models[backbone, size] = make_pipeline(embedder, search.best_estimator_)
        print_averages(name, data, models, averages, folds())


def print_averages(name, data, models, averages, cv):
    """Choose by cross-validation whose probabilities to average, then test the choice once."""
    X, y, X_test, y_test = data
    X, classes = np.array(X), np.unique(y)
    probabilities = {
        key: cross_val_predict(model, X, y, cv=cv, method="predict_proba")
        for key, model in models.items()
    }
    scores = {}
    for row, keys in averages.items():
        mean = np.mean([probabilities[key] for key in keys], axis=0)
        scores[row] = np.mean(classes[mean.argmax(axis=1)] == y)
    best = max(scores, key=scores.get)
    voters = [(" ".join(key), models[key]) for key in averages[best]]
    accuracy = VotingClassifier(voters, voting="soft").fit(X, y).score(X_test, y_test)
    for row, score in scores.items():
        tested = f"{accuracy:.1%}" if row == best else ""
        print(f"| {name} | {row} | {score:.1%} | {tested} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--backbones", default=",".join(BUNDLED))
    parser.add_argument("--baselines", action="store_true", help="raw pixels, random weights")
    parser.add_argument("--sizes", help="compare sizes of images, such as 224,320,400")
    parser.add_argument("--ways", action="store_true", help="compare views, fine-tuning and stacks")
    parser.add_argument(
        "--defaults", action="store_true", help="fine-tuned with default settings beside frozen"
    )
    parser.add_argument(
        "--vote", action="store_true", help="average over frozen and fine-tuned backbones"
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds for --ways")
    args = parser.parse_args()
    warnings.simplefilter("ignore", RandomWeightsWarning)
    print(machine("openvino"), "\n")
    if args.ways:
        return print_ways(args)
    if args.defaults:
        return print_defaults(args)
    if args.vote:
        return print_votes(args)
    if args.sizes:
        return print_sizes(args)
    print("| set | features | cross-validated | test | seconds |\n|---|---|---|---|---|")
    for name in args.sets.split(","):
        data = SETS[name](args.data)
        rows = figures(name, data, args.backbones.split(","), args.baselines)
        for row, cv_score, test_score, seconds in rows:
            print(
                f"| {name} ({len(data[0])} + {len(data[2])}) | {row} | {cv_score:.1%} "
                f"| {test_score:.1%} | {seconds:.0f} |",
                flush=True,
            )


def print_ways(args):
    print("| set | way | chosen | cross-validated | test | gain, points | search, s | fit, s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.sets.split(","):
        if name in WITH_VIEWS:
            compare_ways(name, SETS[name](args.data), args.seeds)


if __name__ == "__main__":
    main()
