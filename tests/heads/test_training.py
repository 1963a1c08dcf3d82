"""HeadClassifier: optimizers, schedules, weights, seeds, validation, callbacks."""

import pickle
from time import perf_counter

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, PredefinedSplit
from skorch.callbacks import Callback, EarlyStopping, EpochScoring

from sktransfer.heads import HeadClassifier

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(head):
    return torch.cat([p.detach().flatten() for p in head.net_.module_.parameters()]).numpy()


def column(head, name):
    return [row[name] for row in head.history_]


# Optimizers and schedules


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop", "adagrad", torch.optim.NAdam])
def test_optimizers(blobs, optimizer):
    head = HeadClassifier(optimizer=optimizer, lr=0.01, random_state=0).fit(*blobs)
    assert head.score(*blobs) > 0.7


def test_biases_are_not_decayed():
    X, y = np.random.default_rng(0).normal(size=(100, 5)), np.repeat([0, 1], [90, 10])
    head = HeadClassifier(weight_decay=100.0, lr=0.03, batch_size=10, random_state=0).fit(X, y)
    assert np.abs(head.net_.module_.network[0].weight.detach().numpy()).max() < 0.01
    assert head.predict_proba(X).mean(axis=0) == pytest.approx([0.9, 0.1], abs=0.02)


def decays(head):
    """Weight decay of each parameter by its number of dimensions."""
    groups = head.net_.optimizer_.param_groups
    return sorted((p.ndim, group["weight_decay"]) for group in groups for p in group["params"])


def two_layers(n_features, n_outputs):
    return torch.nn.Sequential(torch.nn.Linear(n_features, 4), torch.nn.Linear(4, n_outputs))


def test_only_matrices_are_decayed_however_training_goes_on(blobs):
    head = HeadClassifier(8, batch_norm=True, weight_decay=0.2, max_epochs=1)
    free, several = [(1, 0.0)] * 4, [(2, 0.2)] * 2
    assert decays(head.fit(*blobs)) == free + several
    assert decays(head.partial_fit(*blobs)) == free + several
    assert decays(head.set_params(weight_decay=0.3).partial_fit(*blobs)) == free + [(2, 0.3)] * 2
    own = HeadClassifier(
        module=two_layers, optimizer=torch.optim.NAdam, weight_decay=0.2, max_epochs=1
    )
    assert decays(own.fit(*blobs)) == [(1, 0.0)] * 2 + several
    groups = [("*0.*", {"weight_decay": 0.7})]
    own.set_params(optimizer_params={"param_groups": groups}).fit(*blobs)
    assert decays(own) == [(1, 0.0), (1, 0.7), (2, 0.2), (2, 0.7)]


def test_optimizer_without_weight_decay(blobs):
    head = HeadClassifier(optimizer=torch.optim.LBFGS, lr=0.1, lr_schedule=None, max_epochs=5)
    head.set_params(batch_size=300)
    assert clone(head).set_params(weight_decay=0, random_state=0).fit(*blobs).score(*blobs) > 0.7
    with pytest.raises(ValueError, match="LBFGS has no weight decay; set weight_decay=0"):
        head.set_params(weight_decay=0.1).fit(*blobs)


@pytest.mark.parametrize(
    ("schedule", "params"),
    [
        ("cosine", None),
        ("warmup_cosine", None),
        ("one_cycle", {"pct_start": 0.5}),
        ("step", {"gamma": 0.5}),
        ("exponential", None),
        ("plateau", {"patience": 0, "threshold": 10.0}),
        (torch.optim.lr_scheduler.MultiStepLR, {"milestones": [2, 4]}),
    ],
)
def test_schedules_change_the_learning_rate(blobs, schedule, params):
    head = HeadClassifier(
        lr_schedule=schedule, lr_schedule_params=params, lr=0.01, max_epochs=8, random_state=0
    ).fit(*blobs)
    last = head.net_.optimizer_.param_groups[0]["lr"]
    assert last < 0.009
    assert len(set(column(head, "lr"))) > 2
    again = head.fit(*blobs).net_.optimizer_.param_groups[0]["lr"]
    assert again == pytest.approx(last)


@pytest.mark.parametrize(
    ("params", "lr"),
    [
        ({}, 0.2 / 20**0.5),
        ({"early_stopping": True}, 0.2 / 20**0.5),
        ({"hidden_units": 8}, 0.004),
        ({"hidden_units": 8, "early_stopping": True}, 0.001),
        ({"hidden_units": 8, "early_stopping": True, "lr": 0.03}, 0.03),
    ],
)
def test_automatic_learning_rate(blobs, params, lr):
    head = HeadClassifier(max_epochs=1, validation_fraction=0.3, random_state=0, **params)
    assert head.fit(*blobs).lr_ == pytest.approx(lr)
    assert head.net_.lr == head.lr_


# Weights, order, seeds


def test_weights_count_like_repetitions(blobs):
    X, y = blobs
    times = np.random.default_rng(0).integers(0, 4, len(X))
    head = HeadClassifier(
        batch_size=1000, weight_decay=0.01, lr=0.05, max_epochs=300, random_state=0
    )
    weighted = clone(head).fit(X, y, sample_weight=times)
    repeated = clone(head).fit(X.repeat(times, axis=0), y.repeat(times))
    np.testing.assert_allclose(weights(weighted), weights(repeated), atol=2e-3)
    assert not np.allclose(weights(weighted), weights(clone(head).fit(X, y)), atol=2e-2)


def test_samples_of_weight_zero_are_left_out(blobs):
    X, y = blobs
    head = HeadClassifier(8, max_epochs=3, random_state=0)
    one = clone(head).fit(X, y, sample_weight=np.arange(300) < 200)
    assert np.array_equal(weights(one), weights(clone(head).fit(X[:200], y[:200])))


def test_balanced_class_weights_find_the_rare_class():
    X, y = make_classification(500, 10, weights=[0.95], class_sep=0.5, random_state=0)
    plain = HeadClassifier(random_state=0).fit(X, y)
    balanced = HeadClassifier(class_weight="balanced", random_state=0).fit(X, y)
    assert balanced.predict(X).sum() > 2 * plain.predict(X).sum()
    share = np.bincount(y)
    given = HeadClassifier(class_weight={0: 250 / share[0], 1: 250 / share[1]}, random_state=0)
    assert np.allclose(weights(given.fit(X, y)), weights(balanced), atol=1e-4)


def test_balanced_weights_where_a_class_has_none(blobs):
    X, y = blobs
    head = HeadClassifier(class_weight="balanced", max_epochs=2)
    head.fit(X, y, sample_weight=(y != 2).astype(float), X_val=X[:20], y_val=y[:20])
    assert np.isfinite(column(head, "valid_loss")).all()


def test_refits_are_equal_and_leave_the_users_generators_alone(blobs):
    head = HeadClassifier(8, dropout=0.5, max_epochs=3, random_state=3)
    state = torch.get_rng_state()
    first = weights(clone(head).fit(*blobs))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(weights(clone(head).fit(*blobs)), first)
    assert not np.array_equal(weights(clone(head).set_params(random_state=4).fit(*blobs)), first)


def test_partial_fit_reaches_what_fit_reaches(blobs):
    X, y = blobs
    head = HeadClassifier(random_state=0)
    for _ in range(15):
        for part in np.array_split(np.arange(len(X)), 3):
            head.partial_fit(X[part], y[part], classes=[0, 1, 2])
    assert head.n_epochs_ == 45
    assert head.score(X, y) > HeadClassifier(random_state=0).fit(X, y).score(X, y) - 0.03
    with pytest.raises(ValueError, match=r"does not know: \[5\]"):
        head.partial_fit(X[:3], [0, 1, 5])


def test_calls_of_partial_fit_draw_other_orders(blobs):
    orders = []

    class Spy(Callback):
        def on_batch_begin(self, net, batch=None, **kwargs):
            orders.append(batch[1].tolist())

    head = HeadClassifier(batch_size=300, callbacks=[Spy()], random_state=0)
    for _ in range(2):
        head.partial_fit(*blobs, classes=[0, 1, 2])
    assert orders[0] != orders[1]


def test_partial_fit_does_not_slow_down_with_the_number_of_calls(blobs):
    head = HeadClassifier(random_state=0).partial_fit(*blobs, classes=[0, 1, 2])
    before = {"batches": [], **head.history_[0], "train_batch_count": 3, "train_loss_best": True}

    def seconds():
        start = perf_counter()
        head.partial_fit(*blobs)
        return perf_counter() - start

    few = min(seconds() for _ in range(5))
    for _ in range(100_000):
        head.net_.history.append(dict(before))
    head.history_ += head.net_.rows(len(head.history_))
    assert min(seconds() for _ in range(5)) < 3 * few
    assert len(head.history_) == head.n_epochs_ == 100_011


@pytest.mark.parametrize("other", [{"dropout": np.float64(0.3)}, {"module_params": None}])
def test_partial_fit_goes_on_with_values_that_say_the_same(blobs, other):
    head = HeadClassifier(8, dropout=0.3, max_epochs=1).fit(*blobs)
    assert head.set_params(**other).partial_fit(*blobs).n_epochs_ == 2
    with pytest.raises(ValueError, match=r"was built with hidden_units=8"):
        head.set_params(hidden_units=4).partial_fit(*blobs)


# Validation and early stopping


def test_early_stopping_restores_the_best_epoch(blobs):
    X, y = blobs
    head = HeadClassifier(
        64, early_stopping=True, n_iter_no_change=3, max_epochs=200, lr=0.03, random_state=0
    ).fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    losses = column(head, "valid_loss")
    assert head.n_epochs_ < 200
    assert head.best_epoch_ == np.argmin(losses) + 1
    assert head.n_epochs_ == head.best_epoch_ + 3
    proba = head.predict_proba(X[200:])
    loss = -np.log(proba[np.arange(100), y[200:]]).mean()
    assert loss == pytest.approx(min(losses), abs=1e-5)


@pytest.mark.parametrize(
    "scoring", ["accuracy", "balanced_accuracy", "neg_log_loss", "roc_auc_ovr"]
)
def test_early_stopping_on_a_named_metric(blobs, scoring):
    head = HeadClassifier(
        early_stopping=True, scoring=scoring, n_iter_no_change=4, validation_fraction=0.3,
        tol=0, max_epochs=60, random_state=0,
    ).fit(*blobs)  # fmt: skip
    scores = column(head, f"valid_{scoring}")
    assert head.best_epoch_ == np.argmax(scores) + 1


def test_the_history_has_both_accuracies(blobs):
    X, y = blobs
    head = HeadClassifier(max_epochs=3, scoring="f1_macro", random_state=0)
    head.fit(X[100:], y[100:], X_val=X[:100], y_val=y[:100])
    assert set(head.history_[0]) == {
        "epoch", "lr", "seconds", "train_loss", "valid_loss", "train_accuracy", "valid_accuracy",
        "valid_f1_macro",
    }  # fmt: skip
    assert column(head, "epoch") == [1, 2, 3]
    assert head.history_[-1]["valid_accuracy"] == pytest.approx(head.score(X[:100], y[:100]))
    plain = HeadClassifier(max_epochs=1).fit(X, y)
    assert set(plain.history_[0]) == {"epoch", "lr", "seconds", "train_loss"}
    assert all(type(value) in (int, float) for row in head.history_ for value in row.values())


class Datasets(Callback):
    """Remember what each epoch trains and validates on."""

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.train, self.valid = dataset_train, dataset_valid


def test_a_fraction_is_stratified_and_keeps_groups_together():
    X = np.random.default_rng(0).normal(size=(40, 4))
    y, spy = np.repeat([0, 1], [36, 4]), Datasets()
    head = HeadClassifier(
        early_stopping=True, validation_fraction=0.25, max_epochs=1, callbacks=[spy], scaling=None
    )
    with pytest.warns(UserWarning, match="only 30 validation samples"):
        head.fit(X.repeat(3, axis=0), y.repeat(3), groups=np.arange(40).repeat(3))
    assert np.bincount(spy.valid.y.numpy()).tolist() == [27, 3]
    both = {tuple(row) for row in spy.train.X.tolist()} & {tuple(r) for r in spy.valid.X.tolist()}
    assert not both


@pytest.mark.parametrize("groups", [[f"{i // 2}.jpg" for i in range(40)], np.arange(40) // 2])
def test_groups_reach_the_splitter(groups):
    X, y, spy = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) // 2 % 2, Datasets()
    head = HeadClassifier(validation_splitter=GroupKFold(4), callbacks=[spy], scaling=None)
    head.fit(X, y, groups=groups)
    held_out = np.isin(X[:, 0].astype(np.float32), spy.valid.X[:, 0].numpy())
    assert np.array_equal(held_out[::2], held_out[1::2])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        head.fit(X, y, groups=groups[:-1])


def test_splitter_says_which_samples_validate(blobs):
    X, y = blobs
    fold = np.where(np.arange(len(X)) < 250, -1, 0)
    head = HeadClassifier(validation_splitter=PredefinedSplit(fold), max_epochs=2, random_state=0)
    given = clone(head).set_params(validation_splitter=None)
    given.fit(X[:250], y[:250], X_val=X[250:], y_val=y[250:])
    losses = column(head.fit(X, y), "valid_loss")
    assert losses == column(given, "valid_loss")
    pairs = [(np.arange(250), np.arange(250, 300))]
    again = clone(head).set_params(validation_splitter=pairs).fit(X, y)
    assert losses == column(again, "valid_loss")


def test_few_validation_samples_warn_once(blobs):
    head = HeadClassifier(early_stopping=True, max_epochs=3, random_state=0)
    with pytest.warns(UserWarning, match="only 30 validation samples.*raise validation_f") as seen:
        head.fit(*blobs)
    assert len(seen) == 1 and seen[0].filename == __file__


def test_validation_loss_is_weighted_alike_however_samples_are_given(blobs):
    X, y = blobs
    head = HeadClassifier(class_weight={0: 1, 1: 9}, max_epochs=1, random_state=0)
    fold = np.where(np.arange(len(X)) < 60, 0, -1)
    given = clone(head).fit(X[60:], y[60:], X_val=X[:60], y_val=y[:60])
    split = clone(head).set_params(validation_splitter=PredefinedSplit(fold)).fit(X, y)
    losses = [column(h, "valid_loss")[0] for h in (given, split)]
    assert losses[0] == pytest.approx(losses[1])


# Progress and callbacks


def test_verbosity(blobs, capsys):
    HeadClassifier(max_epochs=2).fit(*blobs)
    assert capsys.readouterr() == ("", "")
    HeadClassifier(max_epochs=2, verbose=1).fit(*blobs)
    shown = capsys.readouterr().err
    assert "Head of 20 features, 300 samples" in shown and "2/2" in shown
    HeadClassifier(max_epochs=2, verbose=2).fit(*blobs)
    assert capsys.readouterr().out.count("train_loss") == 2


def test_callbacks_of_skorch(blobs):
    train_f1 = EpochScoring("f1_macro", on_train=True, name="train_f1", lower_is_better=False)
    stop = EarlyStopping(monitor="train_loss", patience=1, threshold=10)
    head = HeadClassifier(max_epochs=9, callbacks=[train_f1, ("stop", stop)]).fit(*blobs)
    assert head.n_epochs_ == 2
    assert 0 < head.history_[-1]["train_f1"] <= 1


def test_ctrl_c_ends_a_fit_and_a_search(blobs):
    class CtrlC(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 3:
                raise KeyboardInterrupt

    head = HeadClassifier(max_epochs=5, callbacks=[CtrlC()], dropout=0.5, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        GridSearchCV(head, {"lr": [0.1]}, error_score=0.0).fit(*blobs)
    for _ in range(2):
        head.partial_fit(*blobs, classes=np.unique(blobs[1]))
    with pytest.raises(KeyboardInterrupt):
        head.partial_fit(*blobs)
    assert head.n_epochs_ == 2
    np.testing.assert_array_equal(head.predict(blobs[0]), head.predict(blobs[0]))
    with pytest.raises(KeyboardInterrupt):
        head.fit(*blobs)
    with pytest.raises(NotFittedError):
        head.predict(blobs[0])


# Batches


@pytest.mark.parametrize("n_samples", [129, 257, 2, 130])
def test_a_last_batch_of_one_sample_joins_the_one_before(n_samples):
    X = np.random.default_rng(0).normal(size=(n_samples, 5))
    sizes = []

    class Spy(Callback):
        def on_batch_end(self, net, batch=None, training=None, **kwargs):
            sizes.append(len(batch[1]))

    head = HeadClassifier(batch_norm=True, max_epochs=1, callbacks=[Spy()])
    head.fit(X, np.arange(n_samples) % 2)
    assert sum(sizes) == n_samples
    assert min(sizes) > 1


@pytest.mark.parametrize("many", [False, True])
def test_small_heads_use_one_thread(many):
    n_threads = []

    class Spy(Callback):
        def on_batch_begin(self, net, **kwargs):
            n_threads.append(torch.get_num_threads())

    X = np.random.default_rng(0).normal(size=(256, 128))
    head = HeadClassifier(16_384 if many else 8, max_epochs=1, callbacks=[Spy()])
    torch.set_num_threads(2)
    try:
        head.fit(X, np.arange(256) % 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert set(n_threads) == {2 if many else 1}


def test_the_learning_rate_of_the_optimizer_stays_in_partial_fit(blobs):
    X, y = blobs
    head = HeadClassifier(optimizer_params={"lr": 1e-6})
    for _ in range(3):
        head.partial_fit(X, y, classes=np.unique(y))
    assert [row["lr"] for row in head.history_] == [1e-6] * 3
    assert head.lr_ == 1e-6


def test_a_head_loads_whatever_is_set_for_the_next_fit(blobs):
    X, y = blobs
    head = HeadClassifier(optimizer_params={"lr": 1e-3}, max_epochs=1).fit(X, y)
    loaded = pickle.loads(pickle.dumps(head.set_params(lr=0.1)))
    assert np.array_equal(loaded.predict(X), head.predict(X))
