"""Seeds of a training: everything random in an epoch follows from (seed, epoch)."""

from contextlib import contextmanager

import numpy as np
import torch

from .._utils._threads import own_generators

__all__ = ["seed_epoch", "seeded"]


@contextmanager
def seeded(seed, device):
    """Seed torch's generators for a while and restore them; other threads wait."""
    device = torch.device(device)
    with own_generators([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def seed_epoch(seed, epoch):
    """Seed torch's generators for one epoch, so that an interrupted training can be resumed."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))
