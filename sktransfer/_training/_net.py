"""The skorch net that trains heads, alone or together with the top of a backbone.

Nothing imports this module before the first fit: skorch takes a moment to import.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from math import inf
from time import perf_counter

import numpy as np
import torch
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import EarlyStopping, EpochScoring
from skorch.history import History
from torch.utils.data import Dataset

from .._utils._warnings import warn_user
from ..exceptions import SmallValidationWarning
from ._callbacks import (
    BestEpoch,
    FitTasks,
    Progress,
    StopOnDivergence,
    check_callbacks,
    of_kind,
    validation_score,
)
from ._random import seed_epoch
from ._samples import PREDICTION_BATCH, Batches, EmbeddingDataset
from ._schedules import make_schedule

#: With fewer validation samples, early stopping depends on chance and warns.
FEW_SAMPLES = 50


class EpochHistory(History):
    """A history whose last row can be read without copying all rows."""

    def __getitem__(self, i):
        return list.__getitem__(self, i) if isinstance(i, (int, slice)) else super().__getitem__(i)


class Net(NeuralNet):
    """A skorch net for data that comes in whole batches, with weights.

    It trains ``module``, an instance, in place. `targets` says what the outputs mean. Everything
    random in an epoch follows from `seed` and the number of the epoch. `autocast` is a dtype for
    the forward pass or None, `rates` has learning rates of parameters, by name, that differ from
    `lr`, and `start_at_zero` records an epoch 0, before the training, if there is validation data.
    A callback that sets ``stop_`` ends the training after the epoch.
    """

    def __init__(
        self, module, *, targets, seed, autocast=None, start_at_zero=False, rates=None, **kwargs
    ):
        kwargs.setdefault("iterator_valid__batch_size", PREDICTION_BATCH)
        super().__init__(
            module,
            iterator_train=Batches,
            iterator_train__shuffle=True,
            iterator_valid=Batches,
            train_split=None,
            predict_nonlinearity=targets.probabilities,
            verbose=0,
            history=EpochHistory(),
            **kwargs,
        )
        self.targets, self.seed, self.autocast, self.rates = targets, seed, autocast, rates
        self.start_at_zero = start_at_zero
        self.lowest_ = {}  # the best value so far of each column, as a loss

    @property
    def _default_callbacks(self):
        return []

    def rows(self, start=0):
        """Return the history from epoch number ``start`` on, as plain dictionaries."""
        counts = ("train_batch_count", "valid_batch_count")
        return [
            {
                name: value.item() if isinstance(value, np.generic) else value
                for name, value in row.items()
                # The bookkeeping of skorch.
                if name not in counts
                and not (name == "batches" and isinstance(value, list))
                and not (name.endswith("_best") and name[:-5] in row and isinstance(value, bool))
            }
            for row in self.history[start:]
        ]

    # --- data ---------------------------------------------------------------------------------

    def check_data(self, X, y=None):
        """Do nothing: the estimator has checked everything."""

    def get_dataset(self, X, y=None):
        return X if isinstance(X, Dataset) else EmbeddingDataset(torch.as_tensor(X))

    def infer(self, x, **fit_params):
        if isinstance(x, Mapping):
            x = {name: value for name, value in x.items() if name != "sample_weight"}
        else:
            x = {"X": x}
        x = {n: v.to(self.device) if torch.is_tensor(v) else v for n, v in x.items()}
        kind = torch.device(self.device).type
        with torch.autocast(kind, self.autocast) if self.autocast else nullcontext():
            return self.module_(**x).float()

    def predict(self, X):
        return self.targets.codes(self.forward(X).detach().numpy())

    # --- optimization -------------------------------------------------------------------------

    def initialize_optimizer(self, *args, **kwargs):
        super().initialize_optimizer(*args, **kwargs)
        kind = torch.device(self.device).type
        self.scaler_ = torch.amp.GradScaler(kind, enabled=self.autocast is torch.float16)
        return self

    def get_params_for_optimizer(self, prefix, named_parameters):
        """Return the arguments of the optimizer; biases and normalizations have no weight decay."""
        trainable = [(name, p) for name, p in named_parameters if p.requires_grad]
        (groups,), params = super().get_params_for_optimizer(prefix, trainable)
        if "weight_decay" not in params:  # LBFGS has none, and takes a single group
            return (groups,), params
        if self.rates is not None:
            by_rate = {self.lr: []}
            for name, parameter in trainable:
                by_rate.setdefault(self.rates.get(name, self.lr), []).append(parameter)
            groups = [{"params": held, "lr": lr} for lr, held in by_rate.items()]
        split = []
        for group in groups:
            matrices = [p for p in group["params"] if p.ndim > 1]
            others = [p for p in group["params"] if p.ndim <= 1]
            split += [{**group, "params": matrices}] if matrices else []
            split += [{"weight_decay": 0.0, **group, "params": others}] if others else []
        return (split,), params

    def get_loss(self, y_pred, y_true, X=None, training=False):
        weight = X["sample_weight"]
        weight = None if weight is None else weight.to(self.device)
        return self.criterion_(y_pred, y_true.to(self.device), weight)

    def train_step_single(self, batch, **fit_params):
        self._set_training(True)
        X, y = batch
        y_pred = self.infer(X)
        loss = self.get_loss(y_pred, y, X=X, training=True)
        self.scaler_.scale(loss).backward()
        if self.scaler_.is_enabled():
            self.scaler_.unscale_(self.optimizer_)  # callbacks may clip gradients
        return {"loss": loss, "y_pred": y_pred}

    def _step_optimizer(self, step_fn):
        if not self.scaler_.is_enabled():
            self.optimizer_.step(step_fn)
            return
        step_fn()
        self.scaler_.step(self.optimizer_)
        self.scaler_.update()

    def _set_training(self, training=True):
        # Walking over all layers in each step takes longer than the step of a small head.
        if self.module_.training != training or self.criterion_.training != training:
            super()._set_training(training)

    # --- the loop -----------------------------------------------------------------------------

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.stop_ = self.interrupted_ = False

    def on_epoch_begin(self, net, **kwargs):
        self.history.new_epoch()
        self.history.record("epoch", self.epoch_)

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Train on ``X``, a pair of datasets; the second one, to validate on, may be None."""
        dataset_train, dataset_valid = X
        datasets = {"dataset_train": dataset_train, "dataset_valid": dataset_valid}
        batches = self.get_iterator(dataset_train, training=True)
        valid = None if dataset_valid is None else self.get_iterator(dataset_valid)
        # The training accuracy costs little, and is recorded with that of the validation.
        self.count_right_ = valid is not None and self.targets.classes is not None
        self._set_training(False)  # otherwise parts in another mode would stay in it
        epoch = self.history[-1]["epoch"] if self.history else 0
        zero = [0] if self.start_at_zero and valid is not None and not self.history else []
        try:
            for number in [*zero, *range(epoch + 1, epoch + 1 + epochs)]:
                if self.stop_:
                    return self
                self.epoch_, start = number, perf_counter()
                seed_epoch(self.seed, number, self.device)
                self.notify("on_epoch_begin", **datasets)
                if number > 0:
                    self.history.record("lr", self.optimizer_.param_groups[0]["lr"])
                    dataset_train.start_epoch(number)
                    self.run_single_epoch(batches, True, "train", self.train_step)
                self.run_single_epoch(valid, False, "valid", self.validation_step)
                self.history.record("seconds", perf_counter() - start)
                self.notify("on_epoch_end", **datasets)
        except KeyboardInterrupt:  # EarlyStopping raises it, too
            stops = of_kind(EarlyStopping, self)
            self.interrupted_ = not any(stop.misses_ >= stop.patience for stop in stops)
            # The epoch was not trained to its end.
            if self.history and "seconds" not in self.history[-1]:
                del self.history[-1]
        return self

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        if iterator is None:
            return
        sizes, losses, right = [], [], []
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            # Numbers stay on the device until the end of the epoch: reading one waits for it.
            sizes.append(len(batch[1]))
            losses.append(step["loss"].detach())
            if self.count_right_:
                right.append(self.targets.n_right(step["y_pred"].detach(), batch[1]))
            self.notify("on_batch_end", batch=batch, training=training, **step)
        losses = torch.stack(losses).cpu().double().numpy()
        self._record(f"{prefix}_loss", float(np.average(losses, weights=sizes)), 1)
        if right:
            accuracy = float(torch.stack(right).sum()) / sum(sizes)
            self._record(f"{prefix}_accuracy", accuracy, -1)
        self.history.record(f"{prefix}_batch_count", len(sizes))

    def _record(self, name, value, sign):
        """Record a value and whether it is the best so far, as skorch's callbacks expect."""
        if name not in self.lowest_:
            before = [sign * row[name] for row in self.history[:-1] if name in row]
            self.lowest_[name] = min(before, default=inf)
        is_best = sign * value < self.lowest_[name]
        if is_best:
            self.lowest_[name] = sign * value
        self.history.record(name, value)
        self.history.record(f"{name}_best", is_best)


class ClassifierNet(Net, NeuralNetClassifier):
    """A net that predicts codes of classes."""


class RegressorNet(Net, NeuralNetRegressor):
    """A net that predicts numbers."""


def make_net(module, *, targets, **kwargs):
    """Return an uninitialized net for targets of any kind."""
    if targets.classes is None:
        return RegressorNet(module, targets=targets, **kwargs)
    classes = np.arange(targets.n_outputs)
    return ClassifierNet(module, targets=targets, classes=classes, **kwargs)


def train(
    net,
    dataset_train,
    dataset_valid,
    params,
    *,
    epochs,
    rates,
    description,
    lr_schedule=None,
    lr_schedule_params=None,
    callbacks=None,
    checkpoint=None,
    tasks=None,
):
    """Train a net, and return the number of the epoch whose weights it ends with.

    `params` is the estimator, whose ``scoring``, ``early_stopping``, ``n_iter_no_change``, ``tol``
    and ``verbose`` count. `epochs` is the length of the whole training, even if `checkpoint`
    resumes it. `rates` describes the learning rates for an error message. `tasks` holds the
    arguments of `FitTasks`. The other parameters are those of the estimators.
    """
    check_callbacks(callbacks, validates=dataset_valid is not None)
    monitor = "train_loss" if dataset_valid is None else f"valid_{params.scoring}"
    n_batches = len(net.get_iterator(dataset_train, training=True))
    schedule = make_schedule(lr_schedule, lr_schedule_params, net.lr, epochs, n_batches, monitor)
    # A scorer records what the schedule and the best epoch watch; the checkpoint saves them all.
    ours = [StopOnDivergence(net.lr, rates)]
    recorded = ("loss",) if net.targets.classes is None else ("loss", "accuracy")
    if dataset_valid is not None and params.scoring not in recorded:
        score = validation_score(params.scoring, net.targets)
        ours.append(EpochScoring(score, lower_is_better=False, name=monitor))
    if schedule is not None:
        ours.append(schedule)
    best = None
    if params.early_stopping:
        if len(dataset_valid) < FEW_SAMPLES:
            warn_user(
                f"Early stopping judges by only {len(dataset_valid)} validation samples, so the "
                "epoch it chooses depends largely on chance. Pass more with fit(X, y, X_val=..., "
                "y_val=...), raise validation_fraction, or set early_stopping=False.",
                SmallValidationWarning,
            )
        best = BestEpoch(monitor, params.n_iter_no_change, params.tol)
        ours.append(best)
    n_done = 0 if checkpoint is None else checkpoint.n_done
    last = [] if checkpoint is None else [checkpoint]
    last += [Progress(description, epochs, n_done, params.verbose)] if params.verbose else []
    last += [FitTasks(*tasks)] if tasks else []
    net.callbacks = [*ours, *(callbacks or []), *last]
    net.initialize_callbacks()
    net.partial_fit((dataset_train, dataset_valid), epochs=epochs - n_done)
    done = net.history[-1]["epoch"] if net.history else 0
    return done if best is None or not done else best.state_["epoch"]
