"""The skorch net that trains a head, its batches and its callbacks.

Nothing imports this module before the first fit: skorch takes a moment to import.
"""

import json
import os
import pickle
import struct
import tempfile
import warnings
from collections.abc import Mapping
from math import inf, isfinite
from pathlib import Path

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, LRScheduler
from skorch.exceptions import DeviceWarning
from skorch.history import History
from torch.optim import lr_scheduler
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..exceptions import TrainingDivergedError

__all__ = [
    "BestEpoch",
    "Checkpoint",
    "EpochBar",
    "HeadNet",
    "NoDivergence",
    "TensorBatches",
    "TensorRows",
    "is_decayed",
    "make_scheduler",
]

#: Rows that take no more than this are moved to the device once and not batch by batch.
RESIDENT_BYTES = 2 * 1024**3

#: Rows in a batch that is only predicted on.
PREDICTION_BATCH = 4096


class TensorRows(Dataset):
    """Rows held as tensors, which are indexed by whole batches.

    Parameters
    ----------
    X : tensor of shape (n_rows, n_features)
        Embeddings, which the network's own scaling has gone over.
    y : tensor of shape (n_rows,) or (n_rows, n_labels)
        Targets.
    weight : tensor of shape (n_rows,), default=None
        Weights; None for equal ones.
    """

    def __init__(self, X, y, weight=None):
        self.X, self.y, self.weight = X, y, weight

    def __len__(self):
        return len(self.X)

    def __getitem__(self, rows):
        batch = {"scaled": self.X[rows]}
        if self.weight is not None:
            batch["sample_weight"] = self.weight[rows]
        return batch, self.y[rows]

    @classmethod
    def from_arrays(cls, rows, module, device):
        """Make tensors of arrays, on the device where they fit there with ease.

        The arrays are used up: scaling, which is the same in each epoch, is done on them once.
        """
        X = module.scale_(torch.from_numpy(rows.X))
        weight = rows.scaled_weight()
        weight = None if weight is None else torch.from_numpy(weight)
        tensors = (X, torch.from_numpy(rows.y), weight)
        if rows.X.nbytes > RESIDENT_BYTES:
            return cls(*tensors)
        return cls(*(None if tensor is None else tensor.to(device) for tensor in tensors))


class PlainRows(Dataset):
    """Rows without targets, to be predicted on.

    Parameters
    ----------
    X : tensor of shape (n_rows, n_features)
        Embeddings as they are.
    """

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, rows):
        X = self.X[rows]
        return X, torch.zeros(len(X))


class TensorBatches:
    """Iterate over batches of a dataset that is indexed by whole batches.

    A ``DataLoader`` fetches and stacks single rows, which takes several times longer than training
    a head on them. A last batch of one row joins the batch before it, because batch normalisation
    cannot train on one row.

    Parameters
    ----------
    dataset : TensorRows
        Where batches are taken from.
    batch_size : int
        Rows in a batch.
    shuffle : bool, default=False
        Whether to draw a new order, from torch's global generator, for each pass.
    """

    def __init__(self, dataset, batch_size, shuffle=False):
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle

    def starts(self):
        starts = list(range(0, len(self.dataset), self.batch_size))
        if len(starts) > 1 and len(self.dataset) - starts[-1] == 1:
            starts.pop()
        return starts

    def __len__(self):
        return len(self.starts())

    def __iter__(self):
        n_rows = len(self.dataset)
        order = torch.randperm(n_rows).to(self.dataset.X.device) if self.shuffle else None
        starts = self.starts()
        for start, end in zip(starts, [*starts[1:], n_rows], strict=True):
            yield self.dataset[slice(start, end) if order is None else order[start:end]]


class HeadNet(NeuralNetClassifier):
    """A skorch classifier for rows of embeddings, with weights and several labels a row.

    Parameters
    ----------
    module : class
        Network that gives logits.
    multilabel : bool, default=False
        Whether each output is a yes or no of its own.
    **kwargs : dict
        As for :class:`skorch.NeuralNetClassifier`.
    """

    def __init__(self, module, *args, multilabel=False, **kwargs):
        super().__init__(module, *args, **kwargs)
        self.multilabel = multilabel

    def check_data(self, X, y=None):
        """Do nothing: the head has checked everything."""

    def get_dataset(self, X, y=None):
        return X if isinstance(X, Dataset) else PlainRows(torch.as_tensor(X))

    def infer(self, x, **fit_params):
        if isinstance(x, Mapping):
            return self.module_.network(x["scaled"].to(self.device), **fit_params)
        return self.module_(x.to(self.device), **fit_params)

    def get_params_for_optimizer(self, prefix, named_parameters):
        """Return what the optimiser is built from: groups that weight decay is for, and others."""
        (groups,), params = super().get_params_for_optimizer(prefix, named_parameters)
        if "weight_decay" in params:  # LBFGS, which has none, takes no more than one group
            groups = [part for group in groups for part in split_by_decay(group)]
        return (groups,), params

    def get_loss(self, y_pred, y_true, X=None, training=False):
        weight = X.get("sample_weight")
        weight = None if weight is None else weight.to(self.device)
        return self.criterion_(y_pred, y_true.to(self.device), weight)

    def _set_training(self, training=True):
        # Walking over all layers in each step takes longer than the step of a small head.
        if self.module_.training != training or self.criterion_.training != training:
            super()._set_training(training)

    def predict(self, X):
        proba = self.predict_proba(X)
        return (proba > 0.5).astype(int) if self.multilabel else proba.argmax(axis=1)

    def notify(self, method_name, **cb_kwargs):
        super().notify(method_name, **cb_kwargs)
        # Only after all callbacks, the one that prints among them, have seen the epoch.
        if method_name == "on_epoch_end":
            best = dict(self.callbacks_).get("head_best")
            if best is not None and best.done_:
                raise KeyboardInterrupt  # how skorch ends a training

    def train_on(self, train, valid, epochs):
        """Train on one dataset, validate on another or None, and keep hold of neither."""
        self.train_split = None if valid is None else lambda dataset: (dataset, valid)
        try:
            return self.partial_fit(train, epochs=epochs)
        finally:
            self.train_split = None
            if interrupted(self):
                del self.history[-1]
            for callback in active_schedulers(self):
                del callback.lr_scheduler_  # holds the optimiser, and a pickle would hold both

    def forget_steps(self):
        """Drop what the optimiser remembers of earlier steps, twice the weights with Adam."""
        self.optimizer_.state.clear()

    def __setstate__(self, state):
        # A head that was trained on a GPU is at home on any machine: nothing to be warned of.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeviceWarning)
            super().__setstate__(state)


def split_by_decay(group):
    """Yield a parameter group in two: a decay that it does not set itself is not for biases."""
    matrices = [p for p in group["params"] if p.ndim > 1]
    others = [p for p in group["params"] if p.ndim <= 1]
    if matrices:
        yield {**group, "params": matrices}
    if others:
        yield {"weight_decay": 0.0, **group, "params": others}


def is_decayed(group):
    """Whether weight decay is for this parameter group of an optimiser that has it."""
    return "weight_decay" in group and any(p.ndim > 1 for p in group["params"])


class NoDivergence(Callback):
    """Stop with an error when the training loss is no longer a number."""

    def on_epoch_end(self, net, **kwargs):
        loss = net.history[-1, "train_loss"]
        if isfinite(loss):
            return
        lr = net.optimizer_.param_groups[0]["lr"]
        raise TrainingDivergedError(
            f"The training loss became {loss} in epoch {net.history[-1, 'epoch']} with the "
            f"learning rate lr={lr:g}. Try lr={lr / 10:g}, or let "
            "sktransfer.heads.lr_range_test(head, X, y) suggest one."
        )


class EpochBar(Callback):
    """Show a progress bar over epochs with the newest losses beside it.

    Parameters
    ----------
    total : int
        Epochs to come.
    """

    def __init__(self, total):
        self.total = total

    def on_train_begin(self, net, **kwargs):
        self.bar_ = tqdm(total=self.total, desc="Training the head", unit="epoch")

    def on_epoch_end(self, net, **kwargs):
        row = net.history[-1]
        losses = {name: row[name] for name in ("train_loss", "valid_loss") if name in row}
        self.bar_.set_postfix(losses, refresh=False)
        self.bar_.update()

    def on_train_end(self, net, **kwargs):
        self.bar_.close()

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "bar_"}


class BestEpoch(Callback):
    """Watch one column of the history: stop when it no longer improves, keep its best epoch.

    Parameters
    ----------
    monitor : str
        Column of the history. Less is better for losses, more for scores.
    patience : int or None
        Stop after this many epochs without improvement and restore the best weights. None never
        stops and restores nothing.
    tol : float
        An improvement by less does not count.
    checkpoint : Checkpoint or None
        Where every best epoch is written. Training goes on from what a fit that was killed has
        left there.

    Attributes
    ----------
    done_ : bool
        Whether it is time to stop.
    """

    def __init__(self, monitor, patience, tol, checkpoint=None):
        self.monitor, self.patience, self.tol = monitor, patience, tol
        self.checkpoint = checkpoint

    def on_train_begin(self, net, **kwargs):
        self.best_, self.best_epoch_, self.best_state_, self.misses_ = inf, None, None, 0
        self.done_ = False
        if self.checkpoint is not None and self.checkpoint.unfinished is not None:
            self.restore(net, self.checkpoint.unfinished)
            self.checkpoint.unfinished = None  # or a pickle of the net would hold it

    def on_epoch_end(self, net, **kwargs):
        value = net.history[-1, self.monitor]
        loss = value if mode(self.monitor) == "min" else -value
        if loss < self.best_ - self.tol or self.best_epoch_ is None:
            self.best_, self.best_epoch_, self.misses_ = loss, net.history[-1, "epoch"], 0
            self.keep(net)
        else:
            self.misses_ += 1
        self.done_ = self.patience is not None and self.misses_ >= self.patience

    def on_train_end(self, net, **kwargs):
        if self.patience is not None and self.best_state_ is not None:
            net.module_.load_state_dict(self.best_state_)
        self.best_state_ = None
        if self.checkpoint is not None and not interrupted(net):
            self.checkpoint.finish()

    def keep(self, net):
        """Remember the weights of this epoch, on disk too where a path was given."""
        if self.patience is not None:
            self.best_state_ = copied(net.module_.state_dict())
        if self.checkpoint is not None:
            self.checkpoint.write(self.state(net))

    def state(self, net):
        """Return all that it takes to go on from this epoch as if nothing had happened."""
        return {
            "module": net.module_.state_dict(),
            "optimizer": net.optimizer_.state_dict(),
            "schedule": [s.state_dict() for s in schedules(net)],
            "history": json.dumps(net.history.to_list(), default=float),
            "random": random_states(net.device),
            "best": float(self.best_),
            "finished": False,
        }

    def restore(self, net, state):
        """Put a net back where :meth:`state` was taken."""
        net.module_.load_state_dict(state["module"])
        net.optimizer_.load_state_dict(state["optimizer"])
        for schedule, saved in zip(schedules(net), state["schedule"], strict=True):
            schedule.load_state_dict(saved)
        net.history = History(json.loads(state["history"]))
        set_random_states(state["random"], net.device)
        self.best_, self.best_epoch_ = state["best"], net.history[-1, "epoch"]
        self.best_state_ = copied(net.module_.state_dict()) if self.patience is not None else None

    def __getstate__(self):
        return {**vars(self), "best_state_": None}


def interrupted(net):
    """Whether the last epoch of the history was not trained to its end, because of Ctrl-C."""
    return bool(net.history) and "train_loss" not in net.history[-1]


def copied(state):
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def schedules(net):
    return [callback.lr_scheduler_ for callback in active_schedulers(net)]


def active_schedulers(net):
    """Return the callbacks that change the learning rate of the training that goes on."""
    callbacks = [callback for _, callback in net.callbacks_]
    return [cb for cb in callbacks if isinstance(cb, LRScheduler) and hasattr(cb, "lr_scheduler_")]


def random_states(device):
    """Return the states of the generators that shuffling and dropout draw from."""
    states = [torch.get_rng_state()]
    if torch.device(device).type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def set_random_states(states, device):
    torch.set_rng_state(states[0])
    if len(states) > 1 and torch.device(device).type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


class Checkpoint:
    """A file that holds how far a fit has come.

    Parameters
    ----------
    path : Path
        The file; it need not be there.
    seed : int
        Seed of what is drawn before the first epoch, for a fit without a fixed seed: one that
        goes on takes the seed that the fit before it began with.

    Attributes
    ----------
    unfinished : dict or None
        What an unfinished fit has left, until it is gone on from.
    """

    def __init__(self, path, seed):
        self.path, self.unfinished = path, read_checkpoint(path)
        self.seed = seed if self.unfinished is None else self.unfinished["seed"]

    def write(self, state):
        write_checkpoint(self.path, {**state, "seed": self.seed})

    def finish(self):
        """Mark what is there as no longer to be gone on from."""
        state = read_checkpoint(self.path)
        if state is not None:
            write_checkpoint(self.path, {**state, "finished": True})

    def epochs_done(self):
        """Return how many epochs a fit that was killed has behind it."""
        return 0 if self.unfinished is None else len(json.loads(self.unfinished["history"]))


def write_checkpoint(path, state):
    """Write a file that is either whole or not there at all."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def read_checkpoint(path):
    """Return what an unfinished fit has left, on the CPU; None where there is nothing."""
    if path is None or not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError, pickle.UnpicklingError, struct.error) as error:
        raise ValueError(
            f"The checkpoint {path} cannot be read ({error!r}). Delete it to begin anew."
        ) from error
    return None if state["finished"] else state


def make_scheduler(schedule, params, *, lr, epochs, batches_per_epoch, monitor):
    """Return the callback for a learning-rate schedule given by name or as a torch class."""
    kind, defaults = {
        "cosine": (lr_scheduler.CosineAnnealingLR, {"T_max": epochs}),
        "one_cycle": (
            lr_scheduler.OneCycleLR,
            {"max_lr": lr, "total_steps": epochs * batches_per_epoch + 1, "step_every": "batch"},
        ),
        "step": (lr_scheduler.StepLR, {"step_size": max(1, epochs // 3)}),
        "exponential": (lr_scheduler.ExponentialLR, {"gamma": 0.01 ** (1 / epochs)}),
        "plateau": (lr_scheduler.ReduceLROnPlateau, {"patience": 3, "mode": mode(monitor)}),
    }.get(schedule, (schedule, {}))
    options = {"monitor": monitor, **defaults, **(params or {})}
    if kind is not lr_scheduler.ReduceLROnPlateau:
        options.setdefault("last_epoch", -1)  # every fit begins the schedule anew
    return LRScheduler(kind, **options)


def mode(monitor):
    """Whether less or more is better in a column of the history; scorers all mean more."""
    return "min" if monitor in ("train_loss", "valid_loss") else "max"
