"""The net: seeds, threads and processes, schedules, checkpoints."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback, EpochScoring

from sktransfer._training._callbacks import BestEpoch
from sktransfer._training._parameters import check_arguments
from sktransfer._training._random import seed_epoch, seeded
from sktransfer._training._samples import EmbeddingDataset
from sktransfer._training._schedules import warmup_cosine
from sktransfer._training._targets import ClassificationLoss, ClassTargets
from sktransfer.heads import HeadClassifier

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(head):
    return torch.cat([p.detach().flatten() for p in head.net_.module_.parameters()]).numpy()


def test_fits_in_threads_equal_a_fit_alone():
    X, y = np.random.default_rng(0).normal(size=(300, 20)), np.arange(300) % 3
    head = HeadClassifier(16, dropout=0.5, max_epochs=10, random_state=0)
    alone, before = weights(clone(head).fit(X, y)), torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: weights(clone(head).fit(X, y)), range(8)))
    assert all((found == alone).all() for found in together)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_while_another_thread_trains_can_train():
    with ThreadPoolExecutor(1) as pool, ExitStack() as held:
        pool.submit(held.enter_context, seeded(0, "cpu")).result()
        child = os.fork()
        if child == 0:
            with seeded(0, "cpu"):
                os._exit(0)
        pool.submit(held.close).result()
    ending = threading.Timer(20, os.kill, (child, signal.SIGKILL))
    ending.start()
    code = os.waitpid(child, 0)[1]
    ending.cancel()
    assert code == 0


def test_an_epoch_has_its_own_random_numbers():
    def draw(seed, epoch):
        with seeded(99, "cpu"):
            seed_epoch(seed, epoch, "cpu")
            return torch.rand(1).item()

    assert draw(0, 1) == draw(0, 1)
    assert len({draw(0, 1), draw(0, 2), draw(1, 0), draw(1, 1)}) == 4


def test_warm_up_and_cosine():
    factors = [warmup_cosine(step, 100) for step in range(101)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert factors[10] == 1 and factors[-1] == pytest.approx(0)
    assert np.all(np.diff(factors[10:]) < 0)
    assert warmup_cosine(0, 1) == 1


def test_unknown_arguments_are_named():
    check_arguments(torch.optim.SGD, {"lr": 1}, "optimizer_params")
    with pytest.raises(ValueError, match="optimizer_params has 'speed', which SGD does not take"):
        check_arguments(torch.optim.SGD, {"speed": 1}, "optimizer_params")
    with pytest.raises(ValueError, match="that no SGD takes: momentum"):
        check_arguments(torch.optim.SGD, {"momentum": 10**30}, "optimizer_params")


class Graph(torch.nn.Module):
    """A head with outputs so large that their gradients are scaled."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, X, is_scaled=True):
        return self.linear(X)


def trained_net(callbacks, autocast=None, n_epochs=1):
    """Train a tiny net, and return it."""
    from sktransfer._training._net import Net, train

    X, y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    net = Net(
        Graph(),
        targets=ClassTargets("binary", np.arange(2)),
        criterion=ClassificationLoss(multilabel=False, label_smoothing=0.0),
        seed=0,
        autocast=autocast,
        optimizer=torch.optim.SGD,
        batch_size=8,
    ).initialize()
    data = EmbeddingDataset(X, y)
    params = SimpleNamespace(scoring="loss", early_stopping=False, verbose=0)
    train(net, data, data, params, epochs=n_epochs, rates="", description="", callbacks=callbacks)
    return net


def test_callbacks_see_gradients_that_are_not_scaled():
    class Norm(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            gradients = [parameter.grad.flatten() for _, parameter in named_parameters]
            self.norm = torch.cat(gradients).norm().item()

    full, half = Norm(), Norm()
    seed = torch.get_rng_state()
    trained_net([full])
    torch.set_rng_state(seed)
    trained_net([half], torch.float16)
    assert half.norm == pytest.approx(full.norm, rel=0.01)


def test_the_history_keeps_the_columns_of_callbacks():
    class Notes(Callback):
        def on_epoch_end(self, net, **kwargs):
            for name, value in {
                "batches": 3,
                "my_best": 0.5,
                "batch_count": 2,
                "note": "a",
            }.items():
                net.history.record(name, value)

    f1 = EpochScoring("f1_macro", name="f1", lower_is_better=False)
    rows = trained_net([f1, Notes()], n_epochs=2).rows()
    assert set(rows[0]) == {
        "epoch", "lr", "seconds", "train_loss", "valid_loss", "train_accuracy", "valid_accuracy",
        "f1", "batches", "my_best", "batch_count", "note",
    }  # fmt: skip
    assert (rows[1]["batches"], rows[1]["my_best"]) == (3, 0.5)


def test_each_column_knows_its_best_epoch():
    history = trained_net([], n_epochs=5).history
    losses = history[:, "train_loss"]
    assert history[:, "train_loss_best"] == [
        x < min(losses[:i], default=9) for i, x in enumerate(losses)
    ]


@pytest.mark.parametrize("first", [np.nan, 3.0])
def test_the_best_epoch_is_not_one_without_a_number(first):
    best, values = BestEpoch("valid_loss", patience=3, tol=0.0), [first, 2.0, 1.0, np.nan, 1.5, 2.0]
    net = SimpleNamespace(history=None, module_=torch.nn.Linear(1, 1), stop_=False)
    best.on_train_begin(net)
    for epoch, value in enumerate(values):
        assert not net.stop_
        net.history = {-1: {"valid_loss": value, "epoch": epoch}}
        best.on_epoch_end(net)
    assert net.stop_ and best.state_["epoch"] == 2
