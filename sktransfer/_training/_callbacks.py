"""Callbacks of a training: divergence, best epoch, checkpoint, progress."""

from functools import partial
from math import inf, isfinite, isnan

import torch
from sklearn.metrics import get_scorer
from skorch.callbacks import Callback, LRScheduler
from tqdm.auto import tqdm

from .._utils._files import replacing
from .._utils._sklearn import is_for_numbers
from ..exceptions import TrainingDivergedError

#: Columns of the history in which less is better; scores of scikit-learn all mean more.
LOSSES = ("train_loss", "valid_loss")


def check_callbacks(callbacks, validates):
    """Refuse what is not a skorch callback, and callbacks that need missing validation samples."""
    for given in callbacks or []:
        held = given[1] if isinstance(given, tuple) and len(given) == 2 else given
        if not issubclass(held if isinstance(held, type) else type(held), Callback):
            raise ValueError(
                f"callbacks contains {given!r}, which is not a skorch callback. Pass instances of "
                "skorch.callbacks.Callback, or pairs (name, callback)."
            )
        monitor = getattr(held, "monitor", None)
        if str(monitor).startswith("valid_") and not validates:
            raise ValueError(
                f"callbacks contains {type(held).__name__}(monitor={monitor!r}), but there are no "
                "validation samples. Pass X_val and y_val to fit, set early_stopping=True (which "
                'holds out validation_fraction), or use monitor="train_loss".'
            )


def of_kind(kind, net):
    """Return the callbacks of a net that are instances of a class."""
    return [callback for _, callback in net.callbacks_ if isinstance(callback, kind)]


def validation_score(scoring, targets):
    """Return the function that scores a net, after refusing scorers for other targets."""
    scorer = get_scorer(scoring)
    if targets.classes is not None and is_for_numbers(scorer):
        raise ValueError(
            f"scoring={scoring!r} compares numbers, but y holds classes. Use a scorer for classes, "
            'such as "accuracy", "f1_macro" or "roc_auc_ovr".'
        )

    def score(net, X, y):
        try:
            return scorer(net, X, targets.decode(y))
        except ValueError as error:
            raise ValueError(
                f"scoring={scoring!r} fails on the validation samples ({error}). Choose a scorer "
                'for these targets, such as "f1_macro" for several classes or "r2" for numbers.'
            ) from error

    return score


class StopOnDivergence(Callback):
    """Raise an error that describes the learning rates when the training loss is not finite."""

    def __init__(self, lr, rates):
        self.lr, self.rates = lr, rates

    def on_epoch_end(self, net, **kwargs):
        loss = net.history[-1].get("train_loss", 0.0)
        if not isfinite(loss):
            raise TrainingDivergedError(
                f"The training loss became {loss} in epoch {net.history[-1]['epoch']} with "
                f"{self.rates}. Try lr={self.lr / 10:g}."
            )


class BestEpoch(Callback):
    """Stop when a column of the history no longer improves, and restore the best weights."""

    def __init__(self, monitor, patience, tol):
        self.monitor, self.patience, self.tol = monitor, patience, tol

    def on_train_begin(self, net, **kwargs):
        self.state_ = {"value": inf, "epoch": None, "weights": None, "misses": 0}

    def on_epoch_end(self, net, **kwargs):
        value = net.history[-1][self.monitor]
        loss = value if self.monitor in LOSSES else -value
        if self.state_["epoch"] is None or loss < self.state_["value"] - self.tol:
            weights = net.module_.state_dict()
            self.state_ = {
                "value": inf if isnan(loss) else float(loss),
                "epoch": net.history[-1]["epoch"],
                "weights": {name: w.detach().cpu().clone() for name, w in weights.items()},
                "misses": 0,
            }
        else:
            self.state_["misses"] += 1
        net.stop_ = self.state_["misses"] >= self.patience

    def on_train_end(self, net, **kwargs):
        if self.state_["weights"] is not None:
            net.module_.load_state_dict(self.state_.pop("weights"))


class Checkpoint(Callback):
    """Write a checkpoint after each epoch, and resume from one that is unfinished.

    ``seed`` is that of the first run, ``n_done`` the number of epochs that earlier runs completed.
    With ``reuse``, the weights of a finished training are used again; with ``same_seed``, only
    those of a training with this seed.
    """

    def __init__(self, path, seed, reuse=False, same_seed=False):
        self.path, self.seed, self.n_done, self.saved = path, seed, 0, None
        if not path.exists():
            return
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # it may contain anything
            raise ValueError(
                f"The checkpoint {path} cannot be read ({error!r}). Delete it to start again."
            ) from error
        if (reuse or not saved["finished"]) and not (same_seed and saved["seed"] != seed):
            self.saved, self.seed = saved, saved["seed"]
            self.n_done = max((row["epoch"] for row in saved["history"]), default=0)

    def on_train_begin(self, net, **kwargs):
        for partial_file in self.path.parent.glob(f"{self.path.name}*.part"):
            partial_file.unlink(missing_ok=True)  # of a run killed while it wrote
        state, self.saved = self.saved, None
        if state is None:
            return
        net.module_.load_state_dict(state["module"])
        net.history.extend({"batches": [], **row} for row in state["history"])
        if state["finished"]:
            return
        net.optimizer_.load_state_dict(state["optimizer"])
        net.scaler_.load_state_dict(state["scaler"])
        schedules = of_kind(LRScheduler, net)
        if len(schedules) != len(state["schedules"]):
            raise ValueError(
                f"The checkpoint {self.path} was written with other `callbacks`: it has "
                f"{len(state['schedules'])} learning rate schedules, not {len(schedules)}. Pass "
                "the same callbacks, or delete the file to start again."
            )
        for schedule, saved in zip(schedules, state["schedules"], strict=True):
            schedule.lr_scheduler_.load_state_dict(saved)
        for best in of_kind(BestEpoch, net):
            best.state_ = state["best"]
            net.stop_ = best.state_["misses"] >= best.patience

    def on_epoch_end(self, net, **kwargs):
        state = {
            "optimizer": net.optimizer_.state_dict(),
            "scaler": net.scaler_.state_dict(),
            "schedules": [s.lr_scheduler_.state_dict() for s in of_kind(LRScheduler, net)],
        }
        for best in of_kind(BestEpoch, net):
            state["best"] = best.state_
        self._write(net, finished=False, **state)

    def on_train_end(self, net, **kwargs):
        if not net.interrupted_:
            self._write(net, finished=True)

    def _write(self, net, **state):
        state |= {"module": net.module_.state_dict(), "history": net.rows(), "seed": self.seed}
        with replacing(self.path) as file:
            torch.save(state, file)


class FitTasks(Callback):
    """Report each epoch to the callbacks of scikit-learn, which may stop the training.

    ``fitted(net)`` returns the attributes of an estimator that predicts with the net as it is.
    """

    def __init__(self, estimator, context, X, y, fitted=None):
        self.estimator, self.context, self.X, self.y = estimator, context, X, y
        self.fitted = fitted

    def on_epoch_begin(self, net, **kwargs):
        self.task_ = self.context.subcontext("epoch")
        self.task_.call_on_fit_task_begin(estimator=self.estimator, X=self.X, y=self.y)

    def on_epoch_end(self, net, **kwargs):
        net.stop_ |= self.task_.call_on_fit_task_end(
            estimator=self.estimator,
            X=self.X,
            y=self.y,
            reconstruction_attributes=self.fitted and partial(self.fitted, net),
        )


class Progress(Callback):
    """Show a progress bar over epochs, or with ``verbose=2`` print a line for each."""

    def __init__(self, description, total, n_done, verbose):
        self.description, self.total, self.n_done = description, total, n_done
        self.verbose = verbose

    def on_train_begin(self, net, **kwargs):
        if self.verbose >= 2:
            print(self.description)
        self.bar_ = tqdm(
            total=self.total,
            initial=self.n_done,
            desc=self.description,
            unit="epoch",
            disable=self.verbose != 1,
        )

    def on_epoch_end(self, net, **kwargs):
        (row,) = net.rows(-1)
        values = {
            name: f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
            for name, value in row.items()
            if name not in ("epoch", "lr")
        }
        if self.verbose >= 2:
            line = "  ".join(f"{name} {value}" for name, value in values.items())
            print(f"epoch {row['epoch']:3d}  {line}")
        self.bar_.set_postfix(values, refresh=False)
        self.bar_.update(row["epoch"] > 0)

    def on_train_end(self, net, **kwargs):
        self.bar_.close()
