"""Warnings that point at the user's code."""

import sys
import warnings

__all__ = ["warn_user"]

#: Packages through which a call passes on its way from the user to us.
_IN_BETWEEN = {"sktransfer", "sklearn", "imblearn", "skorch", "joblib"}


def warn_user(message, category):
    """Warn at the line by which this package was called, however many wrappers lie in between.

    In a thread or process of a worker that is where the worker began.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_in_between(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_in_between(frame):
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _IN_BETWEEN
