"""Warnings that point to the user's code."""

import sys
import warnings

__all__ = ["warn_user"]

#: Packages between the user's code and this package.
_IN_BETWEEN = {"sktransfer", "sklearn", "imblearn", "skorch", "joblib"}


def warn_user(message, category):
    """Emit a warning at the user's line, whatever the number of wrappers in between.

    In a worker's thread or process, this is the line where the worker starts.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_in_between(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_in_between(frame):
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _IN_BETWEEN
