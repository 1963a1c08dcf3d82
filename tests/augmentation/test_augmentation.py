"""Augmented views and test-time views, and that no split parts the views of one image."""

import os
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial

import joblib
import numpy as np
import pytest
import sklearn
import torch
from new_process import other_hashes
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    TunedThresholdClassifierCV,
)
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC
from sklearn.utils import get_tags
from skorch import NeuralNetClassifier
from torch import nn
from torchvision.transforms import v2

import sktransfer.images
from sktransfer import (
    AugmentedClassifier,
    HeadClassifier,
    make_transfer_pipeline,
    make_transfer_stack,
)
from sktransfer.augmentation._splits import ImageSplitter, bind_splits
from sktransfer.augmentation._views import OwnRandomness, make_views, resolve_augmentation
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import ImageReadError, ImageReadWarning, UnreadableImageError
from sktransfer.heads import _classifier
from sktransfer.images import check_images, decode_image, digest_image, image_name

pytestmark = pytest.mark.usefixtures("one_thread")

POLICIES = ["flip", "crop", "color", "auto"]


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(n_samples=48, random_state=0)


@pytest.fixture
def paths(shapes, tmp_path):
    """The first shapes as PNG files."""
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for path, pixels in zip(paths, shapes.data, strict=False):
        Image.fromarray(pixels).save(path)
    return list(map(str, paths))


def logistic(**embedder):
    head = LogisticRegression(max_iter=2000)
    return make_transfer_pipeline("tiny_mobilenet", head, image_size=32, **embedder)


def views_of(images, augmentation="crop", n_views=4, seed=0):
    return make_views(
        images, resolve_augmentation(augmentation), n_views, seed, root=None, n_threads=1
    )


# --------------------------------------------------------------------------------------------
# Views
# --------------------------------------------------------------------------------------------


def test_a_view_goes_wherever_a_image_goes(paths):
    views = views_of(paths[:2])
    assert check_images(views) == list(views)
    assert image_name(views[5]) == paths[1]
    assert len(digest_image(views[5])) == 20
    assert decode_image(views[5]).dtype == torch.uint8
    with pytest.raises(TypeError, match="one image"):
        check_images(views[0])


def test_view_0_is_the_image_itself(paths):
    view = views_of(paths)[0]
    assert digest_image(view) == digest_image(paths[0])
    assert torch.equal(decode_image(view), decode_image(paths[0]))


def test_flip_mirrors_every_second_view(shapes):
    plain, mirrored, again, _ = views_of(shapes.data[:1], "flip")
    assert torch.equal(decode_image(mirrored), decode_image(shapes.data[0]).flip(2))
    assert digest_image(again) == digest_image(plain)
    assert len({digest_image(view) for view in views_of(shapes.data[:1], "flip", 8)}) == 2


@pytest.mark.parametrize("augmentation", ["crop", "color", "auto", v2.AugMix(), v2.GaussianNoise()])
def test_views_are_the_same_in_every_thread_and_order(shapes, augmentation):
    views = views_of(shapes.data[:8], augmentation)
    first = [decode_image(view) for view in views]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(decode_image, pickle.loads(pickle.dumps(views[::-1]))))
    assert all(map(torch.equal, first, again[::-1]))
    assert len({pixels.numpy().tobytes() for pixels in first}) > len(views) // 2


@pytest.mark.parametrize("augmentation", POLICIES)
def test_making_views_leaves_global_random_numbers_alone(shapes, augmentation):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    for view in views_of(shapes.data[:2], augmentation):
        decode_image(view)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state()[1])


def test_a_digest_depends_on_all_that_decides_on_a_view(shapes):
    def digest(number=1, **changes):
        return digest_image(views_of(shapes.data[:2], **changes)[number])

    changed = [
        digest(2),
        digest(5),
        digest(seed=1),
        digest(augmentation="color"),
        digest(augmentation="flip"),
    ]
    assert len({digest(), *changed}) == 6
    assert digest() == digest()
    assert digest(augmentation=v2.RandomRotation(10)) != digest(augmentation=v2.RandomRotation(20))


class Held(v2.Transform):
    """A transform with an attribute of any kind."""

    def __init__(self, held):
        super().__init__()
        self.held = held

    def transform(self, inpt, params):
        return inpt


RED, BLUE = {torch.Tensor: (255, 0, 0)}, {torch.Tensor: (0, 0, 255)}

#: What makes a transform, and two values that make different ones.
DIFFERENT = {
    "chance": (lambda p: v2.RandomApply([v2.RandomRotation(9)], p=p), 0.2, 0.9),
    "fill": (lambda fill: v2.RandomAffine(20, fill=fill), RED, BLUE),
    "padding": (lambda fill: v2.Pad(4, fill=fill), RED, BLUE),
    "mode": (lambda mode: v2.Pad(4, padding_mode=mode), "edge", "reflect"),
    "function": (v2.Lambda, v2.functional.invert, v2.functional.equalize),
    "tensor": (Held, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])),
    "array": (Held, np.zeros((2, 3)), np.zeros((3, 2))),
    "objects": (Held, np.array([1, "a"], object), np.array([1, "b"], object)),
    "number": (Held, np.float32(0.5), np.float32(0.6)),
    "type": (Held, torch.uint8, torch.int8),
    "set": (Held, {"a", "b"}, {"a", "c"}),
    "member": (Held, v2.InterpolationMode.BILINEAR, v2.InterpolationMode.BICUBIC),
    "deep": (Held, {"a": [None, {"b": (1,)}]}, {"a": [None, {"b": (2,)}]}),
    "weight": (Held, nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2))),
}

NESTED = {
    "alone": lambda transform: transform,
    "composed": lambda transform: v2.Compose([v2.RandomHorizontalFlip(), transform]),
    "chosen": lambda transform: v2.RandomChoice([v2.RandomHorizontalFlip(), transform]),
    "ordered": lambda transform: v2.RandomOrder([transform, v2.RandomHorizontalFlip()]),
    "listed": lambda transform: v2.RandomApply(nn.ModuleList([transform])),
}


@pytest.mark.parametrize("nest", NESTED.values(), ids=NESTED)
@pytest.mark.parametrize("case", DIFFERENT)
def test_augmentations_that_differ_share_no_views(case, nest):
    make, one, other = DIFFERENT[case]
    key = resolve_augmentation(nest(make(one))).key
    assert key == resolve_augmentation(nest(make(deepcopy(one)))).key
    assert key != resolve_augmentation(nest(make(other))).key


def test_a_key_is_the_same_in_each_process():
    code = """
import torch
from torchvision.transforms import v2
from sktransfer.augmentation._transforms import transform_key
class Own(v2.Transform): pass
held = Own()
held.names = set("abcdefghij")
parts = [v2.RandomAffine(9, fill={torch.Tensor: 3}), v2.AutoAugment()]
key = transform_key(v2.Compose([held, v2.RandomApply(parts)]))
"""
    here = {"__name__": "__main__"}
    exec(code, here)
    command = [sys.executable, "-W", "error", "-c", code + "print(key)"]
    assert subprocess.check_output(command, env=other_hashes(), text=True) == f"{here['key']}\n"


def test_like_functions_draw_from_the_own_generator():
    zeros = torch.zeros(3)
    with OwnRandomness(1):
        inside = torch.randn_like(zeros), torch.rand_like(zeros, dtype=torch.float64)
    with OwnRandomness(1):
        assert torch.equal(torch.randn(3), inside[0])
        assert torch.equal(torch.rand(3, dtype=torch.float64), inside[1])


def test_large_images_are_shrunk_before_named_augmentations():
    large = np.zeros((900, 1000, 3), dtype=np.uint8)
    crop, own = (
        views_of([large], augmentation, 2)[1] for augmentation in ("crop", v2.RandomRotation(0))
    )
    assert max(decode_image(crop).shape) <= 800 * 1000 / 900 + 1
    assert decode_image(own).shape == (3, 900, 1000)


def test_a_image_that_cannot_be_read_gives_its_reason_for_each_view(tmp_path):
    views = views_of([str(tmp_path / "missing.png")], n_views=2)
    for view in pickle.loads(pickle.dumps(views)):
        with pytest.raises(UnreadableImageError, match="no such file"):
            digest_image(view)


def test_a_file_that_changes_is_noticed(paths, shapes):
    view = views_of(paths[:1])[1]
    Image.fromarray(shapes.data[20]).save(paths[0])
    with pytest.raises(UnreadableImageError, match="changed while"):
        decode_image(view)


def test_a_augmentation_that_fails_on_a_image_makes_it_unreadable(shapes):
    augmentation = v2.RandomCrop(10_000)
    with pytest.raises(UnreadableImageError, match="augmentation fails"):
        decode_image(views_of(shapes.data[:1], augmentation)[1])


def test_unchanged_files_are_not_read_again(paths, shapes, monkeypatch):
    for path in paths:  # files changed within the last seconds are not remembered
        os.utime(path, (1, 1))
    monkeypatch.setattr("sktransfer.images._known_files._RACY_SECONDS", -1e9)
    model = AugmentedClassifier(logistic(), augmentation="crop", n_views=3, n_test_views=2)
    model.fit(paths, shapes.target[:12])
    read = []
    original = sktransfer.images._digests.read_file
    for module in (sktransfer.images._digests, sktransfer.images._decoding):
        monkeypatch.setattr(module, "read_file", lambda path: read.append(path) or original(path))
    model.fit(paths, shapes.target[:12]).predict(paths)
    assert read == []


# --------------------------------------------------------------------------------------------
# Each view is embedded once
# --------------------------------------------------------------------------------------------


class CountingNetwork(nn.Module):
    """Average colours on a grid; notes in a file how many images it was given."""

    def __init__(self, file):
        super().__init__()
        self.file = str(file)

    def forward(self, pixels):
        # Rows that only fill a batch up are of one colour.
        images = int((pixels.flatten(1).std(1) > 0.5).sum())
        with open(self.file, "a") as file:
            file.write(f"{images}\n")
        return nn.functional.adaptive_avg_pool2d(pixels, 4).flatten(1)


def test_grid_search_with_8_views_embeds_8_rows_a_image(shapes, tmp_path):
    network = CountingNetwork(tmp_path / "rows")
    pipeline = make_transfer_pipeline(network, LogisticRegression(max_iter=5000), image_size=32)
    model = AugmentedClassifier(pipeline, augmentation="crop", n_views=8, n_test_views=4)
    grid = {"estimator__head__C": [0.01, 1.0], "n_test_views": [1, 4]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(shapes.data, shapes.target)
    search.predict(shapes.data)
    rows = sum(map(int, (tmp_path / "rows").read_text().split()))
    assert rows == 8 * len(shapes.data)


# --------------------------------------------------------------------------------------------
# No split parts the views of one image
# --------------------------------------------------------------------------------------------


class Number(TransformerMixin, BaseEstimator):
    """Turns image i, all of whose pixels are i, into the row (i, 1): a traceable embedding."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        numbers = [float(decode_image(image)[0, 0, 0]) for image in check_images(X)]
        return np.column_stack([numbers, np.ones(len(numbers))])

    def __sklearn_is_fitted__(self):
        return True


class Witness(ClassifierMixin, BaseEstimator):
    """Fails as soon as it is asked about an image that it was trained on."""

    def __init__(self, C=1.0, allowed=False):
        self.C = C
        self.allowed = allowed

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        self.seen_ = set(X[:, 0])
        self.weight_, self.rows_, self.targets_ = sample_weight, X[:, 0], np.asarray(y)
        return self

    def predict_proba(self, X):
        known = self.seen_ & set(X[:, 0])
        if known and not self.allowed:
            raise AssertionError(f"images {sorted(known)[:5]} are on both sides of a split")
        noise = np.random.RandomState(0).uniform(0.1, 1, (len(X), len(self.classes_)))
        return noise / noise.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


NUMBERED = np.stack([np.full((4, 6), number, dtype=np.uint8) for number in range(41)])
# No class can be dealt out evenly, so that folds of single rows do cut through images.
TARGETS = np.array(["cat", "dog", "owl", "cat"] * 11)[:41]


def witness():
    return make_pipeline(Number(), Witness())


def searched(estimator, parameter, **options):
    return GridSearchCV(estimator, {parameter: [1, 2]}, error_score="raise", **options)


def final():
    """A search whose refitted best estimator is never asked during fit."""
    return LogisticRegression()


SPLITTING = {
    "stack": lambda: StackingClassifier([("a", witness())], final()),
    "stack, shuffled": lambda: StackingClassifier(
        [("a", witness()), ("b", witness())], final(), cv=StratifiedKFold(3, shuffle=True)
    ),
    "stack of iterables": lambda: StackingClassifier(
        [("a", witness())], final(), cv=list(KFold(4).split(np.zeros(41)))
    ),
    "calibration": lambda: CalibratedClassifierCV(witness(), cv=3),
    "calibration, one model": lambda: CalibratedClassifierCV(witness(), cv=3, ensemble=False),
    "search": lambda: searched(witness(), "witness__C", cv=ShuffleSplit(3, random_state=0)),
    "halving search": lambda: HalvingGridSearchCV(
        witness(),
        {"witness__C": [1, 2]},
        cv=2,
        error_score="raise",
        random_state=0,
        return_train_score=False,
    ),
    "search over stacks": lambda: searched(
        StackingClassifier([("a", witness())], final()), "a__witness__C", cv=2
    ),
    "head stack": lambda: make_pipeline(Number(), StackingClassifier([("a", Witness())], final())),
    "head search": lambda: make_pipeline(Number(), searched(Witness(), "C", cv=3)),
    "head search in a stack": lambda: StackingClassifier(
        [("a", make_pipeline(Number(), searched(Witness(), "C", cv=2)))], final(), cv=3
    ),
    "head calibration": lambda: make_pipeline(Number(), CalibratedClassifierCV(Witness())),
    "candidate of a search": lambda: GridSearchCV(
        make_pipeline(Number(), Witness()),
        {"witness": [CalibratedClassifierCV(Witness(), cv=2)]},
        cv=2,
        error_score="raise",
    ),
    "augmented twice": lambda: AugmentedClassifier(
        StackingClassifier([("a", witness())], final()), n_views=2
    ),
}


def fit_witness(estimator, **parameters):
    return AugmentedClassifier(estimator, augmentation="flip", **parameters).fit(NUMBERED, TARGETS)


@pytest.mark.parametrize("name", SPLITTING)
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_views_of_a_image_are_on_one_side_of_every_split(name):
    estimator = SPLITTING[name]()
    before = repr(estimator.get_params())
    fit_witness(estimator)
    assert "ImageSplitter" not in before + repr(estimator.get_params())


@pytest.mark.parametrize("name", SPLITTING)
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_the_witness_notices_when_they_are_not(name, monkeypatch):
    def single_rows(self, X, y):
        rows = np.arange(len(X))
        return rows, [[row] for row in rows]

    monkeypatch.setattr(ImageSplitter, "_images", single_rows)
    if name == "stack of iterables":
        pytest.skip("names images, not views, by itself")
    with pytest.raises(AssertionError, match="on both sides"):
        fit_witness(SPLITTING[name]())


def test_folds_are_those_of_the_images():
    views = views_of(NUMBERED, "flip", 3)
    rows = np.repeat(np.arange(41), 3)
    splitter = ImageSplitter(StratifiedKFold(4, shuffle=True, random_state=1), 3)
    splits = StratifiedKFold(4, shuffle=True, random_state=1).split(NUMBERED, TARGETS)
    found = list(splitter.split(views, TARGETS[rows]))
    assert splitter.get_n_splits(views, TARGETS[rows]) == len(found) == 4
    for (train, test), expected in zip(found, splits, strict=True):
        assert np.array_equal(train.reshape(-1, 3)[:, 0] // 3, expected[0])
        assert np.array_equal(rows[test].reshape(-1, 3)[:, 2], expected[1])


def test_groups_of_images_reach_the_splitter():
    groups = np.repeat(np.arange(11), 4)[:41]
    rows = np.repeat(np.arange(41), 2)
    splitter = ImageSplitter(GroupKFold(5), 2)
    assert splitter.get_n_splits() == 5
    for train, test in splitter.split(views_of(NUMBERED, "flip", 2), TARGETS[rows], groups[rows]):
        assert not set(groups[rows[train]]) & set(groups[rows[test]])


def test_shuffled_views_are_told_apart_by_themselves():
    order = np.random.RandomState(0).permutation(82)[:60]
    views = views_of(NUMBERED, "flip", 2)[order]
    for train, test in ImageSplitter(3, 2).split(views, TARGETS[order // 2]):
        assert not {view.row for view in views[train]} & {view.row for view in views[test]}
        assert sorted([*train, *test]) == list(range(60))


def test_embeddings_that_no_longer_are_whole_images_are_refused():
    bagged = BaggingClassifier(searched(Witness(), "C", cv=2), n_estimators=1, random_state=0)
    with pytest.raises(ValueError, match=r"no longer 4 views.*put AugmentedClassifier inside"):
        fit_witness(make_pipeline(Number(), bagged))
    with pytest.raises(ValueError, match="The 7 rows are no longer 2 views"):
        next(ImageSplitter(2, 2).split(np.zeros((7, 3)), np.zeros(7)))


class NumberAndRow(Number):
    """Views of one image are rows of their own, as those of a photograph are."""

    def transform(self, X):
        numbers = super().transform(X)[:, 0]
        return np.column_stack([numbers, np.arange(len(numbers)) % 7])


@pytest.fixture
def sides(monkeypatch):
    """Numbers of the images that heads train on and validate on, for each fit."""
    seen = []

    def noted(split):
        def wrapper(*args):
            train, valid = split(*args)
            if valid is not None:
                seen.append((set(train.X[:, 0]), set(valid.X[:, 0])))
            return train, valid

        return wrapper

    monkeypatch.setattr(_classifier, "split_rows", noted(_classifier.split_rows))
    monkeypatch.setattr(HeadClassifier, "_divide", noted(HeadClassifier._divide))
    return seen


STOPPED = HeadClassifier(
    early_stopping=True, validation_fraction=0.25, max_epochs=2, random_state=0
)


@pytest.mark.parametrize(
    ("changes", "sizes"), [({}, (30, 11)), ({"validation_splitter": KFold(8)}, (35, 6))]
)
def test_early_stopping_validates_on_whole_images(sides, changes, sizes):
    model = fit_witness(make_pipeline(NumberAndRow(), clone(STOPPED).set_params(**changes)))
    assert [(len(train), len(valid)) for train, valid in sides] == [sizes]
    assert not sides[0][0] & sides[0][1]
    assert "valid_loss" in model.estimator_[-1].net_.history[0]


def test_equal_images_lie_on_one_side_of_a_validation_share(sides):
    images, targets = np.concatenate([NUMBERED, NUMBERED]), np.concatenate([TARGETS, TARGETS])
    pipeline = make_transfer_pipeline(head=STOPPED, image_size=32, engine="torch", cache=None)
    AugmentedClassifier(pipeline, augmentation="flip", n_views=2).fit(images, targets)
    assert not sides[0][0] & sides[0][1]


def test_a_search_inside_varies_what_early_stopping_validates_on(sides):
    search = GridSearchCV(
        make_pipeline(NumberAndRow(), STOPPED),
        {"headclassifier__validation_fraction": [0.25, 0.5]},
        cv=2,
        error_score="raise",
    )
    fit_witness(search)
    assert {len(valid) for _, valid in sides} == {5, 6, 10, 11}  # of some 20 and of 41 images
    assert not any(train & valid for train, valid in sides)


def test_the_automatic_penalty_leaves_out_whole_images():
    shapes = make_shapes(n_samples=80, noise=0.5, random_state=0)
    decay = {}
    for n_views in (1, 4):
        pipeline = make_transfer_pipeline(image_size=48, engine="torch", cache=None)
        model = AugmentedClassifier(pipeline, augmentation="crop", n_views=n_views, n_test_views=1)
        net = model.fit(shapes.data, shapes.target).estimator_[-1].net_
        decay[n_views] = net.optimizer_.param_groups[0]["weight_decay"]
    assert decay[4] > decay[1] / 30


def test_a_share_splits_images_and_a_prefitted_model_none():
    train, test = next(ImageSplitter(0.25, 2, seed=0).split(views_of(NUMBERED, "flip", 2)))
    assert len(train) == 60 and len(test) == 22
    fitted = witness().fit(NUMBERED, TARGETS)
    stack = StackingClassifier([("a", fitted)], final(), cv="prefit")
    bind_splits(stack, 2, 82, 0)
    assert stack.cv == "prefit"


def test_a_threshold_tuned_on_a_share():
    binary = np.where(TARGETS == "cat", 1, 0)
    tuned = TunedThresholdClassifierCV(witness(), cv=0.25, refit=False, random_state=0)
    AugmentedClassifier(tuned, n_views=2).fit(NUMBERED, binary)


REFUSED = {
    "early_stopping": SGDClassifier(early_stopping=True),
    "n_iter_no_change": GradientBoostingClassifier(n_iter_no_change=3),
    "oob_score": RandomForestClassifier(oob_score=True),
    "probability": SVC(probability=True),
    "train_split": NeuralNetClassifier(nn.Identity),
    "param_grid": searched(LogisticRegressionCV(), "cv"),
    "oob_score=True|oob_score": GridSearchCV(RandomForestClassifier(), {"oob_score": [True]}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_part_views_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}.*(rows|views)"):
        fit_witness(make_pipeline(Number(), REFUSED[name]))


# --------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------


def test_the_classifier_sees_every_view_with_its_target():
    head = fit_witness(witness()).estimator_[-1]
    assert head.rows_.tolist() == np.repeat(np.arange(41), 4).tolist()
    assert head.targets_.tolist() == np.repeat(TARGETS, 4).tolist()
    assert head.weight_ is None


def test_predictions_are_made_on_the_views_that_were_trained_on(shapes):
    model = AugmentedClassifier(logistic(), augmentation="flip", n_views=2, n_test_views=2)
    before = model.fit(shapes.data, shapes.target).predict_proba(shapes.data)
    after = model.set_params(augmentation="crop").predict_proba(shapes.data)
    np.testing.assert_array_equal(after, before)


def test_a_frozen_classifier_inside_stays_as_it_is():
    frozen = FrozenEstimator(StackingClassifier([("a", witness())], final()).fit(NUMBERED, TARGETS))
    bind_splits(calibrated := CalibratedClassifierCV(frozen), 2, 82, 0)
    assert isinstance(calibrated.cv, ImageSplitter) and frozen.estimator.cv is None


def test_sample_weights_count_for_each_view():
    weight = np.arange(41.0)
    model = AugmentedClassifier(witness(), n_views=3).fit(NUMBERED, TARGETS, sample_weight=weight)
    assert model.estimator_[-1].weight_.tolist() == np.repeat(weight, 3).tolist()
    by_name = clone(model).fit(NUMBERED, TARGETS, witness__sample_weight=weight)
    assert by_name.estimator_[-1].weight_.tolist() == np.repeat(weight, 3).tolist()


def test_sample_weights_are_routed():
    weight = np.arange(41.0)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(Number(), Witness().set_fit_request(sample_weight=True))
        model = AugmentedClassifier(StackingClassifier([("a", pipeline)], final()), n_views=2)
        model.estimator.final_estimator.set_fit_request(sample_weight=False)
        model.fit(NUMBERED, TARGETS, sample_weight=weight)
    inner = model.estimator_.estimators_[0][-1]
    assert inner.weight_.tolist() == np.repeat(weight, 2).tolist()


def transfer_stack(head):
    return make_transfer_stack(["tiny_resnet", "tiny_mobilenet"], head, cv=2, image_size=32)


@pytest.mark.parametrize(
    "estimator",
    [transfer_stack(None), GridSearchCV(logistic(), {}), CalibratedClassifierCV(logistic())],
    ids=lambda estimator: type(estimator).__name__,
)
def test_sample_weights_that_would_not_arrive_are_refused(shapes, estimator):
    weight = np.ones(48)
    for inside in (estimator, make_pipeline(estimator)):
        model = AugmentedClassifier(inside, augmentation="flip", n_views=2)
        with pytest.raises(ValueError, match=r"type sklearn\.set_config\(enable_metadata_routing"):
            model.fit(shapes.data, shapes.target, sample_weight=weight)


@pytest.mark.parametrize("counted", [0.0, 1.0])
def test_sample_weights_arrive_in_a_stack_as_the_refusal_says(shapes, counted):
    circles = shapes.target == "circle"
    with sklearn.config_context(enable_metadata_routing=True):
        # Exact, where a head that is trained by steps has not quite unlearned its first weights.
        head = LogisticRegression(max_iter=2000).set_fit_request(sample_weight=True)
        model = AugmentedClassifier(transfer_stack(head), augmentation="flip", n_views=2)
        weight = np.where(circles, counted, 1.0)
        model.fit(shapes.data, shapes.target, sample_weight=weight)
    for head in model.estimator_.estimators_:  # these know classes by their numbers
        assert (0 in head.predict(shapes.data[circles])) == bool(counted)


@pytest.mark.parametrize("container", ["array", "list", "Series", "column", "DataFrame"])
def test_containers(paths, shapes, container):
    make = {"array": np.array, "list": list}
    if container in ("Series", "DataFrame"):
        pandas = pytest.importorskip("pandas")
        make |= {"Series": pandas.Series, "DataFrame": partial(pandas.DataFrame, columns=["path"])}
    make["column"] = lambda paths: np.array(paths, dtype=object).reshape(-1, 1)
    X, y = make[container](paths), shapes.target[:12]
    model = AugmentedClassifier(logistic(), augmentation="crop", n_views=2, n_test_views=2)
    expected = clone(model).fit(paths, y).predict_proba(paths)
    np.testing.assert_array_equal(model.fit(X, list(y)).predict_proba(X), expected)


def test_bagging_inside_and_outside(shapes):
    column = np.empty((48, 1), dtype=object)
    column[:, 0] = list(shapes.data)
    bags = BaggingClassifier(logistic(), n_estimators=2, random_state=0)
    inside = AugmentedClassifier(bags, n_views=2, n_test_views=2).fit(column, shapes.target)
    outside = clone(bags).set_params(estimator=AugmentedClassifier(logistic(), augmentation="flip"))
    assert inside.score(column, shapes.target) > 0.5
    assert outside.fit(column, shapes.target).score(column, shapes.target) > 0.5


def test_one_view_and_no_augmentation_change_nothing(shapes):
    plain = logistic().fit(shapes.data, shapes.target).predict_proba(shapes.data)
    for parameters in (
        {"n_views": 1, "n_test_views": 1},
        {"augmentation": None, "n_views": 4, "n_test_views": 4},
    ):
        model = AugmentedClassifier(logistic(), **parameters).fit(shapes.data, shapes.target)
        np.testing.assert_array_equal(model.predict_proba(shapes.data), plain)


# --------------------------------------------------------------------------------------------
# Prediction
# --------------------------------------------------------------------------------------------


def test_tta_alone_averages_over_the_views(shapes):
    pipeline = logistic().fit(shapes.data, shapes.target)
    model = AugmentedClassifier(logistic(), augmentation="flip", n_views=1, n_test_views=2).fit(
        shapes.data, shapes.target
    )
    mean = pipeline.predict_proba(shapes.data) + pipeline.predict_proba(shapes.data[:, :, ::-1])
    proba = model.predict_proba(shapes.data)
    np.testing.assert_allclose(proba, mean / 2, rtol=1e-6)
    assert (model.predict(shapes.data) == model.classes_[proba.argmax(1)]).all()
    plain = model.set_params(n_test_views=1).predict_proba(shapes.data)
    np.testing.assert_array_equal(plain, pipeline.predict_proba(shapes.data))


def test_decision_values_are_averaged(shapes):
    head = make_transfer_pipeline("tiny_mobilenet", LinearSVC(C=0.01), image_size=32)
    for y in (shapes.target, shapes.target == shapes.target[0]):
        model = AugmentedClassifier(head, augmentation="flip", n_views=2, n_test_views=2).fit(
            shapes.data, y
        )
        assert not hasattr(model, "predict_proba")
        values = model.decision_function(shapes.data)
        codes = values.argmax(1) if values.ndim == 2 else (values > 0).astype(int)
        assert (model.predict(shapes.data) == model.classes_[codes]).all()


def test_several_labels(shapes):
    y = np.column_stack([shapes.target == name for name in np.unique(shapes.target)]).astype(int)
    pipeline = make_transfer_pipeline(head=HeadClassifier(random_state=0), image_size=32)
    model = AugmentedClassifier(pipeline, n_views=2, n_test_views=2).fit(shapes.data, y)
    assert get_tags(model).classifier_tags.multi_label
    proba = model.predict_proba(shapes.data)
    np.testing.assert_array_equal(model.predict(shapes.data), proba > 0.5)
    forest = make_transfer_pipeline(head=RandomForestClassifier(n_estimators=3), image_size=32)
    forest = AugmentedClassifier(forest, n_test_views=2).fit(shapes.data, y)
    with pytest.raises(ValueError, match="list with an array for each label"):
        forest.predict_proba(shapes.data)


def test_tta_needs_something_to_average():
    class Oracle(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

        def predict(self, X):
            return np.full(len(X), self.classes_[0])

    model = AugmentedClassifier(Oracle(), n_test_views=2).fit(NUMBERED, TARGETS)
    with pytest.raises(ValueError, match=r"has neither\. Set n_test_views=1"):
        model.predict(NUMBERED)


# --------------------------------------------------------------------------------------------
# An estimator of scikit-learn's
# --------------------------------------------------------------------------------------------


def test_clone_pickle_and_score(shapes):
    model = AugmentedClassifier(
        logistic(), augmentation="auto", n_views=2, n_test_views=2, random_state=3
    )
    assert clone(model).get_params()["estimator__head__max_iter"] == 2000
    fitted = model.fit(shapes.data, shapes.target)
    assert not hasattr(fitted, "n_features_in_")
    assert fitted.classes_.tolist() == np.unique(shapes.target).tolist()
    written = pickle.dumps(fitted)
    assert len(written) < 100_000
    again = pickle.loads(written)
    np.testing.assert_array_equal(
        again.predict_proba(shapes.data), fitted.predict_proba(shapes.data)
    )
    assert fitted.score(shapes.data, shapes.target) > 0.5


def test_search_over_its_own_parameters_in_two_threads(shapes):
    grid = {"augmentation": [None, "flip", v2.Compose([v2.RandomRotation(5)])], "n_views": [1, 2]}
    search = GridSearchCV(
        AugmentedClassifier(logistic(), n_test_views=1), grid, cv=2, error_score="raise"
    )
    alone = clone(search).fit(shapes.data, shapes.target).cv_results_["mean_test_score"]
    with joblib.parallel_config("threading", n_jobs=2):
        both = search.fit(shapes.data, shapes.target).cv_results_
    np.testing.assert_array_equal(both["mean_test_score"], alone)


def test_a_stack_of_backbones_with_views(shapes):
    head = LogisticRegression(max_iter=2000)
    stack = make_transfer_stack(["tiny_resnet", "tiny_mobilenet"], head, cv=2, image_size=32)
    model = AugmentedClassifier(stack, augmentation="flip", n_views=2, n_test_views=2)
    assert model.fit(shapes.data, shapes.target).score(shapes.data, shapes.target) > 0.5


def test_a_branch_with_views_beside_a_plain_one(shapes):
    branches = [
        ("views", AugmentedClassifier(logistic(), augmentation="flip")),
        ("plain", logistic()),
    ]
    stack = StackingClassifier(branches, LogisticRegression(), cv=2)
    stack.fit(shapes.data, shapes.target)
    assert stack.transform(shapes.data).shape == (48, 2 * 4)


def test_random_state(shapes):
    X, y = shapes.data[:12], shapes.target[:12]

    def seeds(random_state):
        model = AugmentedClassifier(logistic(), augmentation="crop", random_state=random_state)
        return [clone(model).fit(X, y).seed_ for _ in range(2)]

    assert seeds(7) == [7, 7]
    first, second = seeds(None)
    assert first != second


@pytest.mark.parametrize("augmentation", [v2.RandomRotation(5), v2.ColorJitter(0.1)])
def test_transforms_with_a_get_params_of_their_own(augmentation):
    model = StackingClassifier([("a", AugmentedClassifier(witness(), augmentation=augmentation))])
    copy = clone(model.set_params(a__estimator__witness__C=3.0))
    assert copy.get_params()["a__estimator__witness__C"] == 3.0
    assert repr(copy.get_params()["a__augmentation"]) == repr(augmentation)
    assert copy.get_params()["a__augmentation"] is not augmentation
    copy.set_params(a__estimator__witness__allowed=True).fit(NUMBERED, TARGETS)


def test_tags_are_those_of_the_classifier():
    assert get_tags(AugmentedClassifier(logistic())).input_tags == get_tags(logistic()).input_tags
    assert get_tags(AugmentedClassifier(logistic())).estimator_type == "classifier"


# --------------------------------------------------------------------------------------------
# What can go wrong
# --------------------------------------------------------------------------------------------


def test_bad_images_are_named_once_by_their_place(paths, shapes, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    X = [*paths[:5], str(tmp_path / "text.png"), *paths[5:], str(tmp_path / "missing.png")]
    model = AugmentedClassifier(logistic(), augmentation="crop", n_views=3, n_test_views=2)
    with pytest.raises(ImageReadError) as caught:
        model.fit(X, shapes.target[:14])
    assert [(error.index, error.path) for error in caught.value.errors] == [
        (5, X[5]),
        (13, X[13]),
    ]
    model.fit(paths, shapes.target[:12])
    with pytest.raises(ImageReadError) as caught:
        model.predict([*paths, b"", paths[0]])
    assert [error[:2] for error in caught.value.errors] == [(12, None)]


def test_a_bad_validation_image_is_named(shapes):
    X, y = list(shapes.data[:12]), shapes.target[:12]
    X_val, y_val = ["missing.png", *X[:5]], y[:6]
    with sklearn.config_context(enable_metadata_routing=True):
        head = HeadClassifier(early_stopping=True).set_fit_request(X_val=True, y_val=True)
        pipeline = make_transfer_pipeline(head=head, image_size=32, engine="torch", cache=None)
        pipeline.set_params(transform_input=["X_val"])
        with pytest.raises(ImageReadError) as caught:
            AugmentedClassifier(pipeline, n_views=2).fit(X, y, X_val=X_val, y_val=y_val)
    assert [error[:2] for error in caught.value.errors] == [(0, "missing.png")]


def test_bad_images_in_memory_are_named_by_their_place_from_inside_a_split(shapes):
    X = [*shapes.data[:23], b"no image"]
    search = GridSearchCV(logistic(), {"head__C": [1.0]}, cv=KFold(3), error_score="raise")
    for estimator in (search, AugmentedClassifier(search, augmentation="crop", n_views=2)):
        model = AugmentedClassifier(estimator, augmentation="flip", n_views=2)
        with pytest.raises(ImageReadError) as caught:
            model.fit(X, shapes.target[:24])  # the first split trains on images 8 to 23
        assert [error[:2] for error in caught.value.errors] == [(23, None)]


def test_the_name_of_a_view_knows_its_row_in_other_processes_too(paths, shapes):
    for view, name in zip(
        views_of([paths[0], shapes.data[0]], n_views=1), [paths[0], ""], strict=True
    ):
        error = ImageReadError([(0, image_name(view), "reason")], "advice")
        ((_, path, _),) = pickle.loads(pickle.dumps(error)).errors
        assert (path, path.row) == (name, view.row)


def test_bad_images_may_become_rows_of_nan(paths, shapes):
    pipeline = logistic(on_error="nan").set_params(head=HistGradientBoostingClassifier(max_iter=2))
    X = [*paths, "missing.png"]
    model = AugmentedClassifier(pipeline, n_views=2, n_test_views=2)
    with pytest.warns(ImageReadWarning, match="2 of 26 images"):
        model.fit(X, shapes.target[:13])
    with pytest.warns(ImageReadWarning):
        assert np.isfinite(model.predict_proba(X)).all()


class NumpyNoise(v2.Transform):
    def transform(self, inpt, params):
        return torch.from_numpy(np.random.randint(0, 255, inpt.shape, dtype=np.uint8))


def local_transform():
    class Local(v2.Transform):
        pass

    return Local()


WRONG_POLICIES = {
    "unknown": ("flipp", ValueError, r"did you mean 'flip'"),
    "function": ([v2.RandomRotation(3)], ValueError, "'augmentation' parameter"),
    "lambda": (v2.Lambda(lambda x: x), ValueError, "`lambd` of Lambda is <function"),
    "deep": (v2.RandomApply([v2.Lambda(lambda x: x)]), ValueError, "`lambd` of Lambda is"),
    "address": (v2.Lambda(partial(torch.flip, dims=[0])), ValueError, "`lambd` of Lambda is"),
    "local class": (local_transform(), ValueError, "the augmentation is <class .*Local'>"),
    "generator": (Held(torch.Generator()), ValueError, "`held` of Held is <torch._C.Generator"),
    "floats": (v2.ToDtype(torch.float32, scale=True), ValueError, "Hint: leave out ToDtype"),
    "other kind": (v2.ToPILImage(), ValueError, "it made Image of a uint8 tensor"),
    "not repeatable": (NumpyNoise(), ValueError, "two different images of one"),
    "too small": (v2.RandomCrop(10_000), ValueError, "fails on an image"),
}


@pytest.mark.parametrize("case", WRONG_POLICIES)
def test_wrong_augmentations(shapes, case):
    augmentation, kind, message = WRONG_POLICIES[case]
    with pytest.raises(kind, match=message):
        AugmentedClassifier(logistic(), augmentation=augmentation).fit(shapes.data, shapes.target)


def test_wrong_arguments(shapes):
    model = AugmentedClassifier(logistic())
    with pytest.raises(ValueError, match="requires y"):
        model.fit(shapes.data, None)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(shapes.data, shapes.target[:-1])
    with pytest.raises(ValueError, match="n_views"):
        clone(model).set_params(n_views=0).fit(shapes.data, shapes.target)
