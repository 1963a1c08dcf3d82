"""State that a forked child must reset: it inherits the parent's locks, but not its threads."""

import os
import threading


def after_fork_in_child(function):
    """Call a function without arguments in each forked child; usable as a decorator."""
    if hasattr(os, "register_at_fork"):  # Windows has neither this nor fork
        os.register_at_fork(after_in_child=function)
    return function


def fork_safe_lock():
    """Return a lock for state that must not be copied half-changed; a fork waits for it."""
    lock = threading.RLock()  # a thread that holds it may fork
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )
    return lock


#: Held while a function imports a module: a fork waits, because a child would wait for ever for
#: modules that a thread of its parent was importing.
IMPORTING = fork_safe_lock()
