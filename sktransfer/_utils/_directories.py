"""Directories of the process."""

import os

__all__ = ["working_directory"]


def working_directory():
    """Return what relative paths are relative to, with a separator at its end."""
    try:
        return os.path.join(os.getcwd(), "")
    except FileNotFoundError:  # it has been deleted, and nothing is to be found there
        return os.path.join(os.curdir, "")
