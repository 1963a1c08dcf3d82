"""Directories of the process."""

import os

__all__ = ["working_directory"]


def working_directory():
    """Return the working directory, with a trailing separator."""
    try:
        return os.path.join(os.getcwd(), "")
    except FileNotFoundError:  # it has been deleted
        return os.path.join(os.curdir, "")
