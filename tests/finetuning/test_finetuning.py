"""FineTuneClassifier: the head and the top of the backbone trained together."""

import pickle
import signal
import sys
from types import FunctionType

import numpy as np
import pytest
import sklearn
import torch
from new_process import CONTEXT, run, start
from sklearn.base import clone
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch import nn
from torchvision.transforms import v2

from sktransfer import FineTuneClassifier, HeadClassifier, ImageEmbedder, make_transfer_pipeline
from sktransfer.backbones import Preprocessing, load_backbone, resolve_backbone
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import (
    FingerprintMismatchError,
    ImageReadError,
    TrainingDivergedError,
)
from sktransfer.finetuning import _fit as module

SHAPES = make_shapes(n_samples=40, random_state=0)
X, Y = SHAPES.data, SHAPES.target


def tiny_net():
    """A network of three stages that takes milliseconds, for tests of everything but accuracy."""
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, bias=False), nn.BatchNorm2d(12), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 10), nn.ReLU()),
    )
    network.preprocessing = Preprocessing(32, None)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
    return network


def tuner(**params):
    defaults = {
        "trainable_stages": 2,
        "max_epochs": 3,
        "cache": None,
        "random_state": 0,
        "lr": 0.01,
        "backbone_lr_factor": 0.1,
    }
    return FineTuneClassifier(tiny_net(), **{**defaults, **params})


def losses(model):
    return [row["train_loss"] for row in model.history_ if "train_loss" in row]


def state(model):
    return {
        **model.backbone_.upper.state_dict(),
        **{f"head.{k}": v for k, v in model.head_.net_.module_.state_dict().items()},
    }


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one | other)


# ------------------------------------------------------------------------------------ training


def test_nothing_unfrozen_is_the_frozen_pipeline():
    params = {"cache": None, "engine": "torch"}
    head = HeadClassifier(hidden_units=8, dropout=0.1, max_epochs=5, random_state=0)
    pipeline = make_transfer_pipeline("tiny_mobilenet", head, **params).fit(X, Y)
    head = clone(head).set_params(random_state=None)
    model = FineTuneClassifier(trainable_stages=0, head=head, random_state=0, **params).fit(X, Y)
    assert np.array_equal(model.predict_proba(X), pipeline.predict_proba(X))
    assert np.array_equal(model.transform(X), pipeline[0].transform(X))
    assert (model.n_epochs_, model.history_, model.backbone_) == (0, [], None)


def test_training_together_improves_on_the_frozen_backbone():
    frozen = tuner(trainable_stages=0).fit(X, Y)
    model = tuner(trainable_stages="all", max_epochs=15, backbone_lr_factor=1.0).fit(X, Y)
    assert losses(model)[-1] < 0.8 * losses(model)[0]
    proba, truth = model.predict_proba(X), np.searchsorted(model.classes_, Y)
    better = proba[np.arange(len(Y)), truth] > frozen.predict_proba(X)[np.arange(len(Y)), truth]
    assert better.mean() > 0.6


@pytest.mark.parametrize(("trainable_stages", "first_tuned"), [(1, 2), (2, 1), ("all", 0)])
def test_only_the_last_stages_change(trainable_stages, first_tuned):
    model = tuner(trainable_stages=trainable_stages).fit(X, Y)
    before = list(load_backbone(resolve_backbone(tiny_net())).parameters())
    after = list(model.backbone_.network().parameters())
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [stage >= first_tuned for stage in (0, 0, 1, 1, 1, 2, 2)]


def test_bundled_backbone_is_shared_and_stays_frozen():
    network = load_backbone(resolve_backbone("tiny_resnet"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    FineTuneClassifier(
        "tiny_resnet", image_size=32, trainable_stages=1, max_epochs=1, cache=None, engine="torch"
    ).fit(X, Y)
    assert same(before, network.state_dict())
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("update", [False, True])
def test_batch_norm_statistics_stay_unless_asked(update):
    model = tuner(trainable_stages=2, update_batch_norm=update).fit(X, Y)
    mean = next(m for m in model.backbone_.upper.modules() if isinstance(m, nn.BatchNorm2d))
    assert bool(mean.running_mean.any()) == update


def test_fits_are_equal_bit_by_bit():
    one, other = (tuner(augmentation="color", head=HeadClassifier(dropout=0.2)) for _ in "ab")
    state_before = torch.get_rng_state()
    assert same(state(one.fit(X, Y)), state(other.fit(X, Y)))
    assert torch.equal(torch.get_rng_state(), state_before)
    assert not same(state(one), state(tuner(augmentation="color", random_state=1).fit(X, Y)))


def test_learning_rates_differ_by_stage(monkeypatch):
    seen = {}
    original = module.tune

    def tune(model, loss, train, valid, settings, *args):
        from sktransfer.finetuning._training import parameter_groups

        seen["rates"] = [group["full_lr"] for group in parameter_groups(model, settings)]
        return original(model, loss, train, valid, settings, *args)

    monkeypatch.setattr(module, "tune", tune)
    tuner(trainable_stages="all", lr=0.1, backbone_lr_factor=0.1, layer_decay=0.5).fit(X, Y)
    assert sorted({round(rate, 6) for rate in seen["rates"]}, reverse=True) == [
        0.1,
        0.01,
        0.005,
        0.0025,
    ]


def test_class_weights_and_sample_weights_count():
    weights = {name: 0.01 for name in np.unique(Y)} | {"circle": 10.0}
    plain, weighted = tuner().fit(X, Y), tuner(class_weight=weights).fit(X, Y)
    share = [np.mean(m.predict(X) == "circle") for m in (plain, weighted)]
    assert share[1] > share[0]
    weight = np.where(Y == "circle", 10.0, 0.01)
    assert np.mean(tuner().fit(X, Y, sample_weight=weight).predict(X) == "circle") > share[0]


def test_images_of_weight_zero_are_left_out():
    weight = np.r_[np.ones(30), np.zeros(10)]
    one = tuner().fit(X, Y, sample_weight=weight)
    assert same(state(one), state(tuner().fit(X[:30], Y[:30])))


# ------------------------------------------------------------------- views and what is kept


@pytest.mark.parametrize("augmentation", [None, "crop", v2.RandomVerticalFlip()])
@pytest.mark.parametrize("trainable_stages", [1, 2])
def test_what_is_kept_changes_nothing(augmentation, trainable_stages):
    fitted = {}
    for limit in ("1GB", 40 * 4 * 3 * 32 * 32, 0):
        model = tuner(
            augmentation=augmentation, trainable_stages=trainable_stages, memory_limit=limit
        ).fit(X, Y)
        fitted[model.feature_cache_] = state(model)
    assert {"features", "nothing"} <= set(fitted)
    assert all(same(fitted["features"], other) for other in fitted.values())


def test_pixels_are_kept_where_outputs_do_not_fit():
    limit = 40 * 3 * 32 * 32  # less than 8 x 14 x 14 float32 for each
    assert tuner(memory_limit=limit).fit(X, Y).feature_cache_ == "pixels"
    assert tuner(trainable_stages="all", memory_limit="1GB").fit(X, Y).feature_cache_ == "pixels"


def test_memory_is_granted_once_to_training_and_validation(monkeypatch):
    made = []
    original = module.Views.__init__

    def remember(self, *args):
        original(self, *args)
        made.append(self)

    monkeypatch.setattr(module.Views, "__init__", remember)
    row = 8 * 14 * 14 * 4  # output of the frozen part; an image has 3 * 32 * 32 bytes
    for limit, kept in ((40 * row, ["features"] * 2), (36 * row, ["features", "pixels"])):
        tuner(early_stopping=True, validation_fraction=0.2, memory_limit=limit).fit(X, Y)
        assert [views.kept for views in made[-2:]] == kept
        assert sum(views.n_bytes for views in made[-2:]) <= limit


@pytest.mark.parametrize(
    ("params", "n_runs"),
    [
        ({}, 40),
        ({"augmentation": "crop", "n_views": 3}, 120),
        ({"augmentation": "flip", "n_views": 8}, 80),
        ({"memory_limit": 0}, 40 * 3),
    ],
)
def test_frozen_part_runs_once_for_each_view(monkeypatch, params, n_runs):
    count = []
    original = module.FrozenPart.run

    def run(self, images):
        count.append(len(images))
        return original(self, images)

    monkeypatch.setattr(module.FrozenPart, "run", run)
    monkeypatch.setattr(module.FrozenPart, "template", lambda self: torch.zeros(1, 8, 14, 14))
    tuner(max_epochs=3, **params).fit(X, Y)
    assert sum(count) == n_runs


def test_new_views_in_each_epoch():
    model = tuner(augmentation="crop", n_views=None).fit(X, Y)
    assert model.feature_cache_ == "nothing"
    assert len(set(losses(model))) == 3


def test_augmentation_without_unfrozen_stages_trains_the_head_on_views():
    model = tuner(trainable_stages=0, augmentation="crop").fit(X, Y)
    assert (model.n_epochs_, model.backbone_) == (3, None)
    assert not np.array_equal(
        model.predict_proba(X), tuner(trainable_stages=0).fit(X, Y).predict_proba(X)
    )


# ------------------------------------------------------------------ stopping and checkpoints


def test_early_stopping_restores_the_best_epoch():
    model = tuner(early_stopping=True, max_epochs=8, n_iter_no_change=2, lr=0.5,
                  validation_fraction=0.25).fit(X, Y)  # fmt: skip
    values = [row["valid_loss"] for row in model.history_]
    assert model.best_epoch_ == int(np.argmin(values))
    assert model.n_epochs_ == min(8, model.best_epoch_ + 2)
    assert model.history_[0].keys() == {"epoch", "valid_loss", "valid_accuracy"}


def test_useless_tuning_gives_the_frozen_backbone_back():
    params = {"early_stopping": True, "validation_fraction": 0.25, "lr": 5.0, "max_epochs": 2}
    model = tuner(**params, backbone_lr_factor=1.0).fit(X, Y)
    assert model.best_epoch_ == 0
    embedder = ImageEmbedder(tiny_net(), cache=None).fit(X)
    np.testing.assert_allclose(model.transform(X), embedder.transform(X), atol=1e-5)


class Killed(BaseException):
    """Ends a fit as a signal would."""


def killer(epoch):
    def kill(row):
        if row["epoch"] == epoch:
            raise Killed

    return kill


@pytest.mark.parametrize("random_state", [0, None])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_killed_fit_goes_on_where_it_was(tmp_path, random_state, early_stopping):
    params = {
        "max_epochs": 5,
        "augmentation": "crop",
        "head": HeadClassifier(dropout=0.2, max_epochs=5),
        "early_stopping": early_stopping,
        "validation_fraction": 0.25,
        "random_state": random_state,
    }
    params["checkpoint_dir"] = tmp_path
    with pytest.raises(Killed):
        tuner(callbacks=[killer(4)], **params).fit(X, Y)
    trained = []
    resumed = tuner(callbacks=[lambda row: trained.append(row["epoch"])], **params).fit(X, Y)
    assert trained == [4, 5]
    assert [row["epoch"] for row in resumed.history_ if row["epoch"]] == [1, 2, 3, 4, 5]
    if random_state == 0:
        params["checkpoint_dir"] = None
        assert same(state(resumed), state(tuner(**params).fit(X, Y)))


CHILD = """
import torch
torch.set_num_threads(n_threads)
from finetuning.test_finetuning import X, Y, tuner

def tell(row):
    told.send(row["epoch"])

tuner(callbacks=[tell], **params).fit(X, Y)
"""


def test_fit_that_the_system_kills_repeats_no_finished_epoch(tmp_path):
    params = {"max_epochs": 20, "augmentation": "flip", "checkpoint_dir": str(tmp_path)}
    told = 0
    for epoch in (2, 5):  # two kills, while the epoch's checkpoint is written or soon after
        reader, writer = CONTEXT.Pipe(duplex=False)
        child = start(CHILD, params=params, n_threads=torch.get_num_threads(), told=writer)
        writer.close()
        with reader:
            while told < epoch:
                told = reader.recv()
            child.kill()
            child.join(timeout=60)
        assert child.exitcode == -signal.SIGKILL
    trained = []
    resumed = tuner(callbacks=[lambda row: trained.append(row["epoch"])], **params).fit(X, Y)
    assert trained[0] >= told
    assert [row["epoch"] for row in resumed.history_] == list(range(1, 21))
    params["checkpoint_dir"] = None
    assert same(state(resumed), state(tuner(**params).fit(X, Y)))


def test_checkpoint_belongs_to_images_and_parameters(tmp_path):
    params = {"checkpoint_dir": tmp_path, "max_epochs": 2}
    for data, changes in ((X, {}), (X, {"lr": 0.02}), (X[::-1], {})):
        with pytest.raises(Killed):
            tuner(callbacks=[killer(2)], **params, **changes).fit(data, Y)
    assert len(list(tmp_path.iterdir())) == 3
    trained = []
    for _ in "ab":  # the second one finds a finished fit, and begins anew
        tuner(callbacks=[lambda row: trained.append(row["epoch"])], **params).fit(X, Y)
    assert trained == [2, 1, 2]


def linear(n_features, n_outputs):
    return nn.Linear(n_features, n_outputs)


def test_checkpoint_is_found_whatever_the_addresses_of_a_head(tmp_path, monkeypatch):
    def names(**params):
        head = HeadClassifier(module=linear, random_state=np.random.RandomState(0), **params)
        model = tuner(head=head.set_params(callbacks=[object()]), checkpoint_dir=tmp_path)
        return module.FineTuneFit(model, list(X), Y, np.ones(len(Y)), 0).checkpoint_path(
            [b"digest"]
        )

    first = names()
    monkeypatch.setattr(sys.modules[__name__], "linear", copy_of(linear))
    assert names() == first
    assert names(lr=0.5) != first


def copy_of(function):
    """The same function at another address, as in another process."""
    return FunctionType(function.__code__, function.__globals__, function.__name__)


# ------------------------------------------------------------------- a scikit-learn estimator


def test_predictions_are_consistent():
    model = tuner().fit(X, Y)
    proba, logits = model.predict_proba(X), model.decision_function(X)
    assert np.array_equal(model.predict(X), model.classes_[proba.argmax(axis=1)])
    np.testing.assert_allclose(torch.softmax(torch.tensor(logits), 1), proba, atol=1e-6)
    np.testing.assert_allclose(model.head_.predict_proba(model.transform(X)), proba, atol=1e-6)
    assert set(model.classes_) == set(Y)


def test_predictions_are_those_of_the_network():
    model = tuner(trainable_stages=2).fit(X, Y)
    embedder = ImageEmbedder(tiny_net(), cache=None).fit(X)
    whole = model.backbone_.network()
    whole.preprocessing = embedder.preprocessing_
    expected = ImageEmbedder(whole, cache=None).fit(X).transform(X)
    np.testing.assert_allclose(model.transform(X), expected, atol=1e-5)


def test_two_classes():
    y = Y == "circle"
    model = tuner().fit(X, y)
    assert model.decision_function(X).shape == (40,)
    assert np.array_equal(model.predict(X), model.decision_function(X) > 0)


def test_transformer():
    model = tuner().fit(X, Y)
    names = model.get_feature_names_out()
    assert model.transform(X).shape == (40, 10) and model.transform(X).dtype == np.float32
    assert names[0] == "Sequential_tuned_0" and len(names) == 10
    frame = model.set_output(transform="pandas").transform(X)
    assert list(frame.columns) == list(names)
    assert np.array_equal(model.predict(X), tuner().fit(X, Y).predict(X))


def test_clone_and_parameters():
    model = tuner(head=HeadClassifier(dropout=0.1))
    copy = clone(model).set_params(head__dropout=0.3, trainable_stages="all")
    assert (copy.head.dropout, model.head.dropout) == (0.3, 0.1)
    model.fit(X, Y)
    assert not hasattr(model.head, "net_")


TRANSFORMS = [v2.RandomRotation(10), v2.ColorJitter(0.2), v2.RandomResizedCrop(32)]


@pytest.mark.parametrize(
    "augmentation", TRANSFORMS, ids=lambda augmentation: type(augmentation).__name__
)
def test_transforms_with_a_get_params_of_their_own(augmentation):
    model = tuner(
        augmentation=augmentation, n_views=2, head=HeadClassifier(max_epochs=5), max_epochs=1
    )
    copy = clone(model)
    assert repr(augmentation) in repr(copy)
    assert copy._repr_html_()
    assert copy.augmentation is not augmentation
    assert copy.get_params()["head__max_epochs"] == 5
    assert copy.set_params(head__max_epochs=6, augmentation=None).augmentation is None
    assert model.augmentation is augmentation
    assert np.isfinite(cross_val_score(model, X, Y, cv=2)).all()


def test_grid_search():
    grid = {"trainable_stages": [0, 1], "augmentation": [None, "flip"], "lr": [0.01]}
    search = GridSearchCV(tuner(max_epochs=1), grid, cv=2, error_score="raise").fit(X, Y)
    assert search.best_estimator_.predict(X[:2]).shape == (2,)


@pytest.mark.slow
def test_workers_find_what_one_process_finds():
    estimator = FineTuneClassifier(
        "tiny_mobilenet", image_size=32, max_epochs=1, engine="torch", random_state=0
    )
    one, two = (cross_val_score(estimator, X, Y, cv=2, n_jobs=n) for n in (1, 2))
    np.testing.assert_allclose(one, two, atol=0.051)  # other numbers of threads round otherwise


def test_stacked_beside_a_frozen_branch():
    params = {"image_size": 32, "engine": "torch"}
    branches = [
        ("frozen", make_transfer_pipeline("tiny_resnet", **params)),
        ("tuned", FineTuneClassifier(max_epochs=1, random_state=0, **params)),
    ]
    scores = cross_val_score(StackingClassifier(branches, cv=2), X, Y, cv=2, error_score="raise")
    assert scores.mean() > 0.5


@pytest.mark.parametrize("shape", ["paths", "column", "list of arrays"])
def test_kinds_of_input(tmp_path, shape):
    from PIL import Image

    images = list(X)
    if shape != "list of arrays":
        images = [str(tmp_path / f"{i}.png") for i in range(len(X))]
        for path, image in zip(images, X, strict=True):
            Image.fromarray(image).save(path)
    if shape == "column":
        images = np.array(images, dtype=object)[:, None]
    model = tuner().fit(images, Y)
    np.testing.assert_allclose(
        model.predict_proba(images), tuner().fit(X, Y).predict_proba(X), atol=1e-4
    )


# ------------------------------------------------------------------------------------ pickles


def bundled(**params):
    defaults = {"image_size": 32, "max_epochs": 1, "engine": "torch", "random_state": 0}
    return FineTuneClassifier("tiny_resnet", **{**defaults, **params})


def test_pickle_holds_the_tuned_part_only():
    model = bundled(trainable_stages=1).fit(X, Y)
    data = pickle.dumps(model)
    tuned = sum(p.numel() * 4 for p in model.backbone_.upper.parameters())
    assert tuned < len(data) < tuned + 200_000
    model.predict(X)  # makes a network ready to run, which must not travel
    assert len(pickle.dumps(model)) < len(data) + 1_000
    assert np.array_equal(pickle.loads(data).predict_proba(X), model.predict_proba(X))


@pytest.mark.slow
def test_pickle_predicts_the_same_in_a_new_process(tmp_path):
    model = bundled().fit(X, Y)
    with open(tmp_path / "model.pkl", "wb") as file:
        pickle.dump(model, file)
    np.save(tmp_path / "X.npy", X)
    program = """
import pickle, warnings
import numpy as np
warnings.simplefilter("error")
with open(folder / "model.pkl", "rb") as file:
    model = pickle.load(file)
np.save(folder / "proba.npy", model.predict_proba(np.load(folder / "X.npy")))
"""
    run(program, folder=tmp_path)
    assert np.array_equal(np.load(tmp_path / "proba.npy"), model.predict_proba(X))


def test_other_weights_below_are_refused(monkeypatch):
    model = bundled().fit(X, Y)
    loaded = pickle.loads(pickle.dumps(model))
    object.__setattr__(loaded.backbone_.spec, "fingerprint", "other")
    with pytest.raises(FingerprintMismatchError, match="not those"):
        loaded.predict(X)


# ------------------------------------------------------------------------------------- errors


def test_loss_gone_to_nan_names_the_learning_rates():
    with pytest.raises(TrainingDivergedError, match=r"lr=1e\+20 for the head and 1e\+19"):
        tuner(lr=1e20, max_epochs=5).fit(X, Y)


def test_too_many_stages():
    with pytest.raises(ValueError, match=r"trainable_stages=9 asks for more stages .* has: 3"):
        tuner(trainable_stages=9).fit(X, Y)


def test_unreadable_images_are_all_named_before_training():
    images = [*X]
    images[3], images[7] = b"no image", "missing.jpg"
    seen = []
    with pytest.raises(ImageReadError) as caught:
        tuner(callbacks=[seen.append]).fit(images, Y)
    assert [error.index for error in caught.value.errors] == [3, 7]
    assert seen == []


@pytest.mark.parametrize("trainable_stages", [0, 1])
def test_unreadable_images_come_with_advice_that_can_be_followed(trainable_stages):
    images = ["missing.jpg", *X[1:]]
    model = tuner(trainable_stages=trainable_stages, max_epochs=1).fit(X, Y)
    for attempt in (model.predict, lambda images: clone(model).fit(images, Y)):
        with pytest.raises(ImageReadError, match=r"missing\.jpg") as caught:
            attempt(images)
        message = str(pickle.loads(pickle.dumps(caught.value)))
        assert "Hint: remove or replace these images: FineTuneClassifier needs" in message
        assert "on_error" not in message
        assert "embedded" not in message


def test_single_class():
    with pytest.raises(ValueError, match="at least two classes"):
        tuner().fit(X, np.zeros(len(X)))


def test_too_few_images_to_validate():
    with pytest.raises(ValueError, match="too few for a validation share"):
        tuner(early_stopping=True).fit(X[:8], Y[:8])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"augmentation": "flop"}, "did you mean 'flip'"),
        ({"trainable_stages": -1}, "trainable_stages"),
        ({"memory_limit": "much"}, "not a size"),
        ({"lr": 0.0}, "lr"),
    ],
)
def test_wrong_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        tuner(**params).fit(X, Y)


def test_several_labels_a_image():
    with pytest.raises(ValueError, match="one class for each image"):
        tuner().fit(X, np.ones((len(X), 2)))


def test_equal_images_stay_on_one_side():
    doubled, labels = np.concatenate([X, X]), np.concatenate([Y, Y])
    model = tuner(early_stopping=True, validation_fraction=0.25)
    digests = [bytes([i % 40]) * 20 for i in range(80)]
    fit = module.FineTuneFit(model, list(doubled), labels, np.ones(80), 0)
    train, valid = fit.split(digests)
    assert len(train) + len(valid) == len(doubled)
    assert not set(train % 40) & set(valid % 40)


def test_a_share_that_would_leave_a_class_out_is_refused():
    labels = np.array(["a"] * 3 + ["b"] * 19 + ["c"] * 18)
    model = tuner(early_stopping=True, validation_fraction=0.85)
    with pytest.raises(ValueError, match=r"3 classes on both sides.*another validation_fraction"):
        model.fit(X, labels)


def test_balanced_classes_count_alike_in_both_trainings(monkeypatch):
    weight = np.where(Y == "circle", 9.0, 1.0)
    seen = []
    original = module.tune

    def tune(model, loss, train, *args):
        seen.append(train)
        return original(model, loss, train, *args)

    monkeypatch.setattr(module, "tune", tune)
    tuner(class_weight="balanced").fit(X, Y, sample_weight=weight)
    totals = np.bincount(seen[0].y.numpy(), seen[0].weight.numpy())
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5)


class Residual(nn.Module):
    """A network that cannot be cut in two, since it is more than one step after the other."""

    def __init__(self):
        super().__init__()
        self.below = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.Dropout(0.5))
        self.above = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.preprocessing = Preprocessing(32, None)

    def forward(self, images):
        below = self.below(images)
        return self.pool(below + self.above(below))


def test_stages_below_learn_nothing_where_a_network_cannot_be_cut():
    network = Residual()
    model = FineTuneClassifier(
        network,
        trainable_stages=1,
        update_batch_norm=True,
        max_epochs=2,
        cache=None,
        random_state=0,
    ).fit(X, Y)
    tuned = model.backbone_.network()
    assert same(tuned.below.state_dict(), network.below.state_dict())
    assert not same(tuned.above.state_dict(), network.above.state_dict())
    upper = module.Tuned(tuned, nn.Identity())
    tuned.above.requires_grad_(True)
    upper.set_training(update_batch_norm=True)
    assert upper.upper.above[1].training and not upper.upper.below[2].training


def test_a_fit_that_fails_leaves_the_one_before():
    model = tuner().fit(X, Y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="validation_fraction"):
        model.set_params(early_stopping=True, validation_fraction=0.01).fit(X, Y)
    with pytest.raises(TrainingDivergedError):
        model.set_params(early_stopping=False, lr=1e30).fit(X, Y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "transform"])
def test_not_fitted(method):
    with pytest.raises(NotFittedError):
        getattr(FineTuneClassifier(), method)(X)


@pytest.mark.parametrize("trainable_stages", [0, 1])
def test_frames_that_scikit_learn_is_told_to_give(trainable_stages):
    pytest.importorskip("pandas")
    with sklearn.config_context(transform_output="pandas"):
        model = tuner(trainable_stages=trainable_stages).fit(X, Y)
        framed = model.predict_proba(X)
        assert list(model.transform(X[:2]).columns) == list(model.get_feature_names_out())
    np.testing.assert_array_equal(
        framed, tuner(trainable_stages=trainable_stages).fit(X, Y).predict_proba(X)
    )


def test_without_classes():
    with pytest.raises(ValueError, match="requires y to be passed"):
        tuner().fit(X, None)


def test_a_memory_limit_is_read_before_anything_is_trained(monkeypatch):
    monkeypatch.setattr(module.FineTuneFit, "run", None)
    with pytest.raises(ValueError, match="lots"):
        tuner(memory_limit="lots").fit(X, Y)


def test_a_class_without_weight_is_known_and_not_learned():
    weight = np.where(Y == "triangle", 0.0, 1.0)  # the last one
    model = tuner().fit(X, Y, sample_weight=weight)
    assert model.classes_.tolist() == np.unique(Y).tolist()
    assert "triangle" not in model.predict(X)


def test_progress(capsys):
    tuner(verbose=2).fit(X, Y)
    assert capsys.readouterr().out.count("train_loss") == 3
