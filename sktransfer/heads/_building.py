"""From the parameters of a head to a net that is ready to train."""

import inspect
from functools import partial
from numbers import Integral

import numpy as np
import torch

from .._training._parameters import MAX_UNITS, check_arguments, name_of
from .._training._random import seeded
from .._utils._hashing import hash_value
from .._utils._threads import single_threaded_kernels, usable_kernels
from ._modules import Head, build_head
from ._penalty import MAX_SAMPLES, choose_penalty

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}

#: Parameters that determine the shapes of the weights; they cannot change between calls of
#: ``partial_fit``.
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

#: Number of multiplications in a training step below which one thread trains. Several would be
#: little faster, and on a busy machine many times slower, since they wait for each other in each
#: operation.
SMALL_STEP = 100_000_000


def kernels_for(n_samples, module):
    """Return a context with one thread for small training steps, and all threads for large ones."""
    work = n_samples * sum(parameter.numel() for parameter in module.parameters())
    return single_threaded_kernels() if work < SMALL_STEP else usable_kernels()


def check_structure(head, built_with):
    """Check that training can continue with the existing weights."""

    def equal(value, other):
        try:
            return hash_value(value) == hash_value(other) or bool(value == other)
        except ValueError:  # lambdas have no hash, and arrays no single truth value
            return value is other

    changed = [
        f"{name}={before!r}"
        for name, before in built_with.items()
        if not equal(getattr(head, name), before)
    ]
    if changed:
        raise ValueError(
            f"partial_fit cannot continue: the head was built with {', '.join(changed)}, and the "
            "new value needs new weights. Restore the old value, or call fit."
        )


def build_module(head, n_features, n_outputs, mean, scale):
    """Return the network with new weights."""
    if head.module is not None:
        if isinstance(head.module, torch.nn.Module):
            raise ValueError(
                "module must be a class or a function, so that each fit starts with new weights; "
                f"got an instance of {type(head.module).__name__}. Pass the class, and its "
                "arguments as module_params."
            )
        ignored = [n for n in ("hidden_units", "dropout", "batch_norm") if getattr(head, n)]
        ignored += ["activation"] if head.activation != "relu" else []
        if ignored:
            raise ValueError(
                f"{', '.join(ignored)} would be ignored, because module={name_of(head.module)} "
                "builds the whole network. Drop them, or pass them as module_params."
            )
        given = {**(head.module_params or {}), "n_features": n_features, "n_outputs": n_outputs}
        try:
            inspect.signature(head.module).bind(**given)
        except TypeError as error:
            raise TypeError(
                f"module={name_of(head.module)} does not accept the keyword arguments "
                f"{', '.join(given)}: {error}. Pass a class or a function that accepts them, such "
                "as def make(n_features, n_outputs)."
            ) from error
        make = partial(head.module, **given)
    elif head.module_params:
        raise ValueError(
            f"module_params={head.module_params!r} are arguments of module, which is None. Set "
            "module too, or drop the arguments."
        )
    else:
        make = partial(
            build_head,
            hidden_units=hidden_units(head),
            dropout=head.dropout,
            batch_norm=head.batch_norm,
            activation=head.activation,
        )
    with seeded(head._seed, "cpu"):
        return Head(n_features, n_outputs, make, mean, scale)


def hidden_units(head):
    """Return the widths of the dense layers as a tuple; empty for a linear head or a module."""
    units = head.hidden_units
    if units is None or (isinstance(units, Integral) and units == 0 and units is not False):
        return ()
    units = (units,) if isinstance(units, Integral) else tuple(units)
    if all(
        isinstance(width, Integral) and not isinstance(width, bool) and 0 < width <= MAX_UNITS
        for width in units
    ):
        return units
    raise ValueError(
        "hidden_units must be a positive integer or a tuple of them, such as 256 or (256, 64), of "
        f"at most {MAX_UNITS:,} units, or 0 or None for a linear head; got {head.hidden_units!r}."
    )


def resolve_lr(head, n_features):
    """Return the learning rate; with "auto", logits change at the same pace for every width.

    Early stopping of a hidden layer needs a lower rate. With the rate that suits a full training,
    the validation loss is lowest after a few epochs, long before accuracy is highest.
    """
    given = (head.optimizer_params or {}).get("lr", head.lr)
    if given != "auto":
        return given
    if head.module is None and not hidden_units(head):
        return 0.2 / n_features**0.5
    return 0.001 if head.early_stopping else 0.004


def resolve_weight_decay(head, samples, targets, mean, scale):
    """Return the weight decay; "auto" chooses that of a linear head from its samples."""
    given = (head.optimizer_params or {}).get("weight_decay", head.weight_decay)
    if given != "auto":
        return given
    if head.optimizer == "adamw":
        return 0.01
    if head.module is not None or hidden_units(head):
        return 1e-4
    # One sample per group: the other views of an image would give away the one left out.
    _, first = np.unique(samples.group, return_index=True)
    n_groups = len(first)
    if n_groups > MAX_SAMPLES:
        first = np.random.default_rng(head._seed).choice(first, MAX_SAMPLES, replace=False)
    some = samples.take(np.sort(first))
    X = some.X if mean is None else (some.X - mean) / scale
    # The penalty is for a sum of losses; the net has a mean over samples and outputs.
    n_outputs = some.y[0].size
    if targets.classes is not None:
        return choose_penalty(X, some.y, some.weight) / (n_groups * n_outputs)
    curvature = 2.0 if head.loss == "squared_error" else 1.0
    return choose_penalty(X, some.y, some.weight, curvature) / (n_groups * n_outputs)


def build_net(head, module, targets, device):
    """Return an initialized net around a module."""
    from .._training._net import make_net

    optimizer = OPTIMIZERS.get(head.optimizer, head.optimizer)
    if not (isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)):
        raise ValueError(f"optimizer={optimizer!r} is neither a name nor a class of torch.optim.")
    given = head.optimizer_params or {}
    check_arguments(optimizer, given, "optimizer_params", {"params"}, {"param_groups"})
    for name, value in {"lr": head.lr, "weight_decay": head.weight_decay}.items():
        if name in given and value != "auto":
            raise ValueError(
                f"{name}={value!r} and optimizer_params={given!r} both set the optimizer's {name}. "
                "Drop one of them."
            )
    params = {"momentum": 0.9} if head.optimizer == "sgd" else {}
    if head.optimizer in ("adam", "adamw", "sgd") and not {"foreach", "differentiable"} & {*given}:
        params["fused"] = True  # one kernel for all weights, because a head has few small ones
    if "weight_decay" in inspect.signature(optimizer).parameters:
        params["weight_decay"] = head.weight_decay_
    elif head.weight_decay not in ("auto", 0):
        raise ValueError(
            f"{name_of(optimizer)} has no weight decay; set weight_decay=0 (it is "
            f"{head.weight_decay!r})."
        )
    net = make_net(
        module,
        targets=targets,
        seed=head._seed,
        criterion=head._loss(),
        optimizer=optimizer,
        **{f"optimizer__{name}": value for name, value in {**params, **given}.items()},
        lr=head.lr_,
        batch_size=head.batch_size,
        device=device,
    )
    try:
        return net.initialize()
    except Exception as error:
        raise ValueError(
            f"{name_of(optimizer)} refuses lr={head.lr_} with optimizer_params={given!r}: {error}."
        ) from error
