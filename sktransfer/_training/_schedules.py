"""Learning-rate schedules by name."""

import inspect
from math import cos, pi

from skorch.callbacks import LRScheduler
from torch.optim import lr_scheduler

from ._callbacks import LOSSES

__all__ = ["make_schedule"]

#: Fraction of the steps in which "warmup_cosine" raises the learning rate to its full value.
WARM_UP = 0.1

#: Arguments of the schedule that skorch takes.
_SKORCH = {"step_every", "monitor", "event_name"}


def make_schedule(schedule, params, *, lr, epochs, batches_per_epoch, monitor):
    """Return the callback for a schedule given by name or as a torch class, or None for None.

    "plateau" watches the column `monitor` of the history.
    """
    if schedule is None:
        if params:
            raise ValueError(
                f"lr_schedule_params={params!r} are arguments of lr_schedule, which is None. Set "
                "lr_schedule too, or drop the arguments."
            )
        return None
    n_steps = epochs * batches_per_epoch
    kind, defaults = {
        "cosine": (lr_scheduler.CosineAnnealingLR, {"T_max": epochs}),
        "warmup_cosine": (
            lr_scheduler.LambdaLR,
            {"lr_lambda": lambda step: warmup_cosine(step, n_steps), "step_every": "batch"},
        ),
        "one_cycle": (
            lr_scheduler.OneCycleLR,
            {"max_lr": lr, "total_steps": n_steps + 1, "step_every": "batch"},
        ),
        "step": (lr_scheduler.StepLR, {"step_size": max(1, epochs // 3)}),
        "exponential": (lr_scheduler.ExponentialLR, {"gamma": 0.01 ** (1 / epochs)}),
        "plateau": (
            lr_scheduler.ReduceLROnPlateau,
            {"patience": 3, "mode": "min" if monitor in LOSSES else "max"},
        ),
    }.get(schedule, (schedule, {}))
    check_arguments(kind, params or {}, "lr_schedule_params", {"optimizer"}, _SKORCH)
    options = {"monitor": monitor, "event_name": None, **defaults, **(params or {})}
    if kind is not lr_scheduler.ReduceLROnPlateau:
        options.setdefault("last_epoch", -1)  # each fit starts its schedule afresh
    return LRScheduler(kind, **options)


def warmup_cosine(step, n_steps):
    """Return the factor of the full learning rate: linear growth, then half a cosine to zero."""
    warm_up = max(1, round(WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + cos(pi * (step - warm_up) / max(1, n_steps - warm_up)))


def check_arguments(function, given, name, ours=frozenset(), extra=frozenset()):
    """Check that a class or function takes the arguments in a dict parameter called ``name``.

    ``ours`` are arguments that the caller passes, ``extra`` are accepted besides.
    """
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = {n for n, p in parameters.items() if p.kind is not p.VAR_POSITIONAL} - ours
    unknown = sorted(map(repr, given.keys() - known - extra))
    if unknown:
        label = getattr(function, "__name__", None) or repr(function)
        raise ValueError(
            f"{name} has {', '.join(unknown)}, which {label} does not take. It takes "
            f"{', '.join(sorted(known))}."
        )
