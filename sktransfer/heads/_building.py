"""From the parameters of a head to a net that is ready to train."""

from contextlib import contextmanager
from functools import partial
from numbers import Integral
from pathlib import Path

import numpy as np
import torch

from .._training._samples import digest_rows, moments
from .._utils._canonical import NoTextError, canonical
from .._utils._threads import own_generators, usable_kernels
from ._modules import (
    OPTIMIZERS,
    Head,
    HeadLoss,
    accepts,
    build_head,
    has_batch_norm,
    softmax,
)
from ._penalty import MOST_ROWS, ridge_of

__all__ = [
    "begin_training",
    "check_batches",
    "check_device",
    "check_structure",
    "checkpoint_path",
    "continue_training",
    "described",
    "resolve_device",
    "seeded",
    "structure",
    "train_net",
]

#: Parameters that decide which weights there are; they cannot change while training goes on.
STRUCTURE = (
    "hidden_units",
    "dropout",
    "batch_norm",
    "activation",
    "scaling",
    "module",
    "module_params",
    "optimizer",
    "optimizer_params",
)

#: Parameters that do not change what is learned, or whose effect is in the rows.
NOT_IN_DIGEST = {
    "callbacks",
    "checkpoint_dir",
    "device",
    "random_state",
    "validation_splitter",
    "verbose",
}


def structure(head):
    """Return the parameters that a net was built with, to be compared later."""
    return {name: getattr(head, name) for name in STRUCTURE}


def check_structure(head, built_with):
    """Check that training can go on with the weights that there are."""
    changed = [n for n, value in structure(head).items() if not same(value, built_with[n])]
    if changed:
        before = ", ".join(f"{name}={built_with[name]!r}" for name in changed)
        raise ValueError(
            f"Training cannot go on from a head that was built with {before}: the new value needs "
            f"new weights. Set it back, or fit anew with warm_start=False."
        )


def same(value, other):
    """Whether two values of a parameter say the same, arrays in them included."""
    try:
        return bool(value == other) or canonical(value, "it") == canonical(other, "it")
    except NoTextError:
        return False
    except ValueError:  # arrays have no single truth
        return canonical(value, "it") == canonical(other, "it")


def check_device(head, net):
    """Check that training can go on where the net is."""
    if str(head.device) not in ("auto", net.device):
        raise ValueError(
            f"Training cannot go on from a head on the device {net.device!r} with "
            f"device={head.device!r}. Set it back, or fit anew with warm_start=False."
        )


def resolve_device(device):
    """Return the name of a device that this machine has."""
    device = str(device)
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(
            f'device={device!r} is no device that torch knows. Pass "auto", "cpu", "cuda", '
            f'"cuda:1" or "mps".'
        ) from error
    if (kind == "cuda" and not torch.cuda.is_available()) or (
        kind == "mps" and not torch.backends.mps.is_available()
    ):
        raise ValueError(
            f"device={device!r} was asked for, and torch finds no such device here. Pass "
            'device="auto" or device="cpu", or install a torch that was built for it.'
        )
    return device


@contextmanager
def seeded(seed, device):
    """Seed torch's generators for a while and leave them as they were; other threads wait."""
    device = torch.device(device)
    devices = [device] if device.type == "cuda" else []
    with own_generators(devices), usable_kernels():
        torch.manual_seed(seed)
        yield


def scaling_of(scaling, rows):
    """Return what to subtract from features and what to divide them by; None for neither."""
    if scaling is None:
        return None, None
    mean, variance = moments(rows.X, rows.weight)
    scale = np.sqrt(variance.mean() if scaling == "global" else variance)
    return mean, np.where(scale > 0, scale, 1.0)


def network_of(head):
    """Return the function that builds the network, given numbers of features and outputs."""
    if head.module is not None:
        check_custom_module(head)
        return partial(head.module, **(head.module_params or {}))
    if head.module_params:
        raise ValueError(
            f"module_params={head.module_params!r} are arguments of module, which is None. Pass "
            "the module as well, or leave them out."
        )
    return partial(
        build_head,
        hidden_units=check_units(head.hidden_units),
        dropout=head.dropout,
        batch_norm=head.batch_norm,
        activation=head.activation,
    )


def check_custom_module(head):
    """Check that nothing is asked for that a user's custom module would not do."""
    if isinstance(head.module, torch.nn.Module):
        raise ValueError(
            f"module must be a class or a function, so that each fit begins with new weights; got "
            f"an instance of {type(head.module).__name__}. Pass the class, and its arguments as "
            "module_params."
        )
    asked = [n for n in ("hidden_units", "dropout", "batch_norm") if getattr(head, n)]
    asked += ["activation"] if head.activation != "relu" else []
    if asked:
        raise ValueError(
            f"{', '.join(asked)} would be ignored, because module={name_of(head.module)} builds "
            "the whole network. Leave them out, or pass them on as module_params."
        )


def check_units(hidden_units):
    """Return the widths of the dense layers as a tuple."""
    units = (hidden_units,) if isinstance(hidden_units, Integral) else tuple(hidden_units)
    if all(isinstance(width, Integral) and width > 0 for width in units):
        return units
    raise ValueError(
        f"hidden_units must be a positive whole number or a tuple of them, such as 256 or "
        f"(256, 64); got {hidden_units!r}."
    )


def optimizer_of(head, rows, mean, scale):
    """Return the optimiser's class and its arguments; the rows are scaled as given."""
    optimizer = OPTIMIZERS.get(head.optimizer, head.optimizer)
    params = {"momentum": 0.9} if head.optimizer == "sgd" else {}
    asked = head.optimizer_params or {}
    if head.optimizer in ("adam", "adamw", "sgd") and not {"foreach", "differentiable"} & {*asked}:
        params["fused"] = True  # one kernel for all weights, where a head's are few and small
    if accepts(optimizer, "weight_decay"):
        params["weight_decay"] = weight_decay_of(head, rows, mean, scale)
    elif head.weight_decay not in ("auto", 0):
        raise ValueError(
            f"{name_of(optimizer)} has no weight decay; set weight_decay=0 (it is "
            f"{head.weight_decay!r})."
        )
    told = {"lr": head.lr, "weight_decay": head.weight_decay}
    twice = [name for name, value in told.items() if name in asked and value != "auto"]
    if twice:
        raise ValueError(
            f"{twice[0]}={told[twice[0]]!r} and optimizer_params={asked!r} both say what the "
            f"optimiser's {twice[0]} is. Leave one of them out."
        )
    return optimizer, {**params, **asked}


def weight_decay_of(head, rows, mean, scale):
    """Return the weight decay; "auto" looks at the rows of a linear head, and is small for others.

    The loss is a mean over rows (and labels), and the penalty that is chosen goes beside a sum.
    """
    if head.weight_decay != "auto":
        return head.weight_decay
    if not is_linear(head) or head.optimizer == "adamw":
        return 0.01 if head.optimizer == "adamw" else 1e-4
    # Rows lie in the order of their digests, so that the first are like the others.
    first = rows.first_images(MOST_ROWS)
    X = first.X if mean is None else (first.X - mean) / scale
    return ridge_of(X, first.y, first.weight, first.image) / rows.y.size


def is_linear(head):
    return head.module is None and not check_units(head.hidden_units)


def learning_rate_of(head, n_features):
    """Return the learning rate; "auto" moves logits at the same pace whatever the width.

    At the rate that suits a hidden layer for all epochs, the loss on validation rows would be
    lowest after a handful of epochs, long before accuracy is highest.
    """
    if head.lr != "auto":
        return head.lr
    if is_linear(head):
        return 0.2 / n_features**0.5
    return 0.001 if head.early_stopping else 0.004


def begin_training(head, rows, n_outputs, device):
    """Return an initialised net with new weights."""
    from .._training import _net as _training

    multilabel = rows.y.ndim == 2
    mean, scale = scaling_of(head.scaling, rows)
    optimizer, optimizer_params = optimizer_of(head, rows, mean, scale)
    net = _training.HeadNet(
        Head,
        module__n_features=rows.X.shape[1],
        module__n_outputs=n_outputs,
        module__make=network_of(head),
        module__mean=mean,
        module__scale=scale,
        criterion=HeadLoss,
        criterion__multilabel=multilabel,
        criterion__label_smoothing=head.label_smoothing,
        optimizer=optimizer,
        **{f"optimizer__{name}": value for name, value in optimizer_params.items()},
        lr=learning_rate_of(head, rows.X.shape[1]),
        max_epochs=head.max_epochs,
        batch_size=head.batch_size,
        iterator_train=_training.TensorBatches,
        iterator_train__shuffle=True,
        iterator_valid=_training.TensorBatches,
        iterator_valid__batch_size=_training.PREDICTION_BATCH,
        dataset=_training.TensorRows,
        train_split=None,
        predict_nonlinearity=torch.sigmoid if multilabel else softmax,
        multilabel=multilabel,
        classes=np.arange(n_outputs),
        device=device,
        verbose=int(head.verbose >= 2),
    )
    return net.initialize()


def continue_training(head, net):
    """Give a net that goes on training the parameters that may have changed."""
    from .._training._net import is_decayed

    net.lr = learning_rate_of(head, head.n_features_in_)
    for group in net.optimizer_.param_groups:
        group["lr"] = net.lr
        if head.weight_decay != "auto" and is_decayed(group):
            group["weight_decay"] = head.weight_decay
    net.criterion_.label_smoothing = head.label_smoothing
    net.batch_size, net.verbose = head.batch_size, int(head.verbose >= 2)
    return net


def check_batches(head, net, n_rows):
    """Check that batch normalisation never gets a batch of one row."""
    if min(head.batch_size, n_rows) > 1 or not has_batch_norm(net.module_):
        return
    raise ValueError(
        f"Batch normalisation needs two different rows in every training batch; there are "
        f"{n_rows} rows and batch_size={head.batch_size}. Give more rows at a time, raise "
        "batch_size, or set batch_norm=False."
    )


def train_net(head, net, train, valid, checkpoint, incremental):
    """Train a net for the epochs that are left, and return the epoch whose weights it has."""
    from .._training._net import TensorRows

    epochs = 1 if incremental else head.max_epochs
    train = TensorRows.from_arrays(train, net.module_, net.device)
    valid = None if valid is None else TensorRows.from_arrays(valid, net.module_, net.device)
    net.callbacks = [
        *scoring_callbacks(head, valid),
        *([] if incremental else schedule_callbacks(head, net.lr, train, valid, epochs)),
        *(head.callbacks or []),
        *stopping_callbacks(head, valid, checkpoint),
        *progress_callbacks(head, epochs),
    ]
    net.initialize_callbacks()
    net.train_on(train, valid, epochs - (0 if checkpoint is None else checkpoint.epochs_done()))
    if not incremental:
        net.forget_steps()
    kept = dict(net.callbacks_).get("head_best")
    return kept.best_epoch_ if kept is not None and kept.patience else len(net.history)


def monitored(head, valid):
    """Return the column of the history that early stopping and checkpoints watch."""
    return "train_loss" if valid is None else f"valid_{head.scoring}"


def scoring_callbacks(head, valid):
    from skorch.callbacks import EpochScoring

    from .._training._net import NoDivergence

    if valid is None or head.scoring == "loss":
        return [("head_divergence", NoDivergence())]
    scoring = EpochScoring(head.scoring, lower_is_better=False, name=monitored(head, valid))
    return [("head_divergence", NoDivergence()), ("head_scoring", scoring)]


def schedule_callbacks(head, lr, train, valid, epochs):
    from .._training._net import TensorBatches, make_scheduler

    if head.lr_schedule is None:
        if head.lr_schedule_params:
            raise ValueError(
                f"lr_schedule_params={head.lr_schedule_params!r} are arguments of lr_schedule, "
                "which is None. Pass lr_schedule as well, or leave them out."
            )
        return []
    scheduler = make_scheduler(
        head.lr_schedule,
        head.lr_schedule_params,
        lr=lr,
        epochs=epochs,
        batches_per_epoch=len(TensorBatches(train, head.batch_size)),
        monitor=monitored(head, valid),
    )
    return [("head_schedule", scheduler)]


def stopping_callbacks(head, valid, checkpoint):
    from .._training._net import BestEpoch

    patience = head.n_iter_no_change if head.early_stopping else None
    if patience is None and checkpoint is None:
        return []
    return [("head_best", BestEpoch(monitored(head, valid), patience, head.tol, checkpoint))]


def progress_callbacks(head, epochs):
    from .._training._net import EpochBar

    return [("head_bar", EpochBar(epochs))] if head.verbose == 1 else []


def checkpoint_path(head, train, valid):
    """Return the file of a checkpoint: one for each set of rows and parameters."""
    directory = Path(head.checkpoint_dir)
    directory.mkdir(parents=True, exist_ok=True)
    text = described(head, NOT_IN_DIGEST)
    return directory / f"head-{digest_rows([*train, *(valid or ())], text)}.pt"


def described(estimator, left_out):
    """Return a text of what an estimator learns by, and of its seed, the same in each process."""
    params = estimator.get_params(deep=False)
    seed = params["random_state"] if isinstance(params["random_state"], Integral) else None
    names = [name for name in sorted(params) if name not in left_out]
    try:
        return repr((seed, [(name, canonical(params[name], name)) for name in names]))
    except NoTextError as error:
        raise ValueError(
            f"Checkpoints are named after all that a fit depends on, and no text tells what {error}"
            " does. Use classes and functions at the top level of a module, and numbers, texts, "
            "arrays and containers of these; or set checkpoint_dir=None."
        ) from None


def name_of(function):
    """Return how an error may call a class or a function."""
    return getattr(function, "__name__", None) or repr(function)
