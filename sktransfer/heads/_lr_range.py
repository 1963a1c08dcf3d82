"""The learning-rate range test."""

from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from sklearn.base import clone

__all__ = ["LearningRateCurve", "lr_range_test"]


@dataclass(frozen=True)
class LearningRateCurve:
    """What a learning-rate range test saw.

    Parameters
    ----------
    learning_rates : ndarray of shape (n_steps,)
        Learning rate of each step, growing by a constant factor.
    losses : ndarray of shape (n_steps,)
        Training loss before each step.
    smoothed : ndarray of shape (n_steps,)
        Losses as an exponential moving average, corrected for its start.
    suggestion : float
        Learning rate at which the smoothed loss falls most steeply.
    """

    learning_rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float


def lr_range_test(head, X, y, sample_weight=None, *, start=1e-6, end=1.0, n_steps=100):
    """Train for a moment with a growing learning rate and watch the loss.

    Parameters
    ----------
    head : HeadClassifier
        What is going to be fitted. It is cloned and stays as it is.
    X : array-like of shape (n_rows, n_features)
        Embeddings.
    y : array-like of shape (n_rows,) or (n_rows, n_labels)
        Targets.
    sample_weight : array-like of shape (n_rows,), default=None
        Weights of rows.
    start : float, default=1e-6
        First learning rate.
    end : float, default=1.0
        Last learning rate; the test stops earlier once the loss is four times its least.
    n_steps : int, default=100
        Training steps, each on one batch.

    Returns
    -------
    LearningRateCurve
        The curve and a suggestion.

    Raises
    ------
    ValueError
        If ``start`` is not below ``end``, there are fewer than ten steps, or the loss never falls
        or is not a number from the start.

    References
    ----------
    L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", WACV, 2017,
    https://arxiv.org/abs/1506.01186

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer.heads import HeadClassifier, lr_range_test
    >>> X, y = load_digits(return_X_y=True)
    >>> curve = lr_range_test(HeadClassifier(random_state=0), X, y)
    >>> 1e-5 < curve.suggestion < 1
    True
    """
    if not 0 < start < end or n_steps < 10:
        raise ValueError(
            f"start must be positive and below end, and n_steps at least 10; got start={start!r}, "
            f"end={end!r}, n_steps={n_steps!r}."
        )
    rates = np.geomspace(start, end, n_steps)
    losses = np.array(clone(head)._loss_by_rate(X, y, sample_weight, rates))
    rates, smoothed = rates[: len(losses)], smooth(losses)
    return LearningRateCurve(rates, losses, smoothed, steepest(rates, smoothed))


def losses_while_growing(net, batches, rates):
    """Yield the loss of each step until it explodes."""
    least = np.inf
    for rate, batch in zip(rates, chain.from_iterable(repeat(batches)), strict=False):
        for group in net.optimizer_.param_groups:
            group["lr"] = rate
        loss = net.train_step(batch)["loss"].item()
        least = min(least, loss)
        if not loss <= 4 * least:
            return
        yield loss


def smooth(losses, beta=0.9):
    """Return the exponential moving average, corrected for its start at zero."""
    average, averages = 0.0, []
    for step, loss in enumerate(losses, start=1):
        average = beta * average + (1 - beta) * loss
        averages.append(average / (1 - beta**step))
    return np.array(averages)


def steepest(rates, smoothed):
    """Return the learning rate at which the loss falls most steeply, per factor of the rate."""
    if not len(rates):
        raise ValueError(
            "The loss is not a number before the first step: look for something wrong with the "
            "module's initial weights or with the rows."
        )
    slopes = np.gradient(smoothed, np.log(rates)) if len(rates) > 1 else np.zeros(1)
    if not slopes.min() < 0:
        raise ValueError(
            f"The loss never falls between the learning rates {rates[0]:g} and {rates[-1]:g}: "
            "lower start, raise end, or look for something wrong with the targets."
        )
    return float(rates[slopes.argmin()])
