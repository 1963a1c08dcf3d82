"""Seeds of a training: everything random in an epoch follows from (seed, epoch)."""

from contextlib import contextmanager

import numpy as np
import torch

from .._utils._threads import own_generators


@contextmanager
def seeded(seed, device):
    """Seed torch's generators for a while and restore them; other threads wait."""
    device = torch.device(device)
    with own_generators([device] if device.type == "cuda" else []):
        _seed_generators(seed, device)
        yield


def seed_epoch(seed, epoch, device):
    """Seed torch's generators for one epoch, so that an interrupted training can be resumed."""
    number = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    _seed_generators(number, torch.device(device))


def _seed_generators(number, device):
    """Do what `torch.manual_seed` does, which also formats the stack for absent devices."""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)
