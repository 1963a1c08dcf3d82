"""The net: seeds, threads and processes, schedules, checkpoints."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sktransfer._training._checkpoint import read_checkpoint, write_checkpoint
from sktransfer._training._random import seed_epoch, seeded
from sktransfer._training._schedules import check_arguments, warmup_cosine
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


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "fit.pt"
    assert read_checkpoint(path) is None
    write_checkpoint(path, {"finished": False, "seed": 3})
    with pytest.raises(Exception, match="pickle"):
        write_checkpoint(path, {"finished": False, "bad": lambda: None})
    assert read_checkpoint(path)["seed"] == 3
    assert list(tmp_path.iterdir()) == [path]
    write_checkpoint(path, {"finished": True})
    assert read_checkpoint(path) is None
