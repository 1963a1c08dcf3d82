"""Training of a head together with the upper part of a backbone."""

from contextlib import nullcontext
from dataclasses import dataclass
from math import cos, inf, isfinite, pi
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import nn

from .._utils._threads import usable_kernels
from ..backbones import backbone_stages
from ..exceptions import TrainingDivergedError
from ..heads._building import seeded
from ._features import batches

__all__ = ["Tuned", "TuningData", "TuningSettings", "tune"]

#: Share of the steps in which the learning rates grow to their full size.
WARM_UP = 0.1

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class TuningSettings:
    """How to train; the names are those of the estimator's parameters."""

    lr: float
    backbone_lr_factor: float
    layer_decay: float
    weight_decay: float
    max_epochs: int
    batch_size: int
    update_batch_norm: bool
    patience: int | None
    scoring: str
    tol: float
    seed: int
    device: str
    autocast: torch.dtype | None


@dataclass(frozen=True)
class TuningData:
    """Views with the codes of their classes, and weights with a mean of one."""

    views: object
    y: torch.Tensor
    weight: torch.Tensor


class Tuned(nn.Module):
    """The trained part: the upper stages of a backbone, and a head.

    Parameters
    ----------
    upper : torch.nn.Module
        The upper stages.
    head : torch.nn.Module
        From embeddings to logits.
    """

    def __init__(self, upper, head):
        super().__init__()
        self.upper, self.head = upper, head

    def forward(self, features):
        return self.head(self.upper(features).float())

    def set_training(self, update_batch_norm):
        """Set the training mode; statistics of the backbone's batch norms stay unless asked.

        Stages that are not trained, which are there where a network could not be cut in two, stay
        as they are for prediction.
        """
        self.train()
        for module in self.upper.modules():
            if isinstance(module, _BATCH_NORMS) and not update_batch_norm:
                module.eval()
        for _, stage in backbone_stages(self.upper):
            if not any(parameter.requires_grad for parameter in stage.parameters()):
                stage.eval()


def parameter_groups(model, settings):
    """Return parameter groups: the head, then the stages from the top, each slower than the last.

    Biases and the parameters of normalisations are not decayed.
    """
    stages = backbone_stages(model.upper)[::-1]
    parts = [(list(model.head.parameters()), settings.lr)]
    lr = settings.lr * settings.backbone_lr_factor
    for _, stage in stages:
        parts.append((list(stage.parameters()), lr))
        lr *= settings.layer_decay
    known = {id(p) for parameters, _ in parts for p in parameters}
    parts.append(([p for p in model.upper.parameters() if id(p) not in known], lr))
    return [
        group
        for parameters, rate in parts
        for group in _split_by_decay(parameters, rate, settings.weight_decay)
    ]


def _split_by_decay(parameters, lr, weight_decay):
    trained = [p for p in parameters if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    for members, decay in ((decayed, weight_decay), (others, 0.0)):
        if members:
            yield {"params": members, "lr": lr, "full_lr": lr, "weight_decay": decay}


def rate_factor(step, n_steps):
    """Return by what the full learning rates are multiplied: linear growth, then a cosine."""
    warm_up = max(1, round(WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + cos(pi * (step - warm_up) / max(1, n_steps - warm_up)))


class _Best:
    """The best epoch so far, and how long ago it was."""

    def __init__(self, settings):
        self.scoring, self.tol, self.patience = settings.scoring, settings.tol, settings.patience
        self.value, self.epoch, self.weights, self.misses = inf, 0, None, 0

    def look(self, row, model):
        value = row["valid_loss"] if self.scoring == "loss" else -row["valid_accuracy"]
        if self.weights is None or value < self.value - self.tol:
            self.value, self.epoch, self.misses = value, row["epoch"], 0
            self.weights = _copied(model.state_dict())
        else:
            self.misses += 1

    def exhausted(self):
        return self.patience is not None and self.misses >= self.patience

    def state(self):
        return {name: getattr(self, name) for name in ("value", "epoch", "weights", "misses")}


def _copied(state):
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def tune(model, loss, train, valid, settings, path=None, on_epoch=None):
    """Train a model in place, and leave it with the weights of the best epoch.

    Parameters
    ----------
    model : Tuned
        On the device of the settings.
    loss : torch.nn.Module
        Of logits, codes and weights.
    train : TuningData
        To train on.
    valid : TuningData or None
        To choose the epoch by; None keeps the last.
    settings : TuningSettings
        How.
    path : Path or None
        Checkpoint: written after each epoch, and gone on from where it is unfinished.
    on_epoch : callable or None
        Called with each row of the history.

    Returns
    -------
    history : list of dict
        A row for each epoch; with validation the first one, epoch 0, is before any training.
    best_epoch : int
        Epoch whose weights the model has.
    """
    with usable_kernels():
        return _Tuning(model, loss, train, valid, settings, path, on_epoch).run()


class _Tuning:
    """One run of `tune`."""

    def __init__(self, model, loss, train, valid, settings, path, on_epoch):
        self.model, self.loss, self.train, self.valid = model, loss, train, valid
        self.settings, self.path, self.on_epoch = settings, path, on_epoch
        self.optimizer = torch.optim.AdamW(parameter_groups(model, settings))
        half = settings.autocast is torch.float16
        self.scaler = torch.amp.GradScaler(torch.device(settings.device).type, enabled=half)
        self.history, self.best = [], _Best(settings)

    def run(self):
        from .._training._net import read_checkpoint

        unfinished = read_checkpoint(self.path)
        if unfinished is not None:
            self.restore(unfinished)
        elif self.valid is not None:
            self.record({"epoch": 0, **self.validate()})
        done = self.history[-1]["epoch"] if self.history else 0
        for epoch in range(done + 1, self.settings.max_epochs + 1):
            if self.best.exhausted():
                break
            self.one_epoch(epoch)
            self.save(finished=False)
        if self.valid is not None:
            self.model.load_state_dict(self.best.weights)
        self.optimizer.zero_grad(set_to_none=True)  # or the gradients would live with the model
        self.save(finished=True)
        return self.history, self.best.epoch if self.valid is not None else self.last_epoch()

    def last_epoch(self):
        return self.history[-1]["epoch"]

    def one_epoch(self, epoch):
        start = perf_counter()
        # All randomness of an epoch comes from its own seed: a resumed run needs no more.
        rng = np.random.default_rng([self.settings.seed, epoch])
        with seeded(int(rng.integers(2**31)), self.settings.device):
            row = {"epoch": epoch, "train_loss": self.train_once(epoch, rng)}
        self.check(row)
        if self.valid is not None:
            row |= self.validate()
        self.record({**row, "seconds": perf_counter() - start})

    def record(self, row):
        self.history.append(row)
        if self.valid is not None:
            self.best.look(row, self.model)
        if self.on_epoch is not None:
            self.on_epoch(row)

    def train_once(self, epoch, rng):
        """Train on each image once and return the mean loss."""
        data, size = self.train, self.settings.batch_size
        order = rng.permutation(len(data.y))
        numbers = data.views.numbers(order, epoch, rng)
        n_batches = max(1, -(-len(order) // size))
        n_steps = self.settings.max_epochs * n_batches
        self.model.set_training(self.settings.update_batch_norm)
        self.loss.train()
        # Summed on the device, so that it is never waited for between steps.
        total = torch.zeros((), device=self.settings.device)
        for step, (rows, batch) in enumerate(batches(data.views, order, numbers, size)):
            self.set_rates(rate_factor((epoch - 1) * n_batches + step, n_steps))
            total += self.one_step(batch, *self.targets(data, rows)) * len(rows)
        return float(total) / len(order)

    def targets(self, data, rows):
        rows = torch.from_numpy(rows).to(data.y.device)
        return data.y[rows], data.weight[rows]

    def one_step(self, batch, y, weight):
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            logits = self.model(batch)
        loss = self.loss(logits.float(), y, weight)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def autocast(self):
        if self.settings.autocast is None:
            return nullcontext()
        kind = torch.device(self.settings.device).type
        return torch.autocast(kind, dtype=self.settings.autocast)

    def set_rates(self, factor):
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * factor

    @torch.no_grad()
    def validate(self):
        """Return loss and accuracy on the validation images."""
        self.model.eval()
        self.loss.eval()  # without label smoothing
        data, losses, hits = self.valid, 0.0, 0.0
        order = np.arange(len(data.y))
        for rows, batch in batches(data.views, order, np.zeros_like(order), 64):
            with self.autocast():
                logits = self.model(batch).float()
            y, weight = self.targets(data, rows)
            losses += float(self.loss(logits, y, weight)) * len(rows)
            hits += float((logits.argmax(dim=1) == y).sum())
        return {"valid_loss": losses / len(order), "valid_accuracy": hits / len(order)}

    def check(self, row):
        if isfinite(row["train_loss"]):
            return
        s = self.settings
        raise TrainingDivergedError(
            f"The training loss became {row['train_loss']} in epoch {row['epoch']} of fine-tuning "
            f"with the learning rates lr={s.lr:g} for the head and "
            f"{s.lr * s.backbone_lr_factor:g} (lr times backbone_lr_factor="
            f"{s.backbone_lr_factor:g}) for the backbone. Try lr={s.lr / 10:g}."
        )

    def save(self, finished):
        """Write a checkpoint; of a finished run it only holds the weights that were chosen."""
        from .._training._net import write_checkpoint

        if self.path is None:
            return
        state = {"finished": finished, "history": self.history, "seed": self.settings.seed}
        state["model"] = self.model.state_dict()
        if not finished:
            state["optimizer"] = self.optimizer.state_dict()
            state["scaler"] = self.scaler.state_dict()
            state["best"] = self.best.state()
        write_checkpoint(Path(self.path), state)

    def restore(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.history = state["history"]
        for name, value in state["best"].items():
            setattr(self.best, name, value)
