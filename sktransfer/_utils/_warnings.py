"""Warnings that point to the user's code, and warnings of other packages that nobody needs."""

import re
import sys
import warnings
from collections import Counter
from contextlib import contextmanager, suppress

from ._fork import after_fork_in_child, fork_safe_lock

#: Packages between the user's code and this package.
_IN_BETWEEN = {"sktransfer", "sklearn", "imblearn", "skorch", "joblib"}

_inside = Counter()  # {module: number of threads that hide its warnings}
_lock = fork_safe_lock()


def warn_user(message, category):
    """Emit a warning at the user's line, whatever the number of wrappers in between."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in _IN_BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def quiet(module=""):
    """Hide warnings from a module, a regular expression, in any number of threads.

    The first to enter adds a filter and the last to leave removes it: threads that overlap would
    leave filters of `warnings.catch_warnings` behind.
    """
    # The comment makes the filter differ from all others.
    pattern = f"(?#sktransfer){module}"
    with _lock:
        _inside[pattern] += 1
        if _inside[pattern] == 1:
            warnings.filterwarnings("ignore", module=pattern)
    try:
        yield
    finally:
        with _lock:
            _inside[pattern] = max(0, _inside[pattern] - 1)  # 0 if forked inside
            if _inside[pattern] == 0:
                _remove(pattern)


def _remove(pattern):
    with suppress(ValueError):  # `warnings.resetwarnings` has removed it
        warnings.filters.remove(("ignore", None, Warning, re.compile(pattern), 0))


@after_fork_in_child
def _reset():
    """Remove the filters of threads that do not exist in a forked child."""
    for pattern in _inside:
        _remove(pattern)
    _inside.clear()
