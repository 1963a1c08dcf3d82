"""FineTuneClassifier: training, views, the cache of features, stopping, checkpoints."""

import shutil
import signal
import sys
from types import FunctionType

import numpy as np
import pytest
import torch
from new_process import CONTEXT, start
from sklearn.base import clone
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler
from torch import nn
from torchvision.transforms import v2
from tuners import X, Y, same, state, tiny_net, tuner

from sktransfer import FineTuneClassifier, HeadClassifier, ImageEmbedder, make_transfer_pipeline
from sktransfer._engine import _embedding
from sktransfer.backbones import Preprocessing, load_backbone, resolve_backbone
from sktransfer.finetuning import _features, _fit, _fraction
from sktransfer.finetuning._features import FeatureDataset
from sktransfer.finetuning._fraction import choose_fraction
from sktransfer.images import digest_images

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::sktransfer.exceptions.SmallValidationWarning"),
]


def losses(model):
    return [row["train_loss"] for row in model.history_ if "train_loss" in row]


class Epochs(Callback):
    """Note each epoch, and call a function with it."""

    def __init__(self, function=lambda epoch: None):
        self.function, self.seen = function, []

    def on_epoch_end(self, net, **kwargs):
        self.seen.append(net.history[-1, "epoch"])
        self.function(self.seen[-1])


# Training


@pytest.mark.parametrize("nothing", [{"trainable_stages": 0}, {"tuned_fraction": 0}])
def test_nothing_trainable_is_the_frozen_pipeline(nothing):
    params = {"cache": None, "engine": "torch"}
    head = HeadClassifier(hidden_units=8, dropout=0.1, max_epochs=5, random_state=0)
    pipeline = make_transfer_pipeline("tiny_mobilenet", head, **params).fit(X, Y)
    head = clone(head).set_params(random_state=None)
    model = FineTuneClassifier(head=head, random_state=0, **nothing, **params).fit(X, Y)
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


def test_final_weights_are_an_average():
    before, mixed, after = (
        state(tuner(tuned_fraction=fraction).fit(X, Y)) for fraction in (1e-6, 0.25, 1)
    )
    assert not same(before, after)
    for name, value in mixed.items():
        expected = 0.75 * before[name].double() + 0.25 * after[name].double()
        torch.testing.assert_close(value.double(), expected, rtol=1e-3, atol=1e-5)


def trial_parts(y, strata):
    """The images that the trials of a fit with seed 0 train on, and those that they hold out."""
    groups = np.array(digest_images(X), dtype="S20")
    seed = np.random.RandomState(0).randint(2**31 - 1)
    return [
        ([X[i] for i in part], y[part], [X[i] for i in held_out], y[held_out])
        for part, held_out in _fraction.trial_parts(groups, strata, seed)
    ]


def test_every_image_is_held_out_once_and_every_class_is_everywhere():
    groups = np.repeat(np.arange(11), 3)
    strata = 2 * (groups < 4)  # no image of class 1 has a weight
    parts = list(_fraction.trial_parts(groups, strata, 0))
    assert sorted(np.concatenate([held_out for _, held_out in parts])) == list(range(33))
    for part, held_out in parts:
        assert sorted(np.concatenate([part, held_out])) == list(range(33))
        assert not np.isin(groups[part], groups[held_out]).any()
        assert set(strata[part]) == set(strata[held_out]) == {0, 2}
    assert list(_fraction.trial_parts(groups, (groups < 2).astype(int), 0)) == []
    strata[groups >= 9] = 5  # rare
    for part, held_out in _fraction.trial_parts(groups, strata, 0):
        assert set(strata[part]) == {0, 2, 5} and set(strata[held_out]) == {0, 2}
    assert len(list(_fraction.trial_parts(groups, None, 0))) == 3


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("enough", [500, 20])
def test_fraction_is_chosen_by_images_held_out_then_all_images_are_learned(
    monkeypatch, several, enough
):
    monkeypatch.setattr(_fraction, "ENOUGH_IMAGES", enough)
    # Forty images prove little: the frozen backbone would be kept.
    monkeypatch.setattr(_fraction, "FRACTIONS", (0.25, 1.0))
    y, strata = Y, np.unique(Y, return_inverse=True)[1]
    if several:
        y, strata = np.stack([name == Y for name in np.unique(Y)], axis=1).astype(int), None
    params = {"backbone_lr_factor": 1.0, "max_epochs": 6}
    model = tuner(tuned_fraction="auto", **params).fit(X, y)
    parts = trial_parts(y, strata)[: 3 if enough == 500 else 2]

    def accuracy(**changes):
        right = []
        for images, labels, held_out, expected in parts:
            tried = tuner(**params, **changes).fit(images, labels)
            right.append(np.reshape(tried.predict(held_out) == expected, (len(held_out), -1)))
        return np.concatenate(right).mean()

    for fraction, score in model.fraction_scores_.items():
        assert score == pytest.approx(accuracy(tuned_fraction=fraction))
    chosen = model.tuned_fraction_
    assert same(state(model), state(tuner(tuned_fraction=chosen, **params).fit(X, y)))


def test_a_training_that_gains_nothing_leaves_the_frozen_pipeline():
    y = np.repeat(["dark", "bright"], 10)
    images = [np.full((32, 32, 3), 200 * (name == "bright") + i) for i, name in enumerate(y)]
    images = [image.astype(np.uint8) for image in images]
    model = tuner(tuned_fraction="auto").fit(images, y)
    assert model.fraction_scores_[0.0] == 1
    assert (model.tuned_fraction_, model.backbone_, model.best_epoch_) == (0, None, 0)
    assert model.n_epochs_ == len(model.history_) == 3
    frozen = tuner(trainable_stages=0).fit(images, y)
    assert np.array_equal(model.predict_proba(X), frozen.predict_proba(X))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_fraction_is_chosen_by_validation_images_that_are_given(early_stopping):
    train, valid = slice(0, 26), slice(26, 40)
    given = {"X_val": X[valid], "y_val": Y[valid]}
    params = {"early_stopping": early_stopping, "backbone_lr_factor": 1.0, "max_epochs": 6}
    model = tuner(tuned_fraction="auto", **params).fit(X[train], Y[train], **given)
    for fraction in (0.25, 1.0):
        other = tuner(tuned_fraction=fraction, **params).fit(X[train], Y[train], **given)
        assert model.fraction_scores_[fraction] == other.score(X[valid], Y[valid])
    assert model.score(X[valid], Y[valid]) == model.fraction_scores_[model.tuned_fraction_]


@pytest.mark.parametrize(
    ("n_gained", "n_lost", "n_errors", "chosen"),
    [(9, 5, 2, 0.0), (9, 5, 0, 0.5), (9, 1, 2, 0.5), (5, 0, 2, 0.5), (2, 6, 0, 0.0), (3, 3, 0, 0)],
)
def test_a_training_must_gain_more_than_standard_errors(n_gained, n_lost, n_errors, chosen):
    right = np.zeros((5, 40))
    right[0, n_gained : n_gained + 20] = right[1, :5] = True
    right[2, : n_gained + 20 - n_lost] = True
    fraction, scores = choose_fraction(right, np.full(40, 0.5), n_errors)
    assert fraction == chosen
    assert scores[0.0] == 0.5 and scores[0.5] == (n_gained + 20 - n_lost) / 40


def test_images_are_judged_by_their_weights():
    right = np.zeros((5, 40))
    right[0, :20] = right[4, 20:] = True
    for factor, chosen in ((9.0, 1.0), (1.0, 0.0), (1 / 9, 0.0)):
        weight = np.repeat([1.0, factor], 20)
        fraction, scores = choose_fraction(right, weight, 2)
        assert fraction == chosen and scores[1.0] == pytest.approx(factor / (1 + factor))


def test_labels_are_smoothed_in_both_trainings_unless_the_head_says_otherwise():
    found = {}
    for name, params in {
        "none": {},
        "ours": {"label_smoothing": 0.3},
        "of the head": {"label_smoothing": 0.1, "head": HeadClassifier(label_smoothing=0.3)},
        "frozen": {"label_smoothing": 0.3, "trainable_stages": 0},
    }.items():
        model = tuner(early_stopping=True, validation_fraction=0.3, **params).fit(X, Y)
        found[name] = model.head_.label_smoothing, model.history_
    assert [smoothing for smoothing, _ in found.values()] == [0.0, 0.3, 0.3, 0.0]
    ours, head = (found[name][1] for name in ("ours", "of the head"))
    assert [row["valid_loss"] for row in ours] == [row["valid_loss"] for row in head]
    assert ours[0]["valid_loss"] != found["none"][1][0]["valid_loss"]
    assert ours[1]["train_loss"] > found["none"][1][1]["train_loss"]


def test_trials_do_without_rare_classes_but_not_without_common_ones():
    model = tuner(tuned_fraction="auto").fit(X, ["rare", "rare", *Y[2:]])
    assert model.fraction_scores_ is not None
    model = tuner(tuned_fraction="auto").fit(X[:4], ["rare", "rare", "few", "few"])
    assert model.tuned_fraction_ == 0.5 and model.fraction_scores_ is None


class Groups(Callback):
    """Note the parameter groups of the optimizer and the learning rate of each step."""

    def on_train_begin(self, net, **kwargs):
        self.groups, self.rates = net.optimizer_.param_groups, []

    def on_grad_computed(self, net, *args, **kwargs):
        self.rates.append(net.optimizer_.param_groups[0]["lr"])


def test_learning_rates_differ_by_stage_and_biases_are_not_decayed():
    spy = Groups()
    params = {"lr": 0.1, "backbone_lr_factor": 0.1, "layer_decay": 0.5, "callbacks": [spy]}
    tuner(trainable_stages="all", weight_decay=0.3, **params).fit(X, Y)
    rates = {round(group["initial_lr"], 6) for group in spy.groups}
    assert rates == {0.1, 0.01, 0.005, 0.0025}
    assert spy.groups[0]["initial_lr"] == 0.1
    for group in spy.groups:
        assert all((p.ndim > 1) == (group["weight_decay"] == 0.3) for p in group["params"])


@pytest.mark.parametrize("n_samples", [40, 33])
def test_learning_rate_reaches_its_peak_and_zero(n_samples):
    spy = Groups()
    model = tuner(max_epochs=10, batch_size=16, lr=0.01, callbacks=[spy])
    model.fit(X[:n_samples], Y[:n_samples])
    n_steps = 10 * (3 if n_samples == 40 else 2)  # a last batch of one joins the one before
    assert len(spy.rates) == n_steps
    assert max(spy.rates) == pytest.approx(0.01)
    assert spy.groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    assert model.history_[0]["lr"] == spy.rates[0]


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


def test_a_class_without_weight_is_known_and_not_learned():
    weight = np.where(Y == "triangle", 0.0, 1.0)  # the last one
    model = tuner().fit(X, Y, sample_weight=weight)
    assert model.classes_.tolist() == np.unique(Y).tolist()
    assert "triangle" not in model.predict(X)


def test_balanced_classes_count_alike_in_both_trainings():
    weight = np.where(np.arange(40) % 3, 9.0, 1.0)

    class Spy(Callback):
        def on_epoch_begin(self, net, dataset_train=None, **kwargs):
            self.data = dataset_train

    spy = Spy()
    tuner(class_weight="balanced", callbacks=[spy]).fit(X, Y, sample_weight=weight)
    totals = np.bincount(spy.data.y.numpy(), spy.data.weight.numpy())
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5)


class Residual(nn.Module):
    """A network that cannot be split, since it is more than one step after the other."""

    def __init__(self):
        super().__init__()
        self.below = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.Dropout(0.5))
        self.above = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.preprocessing = Preprocessing(32, None)

    def forward(self, images):
        below = self.below(images)
        return self.pool(below + self.above(below))


def test_stages_below_learn_nothing_where_a_network_cannot_be_split():
    network = Residual()
    model = FineTuneClassifier(
        network,
        trainable_stages=1,
        update_batch_norm=True,
        tuned_fraction=1,
        max_epochs=2,
        cache=None,
        random_state=0,
    ).fit(X, Y)
    tuned = model.backbone_.network()
    assert model.feature_cache_ == "pixels"
    assert same(tuned.below.state_dict(), network.below.state_dict())
    assert not same(tuned.above.state_dict(), network.above.state_dict())
    part = _features.TrainedPart(tuned, nn.Identity(), network.preprocessing, True)
    tuned.above.requires_grad_(True)
    part.train()
    assert part.upper.above[1].training and not part.upper.below[2].training


# Views and the cache of features


@pytest.mark.parametrize("augmentation", [None, "crop", v2.RandomVerticalFlip()])
@pytest.mark.parametrize("trainable_stages", [1, 2, "all"])
def test_what_is_kept_changes_nothing(augmentation, trainable_stages):
    fitted = {}
    for limit in ("1GB", 0):
        model = tuner(
            augmentation=augmentation, trainable_stages=trainable_stages, memory_limit=limit
        ).fit(X, Y)
        fitted[model.feature_cache_] = state(model)
    assert set(fitted) == {"pixels" if trainable_stages == "all" else "features", "nothing"}
    one, other = fitted.values()
    assert same(one, other)


def test_memory_is_granted_once_to_training_and_validation():
    class Spy(Callback):
        def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
            self.data = dataset_train, dataset_valid

    spy, row = Spy(), 8 * 14 * 14 * 4  # output of the frozen part
    for limit, kept in ((40 * row, [True, True]), (36 * row, [True, False])):
        params = {"early_stopping": True, "validation_fraction": 0.2, "callbacks": [spy]}
        tuner(memory_limit=limit, **params).fit(X, Y)
        assert [data.rows is not None for data in spy.data] == kept
        assert sum(data.n_bytes for data in spy.data) <= limit


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
    original = _features.embed_images

    def embed_images(images, network, *, views=None, numbers=None, **kwargs):
        n_views = 1 if views is None else len(views) if numbers is None else numbers.shape[1]
        count.append(len(images) * n_views)
        return original(images, network, views=views, numbers=numbers, **kwargs)

    monkeypatch.setattr(_features, "embed_images", embed_images)
    tuner(max_epochs=3, **params).fit(X, Y)
    assert sum(count) == n_runs


@pytest.mark.parametrize("params", [{"memory_limit": 0}, {"augmentation": "crop", "n_views": None}])
def test_images_are_digested_once_though_nothing_is_kept(monkeypatch, params):
    count = []
    for module in (_fit, _embedding):
        original = module.digest_images

        def digest_images(images, *args, original=original, **options):
            count.append(len(images))
            return original(images, *args, **options)

        monkeypatch.setattr(module, "digest_images", digest_images)
    tuner(max_epochs=3, **params).fit(X, Y)
    assert sum(count) == 80  # for the embedder, and for the training


def test_new_views_in_each_epoch():
    model = tuner(augmentation="crop", n_views=None).fit(X, Y)
    assert model.feature_cache_ == "nothing"
    assert len(set(losses(model))) == 3


# Validation and early stopping


def test_early_stopping_restores_the_best_epoch():
    model = tuner(early_stopping=True, max_epochs=8, n_iter_no_change=2, lr=0.5,
                  validation_fraction=0.25).fit(X, Y)  # fmt: skip
    values = [row["valid_loss"] for row in model.history_]
    assert model.best_epoch_ == int(np.argmin(values))
    assert model.n_epochs_ == min(8, model.best_epoch_ + 2)


def test_useless_tuning_gives_the_frozen_backbone_back():
    params = {"early_stopping": True, "validation_fraction": 0.25, "lr": 5.0, "max_epochs": 2}
    model = tuner(**params, backbone_lr_factor=1.0).fit(X, Y)
    assert model.best_epoch_ == 0
    embedder = ImageEmbedder(tiny_net(), cache=None).fit(X)
    np.testing.assert_allclose(model.transform(X), embedder.transform(X), atol=1e-5)


def test_the_history_has_the_form_of_a_heads():
    model = tuner(scoring="f1_macro").fit(X[:30], Y[:30], X_val=X[30:], y_val=Y[30:])
    valid = {"valid_loss", "valid_accuracy", "valid_f1_macro"}
    assert set(model.history_[0]) == {"epoch", "seconds", *valid}
    assert set(model.history_[1]) == {
        "epoch", "lr", "seconds", "train_loss", "train_accuracy", *valid
    }  # fmt: skip
    assert [row["epoch"] for row in model.history_] == [0, 1, 2, 3]
    assert model.best_epoch_ == model.n_epochs_ == 3
    assert model.history_[-1]["valid_accuracy"] == pytest.approx(model.score(X[30:], Y[30:]))
    assert set(tuner().fit(X, Y).history_[0]) == {"epoch", "lr", "seconds", "train_loss"}


def test_early_stopping_on_a_named_metric():
    params = {"early_stopping": True, "scoring": "balanced_accuracy", "n_iter_no_change": 2}
    model = tuner(**params, tol=0, max_epochs=6).fit(X[:30], Y[:30], X_val=X[30:], y_val=Y[30:])
    scores = [row["valid_balanced_accuracy"] for row in model.history_]
    assert model.best_epoch_ == int(np.argmax(scores))


def test_callbacks_of_skorch():
    train_f1 = EpochScoring("f1_macro", on_train=True, name="train_f1", lower_is_better=False)
    model = tuner(callbacks=[train_f1]).fit(X, Y)
    assert all(0 <= row["train_f1"] <= 1 for row in model.history_)


def test_equal_images_stay_on_one_side():
    class Spy(Callback):
        def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
            self.sides = [
                {image.tobytes() for image in data.images}
                for data in (dataset_train, dataset_valid)
            ]

    spy = Spy()
    doubled, labels = np.concatenate([X, X]), np.concatenate([Y, Y])
    tuner(early_stopping=True, validation_fraction=0.25, callbacks=[spy]).fit(doubled, labels)
    train, valid = spy.sides
    assert train and valid and not train & valid


# Checkpoints


class Killed(BaseException):
    """Ends a fit as a signal would."""


def killer(epoch):
    def kill(number):
        if number == epoch:
            raise Killed

    return Epochs(kill)


@pytest.mark.parametrize("random_state", [0, None, np.random.RandomState(0)])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_killed_fit_resumes(tmp_path, random_state, early_stopping):
    params = {
        "max_epochs": 5,
        "augmentation": "crop",
        "head": HeadClassifier(dropout=0.2, max_epochs=5),
        "early_stopping": early_stopping,
        "validation_fraction": 0.25,
        "scoring": "f1_macro" if early_stopping else "loss",
        "random_state": random_state,
        "tuned_fraction": 0.5,
    }
    params["checkpoint_dir"] = tmp_path / "one"
    with pytest.raises(Killed):
        tuner(callbacks=[killer(4)], **params).fit(X, Y)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    epochs = Epochs()
    resumed = tuner(callbacks=[epochs], **params).fit(X, Y)
    assert epochs.seen == [4, 5]
    assert [row["epoch"] for row in resumed.history_ if row["epoch"]] == [1, 2, 3, 4, 5]
    if isinstance(random_state, int):
        params["checkpoint_dir"] = None
        whole = tuner(**params).fit(X, Y)
        assert same(state(resumed), state(whole))
        assert losses(resumed) == losses(whole) and resumed.best_epoch_ == whole.best_epoch_
    params["checkpoint_dir"] = tmp_path / "other"
    assert same(state(resumed), state(tuner(**params).fit(X, Y)))


CHILD = """
import time
import torch
torch.set_num_threads(n_threads)
from finetuning.test_training import Epochs
from tuners import X, Y, tuner

def tell(epoch):
    told.send(epoch)
    if epoch == last:
        time.sleep(60)  # the kill comes before

tuner(callbacks=[Epochs(tell)], **params).fit(X, Y)
"""


def note_epochs(monkeypatch, killed_in, error=Killed):
    """Return a list that gets the number of each epoch; raise an error when one begins."""
    started, original = [], FeatureDataset.start_epoch

    def start_epoch(self, epoch):
        started.append(epoch)
        if len(started) == killed_in:
            raise error
        original(self, epoch)

    monkeypatch.setattr(FeatureDataset, "start_epoch", start_epoch)
    return started


@pytest.mark.parametrize("random_state", [0, None])
@pytest.mark.parametrize("n_done", [4, 11])  # epochs of trials of 3 epochs, and after them
def test_killed_fit_resumes_its_trials(tmp_path, monkeypatch, n_done, random_state):
    params = {"max_epochs": 3, "augmentation": "crop", "random_state": random_state}
    params |= {"tuned_fraction": "auto", "backbone_lr_factor": 1.0, "checkpoint_dir": tmp_path}
    monkeypatch.setattr(_fraction, "FRACTIONS", (0.5, 1.0))  # or the trials may be all
    started = note_epochs(monkeypatch, killed_in=n_done + 1)
    with pytest.raises(Killed):
        tuner(**params).fit(X, Y)
    shutil.copytree(tmp_path, tmp_path / "copy")
    resumed = tuner(**params).fit(X, Y)
    assert len(started) == 4 * 3 + 1
    assert [path.suffixes for path in tmp_path.glob("*.pt")] == [[".pt"]]
    params["checkpoint_dir"] = tmp_path / "copy" if random_state is None else None
    assert same(state(resumed), state(tuner(**params).fit(X, Y)))


def test_trials_of_another_fit_are_not_resumed(tmp_path, monkeypatch):
    params = {"max_epochs": 3, "random_state": None, "checkpoint_dir": tmp_path}
    started = note_epochs(monkeypatch, killed_in=6)
    with pytest.raises(Killed):
        tuner(tuned_fraction="auto", **params).fit(X, Y)
    (first,) = tmp_path.glob("*.trial1.pt")
    first.unlink()
    tuner(tuned_fraction="auto", **params).fit(X, Y)
    assert started[6:12] == [1, 2, 3, 1, 2, 3]


def test_ctrl_c_in_a_trial_ends_the_fit(tmp_path, monkeypatch):
    started = note_epochs(monkeypatch, killed_in=3, error=KeyboardInterrupt)
    params = {"max_epochs": 4, "backbone_lr_factor": 1.0, "checkpoint_dir": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        tuner(tuned_fraction="auto", **params).fit(X, Y)
    assert started == [1, 2, 3]
    tuner(tuned_fraction="auto", **params).fit(X, Y)
    assert started[:5] == [1, 2, 3, 3, 4] and len(started) >= 3 + 2 + 2 * 4


class CtrlC(Callback):
    """Interrupt the first or a later epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_end(self, net, **kwargs):
        if net.history[-1, "epoch"] == self.epoch:
            raise KeyboardInterrupt


def test_ctrl_c_in_the_first_training_ends_the_fit():
    model = tuner(head=HeadClassifier(callbacks=[CtrlC(2)]))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)


def test_a_head_may_stop_early():
    stop = EarlyStopping(monitor="train_loss", patience=1, threshold=10)
    model = tuner(head=HeadClassifier(callbacks=[stop])).fit(X, Y)
    assert model.head_.n_epochs_ == 2 and model.n_epochs_ == 3


def test_ctrl_c_before_the_end_of_an_epoch_leaves_the_frozen_pipeline():
    with pytest.warns(UserWarning, match="has the weights of epoch 0 of"):
        model = tuner(callbacks=[CtrlC(1)]).fit(X, Y)
    assert (model.tuned_fraction_, model.backbone_, model.n_epochs_) == (0, None, 0)
    frozen = tuner(trainable_stages=0).fit(X, Y)
    assert np.array_equal(model.predict_proba(X), frozen.predict_proba(X))


def test_fit_that_the_system_kills_repeats_no_finished_epoch(tmp_path):
    params = {"max_epochs": 20, "augmentation": "flip", "checkpoint_dir": str(tmp_path)}
    told = 0
    for epoch in (2, 5):  # two kills, while the epoch's checkpoint is written or soon after
        reader, writer = CONTEXT.Pipe(duplex=False)
        names = {"params": params, "n_threads": torch.get_num_threads(), "last": epoch + 3}
        child = start(CHILD, told=writer, **names)
        writer.close()
        with reader:
            while told < epoch:
                told = reader.recv()
            child.kill()
            child.join(timeout=60)
        assert child.exitcode == -signal.SIGKILL
    epochs = Epochs()
    resumed = tuner(callbacks=[epochs], **params).fit(X, Y)
    assert epochs.seen[0] >= told
    assert [row["epoch"] for row in resumed.history_] == list(range(1, 21))
    params["checkpoint_dir"] = None
    assert same(state(resumed), state(tuner(**params).fit(X, Y)))


def test_checkpoint_belongs_to_images_and_parameters(tmp_path):
    params = {"checkpoint_dir": tmp_path, "max_epochs": 2}
    for data, changes in ((X, {}), (X, {"lr": 0.02}), (X[::-1], {})):
        with pytest.raises(Killed):
            tuner(callbacks=[killer(2)], **params, **changes).fit(data, Y)
    assert len(list(tmp_path.iterdir())) == 3
    epochs = Epochs()
    for _ in "ab":  # the second one finds a finished fit, and starts again
        tuner(callbacks=[epochs], **params).fit(X, Y)
    assert epochs.seen == [2, 1, 2]


def test_checkpoint_belongs_to_all_labels(tmp_path):
    labels = np.zeros((len(X), 1100), dtype=int)  # NumPy prints such a row with an ellipsis
    labels[::2] = 1
    params = {"checkpoint_dir": tmp_path, "max_epochs": 2, "head": HeadClassifier(max_epochs=1)}
    for _ in range(2):
        with pytest.raises(Killed):
            tuner(callbacks=[killer(2)], **params).fit(X, labels)
        labels[:, 500] = 1 - labels[:, 500]
    assert len(list(tmp_path.iterdir())) == 2


def test_other_schedules_than_those_of_a_checkpoint_are_refused(tmp_path):
    with pytest.raises(Killed):
        tuner(callbacks=[killer(2)], checkpoint_dir=tmp_path).fit(X, Y)
    schedule = LRScheduler("StepLR", step_size=1)
    with pytest.raises(ValueError, match=r"other `callbacks`: it has 1 .* not 2\. Pass the same"):
        tuner(callbacks=[schedule], checkpoint_dir=tmp_path).fit(X, Y)


def test_leftovers_of_a_kill_are_removed(tmp_path):
    with pytest.raises(Killed):
        tuner(callbacks=[killer(2)], checkpoint_dir=tmp_path).fit(X, Y)
    (file,) = tmp_path.iterdir()
    for _ in range(2):  # the second one has no checkpoint to resume from
        file.with_name(f"{file.name}abc.part").write_bytes(b"half")
        tuner(checkpoint_dir=tmp_path).fit(X, Y)
        assert list(tmp_path.iterdir()) == [file]
        file.unlink()


@pytest.mark.parametrize(
    "validation",
    [{}, {"validation_splitter": [(np.arange(len(X) - 4), np.arange(len(X) - 4, len(X)))]}],
)
def test_trials_with_a_head_that_stops_early(validation):
    head = HeadClassifier(early_stopping=True, validation_fraction=0.1, **validation)
    model = tuner(head=head, tuned_fraction="auto", max_epochs=1).fit(X, Y)
    assert set(model.fraction_scores_) == {0, 0.25, 0.5, 0.75, 1}


def test_ctrl_c_leaves_a_checkpoint_to_resume_from(tmp_path):
    with pytest.warns(UserWarning, match="has the weights of epoch 1 of 4"):
        model = tuner(max_epochs=4, checkpoint_dir=tmp_path, callbacks=[CtrlC(2)]).fit(X, Y)
    assert model.n_epochs_ == model.best_epoch_ == 1
    epochs = Epochs()
    resumed = tuner(max_epochs=4, checkpoint_dir=tmp_path, callbacks=[epochs]).fit(X, Y)
    assert epochs.seen == [2, 3, 4]
    assert same(state(resumed), state(tuner(max_epochs=4).fit(X, Y)))


def test_a_damaged_checkpoint_is_named(tmp_path):
    model = tuner(max_epochs=1, checkpoint_dir=tmp_path).fit(X, Y)
    (file,) = tmp_path.iterdir()
    for damaged in (file.read_bytes()[:100], b"", b"a text\n"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{file} cannot be read.*Delete it"):
            model.fit(X, Y)


def linear(n_features, n_outputs):
    return nn.Linear(n_features, n_outputs)


def test_checkpoint_is_found_whatever_the_addresses_of_a_head(tmp_path, monkeypatch):
    def name(**params):
        head = HeadClassifier(module=linear, random_state=np.random.RandomState(0), **params)
        model = tuner(head=head.set_params(callbacks=[object()]), checkpoint_dir=tmp_path)
        spec = resolve_backbone(model.backbone)
        return _fit._checkpoint_path(model, spec, None, [b"digest"], ["label"], np.ones(1), 1)

    first = name()
    copy = FunctionType(linear.__code__, linear.__globals__, linear.__name__)
    monkeypatch.setattr(sys.modules[__name__], "linear", copy)
    assert name() == first
    assert name(lr=0.5) != first


def test_a_checkpoint_of_a_module_without_a_name_is_refused(tmp_path):
    head = HeadClassifier(module=lambda **sizes: linear(**sizes))
    with pytest.raises(ValueError, match=r"checkpoint is named after everything.*no stable key"):
        tuner(head=head, checkpoint_dir=tmp_path).fit(X, Y)


def test_the_network_that_users_get_is_a_copy():
    params = {"image_size": 32, "engine": "torch", "cache": None}
    model = FineTuneClassifier(
        trainable_stages=1, tuned_fraction=1, max_epochs=1, random_state=0, **params
    )
    expected = model.fit(X, Y).predict_proba(X)
    with torch.no_grad():
        for parameter in model.backbone_.network().half().parameters():
            parameter.zero_()
    assert np.array_equal(model.predict_proba(X), expected)
    assert np.isfinite(ImageEmbedder(**params).fit_transform(X)).all()
