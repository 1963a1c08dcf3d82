"""Learning-rate schedules by name."""

from math import cos, pi

from skorch.callbacks import LRScheduler
from torch.optim import lr_scheduler

from ._callbacks import LOSSES
from ._parameters import check_arguments

#: Fraction of the steps in which "warmup_cosine" raises the learning rate to its full value.
WARM_UP = 0.1

#: Arguments of the schedule that skorch takes.
_SKORCH = {"step_every", "monitor", "event_name"}


def make_schedule(schedule, params, lr, epochs, batches_per_epoch, monitor):
    """Return the callback for a schedule given by name or as a torch class, or None for None."""
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
    if not (isinstance(kind, type) and issubclass(kind, lr_scheduler.LRScheduler)):
        raise ValueError(
            f"lr_schedule={schedule!r} is neither a name nor a class of torch.optim.lr_scheduler."
        )
    check_arguments(kind, params or {}, "lr_schedule_params", {"optimizer"}, _SKORCH)
    options = {"monitor": monitor, "event_name": None, **defaults, **(params or {})}
    if options.get("step_every", "epoch") not in ("epoch", "batch"):
        raise ValueError(f'lr_schedule_params={params!r}: step_every must be "epoch" or "batch".')
    if kind is not lr_scheduler.ReduceLROnPlateau:
        options.setdefault("last_epoch", -1)  # each fit starts its schedule afresh
    return LRScheduler(kind, **options)


def warmup_cosine(step, n_steps):
    """Return the factor of the full learning rate: linear growth, then half a cosine to zero."""
    warm_up = max(1, round(WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + cos(pi * (step - warm_up) / max(1, n_steps - warm_up)))
