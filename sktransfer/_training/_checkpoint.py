"""Checkpoint files: written whole or not at all."""

import os
import tempfile
from pathlib import Path

import torch


def write_checkpoint(path, state):
    """Replace a checkpoint in one step, so that a kill leaves the old one or the new one."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def read_checkpoint(path):
    """Return the state of a training, on the CPU, or None if there is none."""
    if path is None or not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # it may contain anything
        raise ValueError(
            f"The checkpoint {path} cannot be read ({error!r}). Delete it to start again."
        ) from error
