"""A backbone that counts the images it sees, across threads and processes."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

from sktransfer.backbones import Preprocessing

SIZE = 8


class CountingBackbone(nn.Module):
    """Averages over the image's quarters; appends one byte to a file for each image.

    Neither the black rows that fill up a batch are counted, nor the image, partly negative, with
    which a custom module is probed.
    """

    preprocessing = Preprocessing(SIZE, None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self, log):
        super().__init__()
        self.log = str(log)
        self.pool = nn.AdaptiveAvgPool2d(2)

    def forward(self, pixels):
        low, high = pixels.flatten(1).aminmax(dim=1)
        seen = int(((low >= 0) & (high > 0)).sum())
        with open(self.log, "ab") as file:  # one write in append mode is never torn
            file.write(b"x" * seen)
        return self.pool(pixels).flatten(1)


class OtherCountingBackbone(CountingBackbone):
    """A second one, for stacks of two; its embedding differs."""

    def forward(self, pixels):
        return super().forward(pixels).square() + torch.ones(())


class LocatedBackbone(CountingBackbone):
    """Also leaves a file for each process that embeds, and takes its time."""

    def forward(self, pixels):
        if pixels.min() >= 0:  # not the probe
            time.sleep(0.02)
            Path(f"{self.log}-{os.getpid()}").touch()
        return super().forward(pixels)


class DyingBackbone(LocatedBackbone):
    """Kills the first process that embeds with it."""

    def forward(self, pixels):
        rows = super().forward(pixels)
        if pixels.min() >= 0 and not os.path.exists(f"{self.log}.died"):
            Path(f"{self.log}.died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return rows


def processes(log):
    """Return the numbers of the processes in which a `LocatedBackbone` has embedded."""
    return {int(path.name.rpartition("-")[2]) for path in log.parent.glob(f"{log.name}-*")}


def n_seen(log):
    """Return how many images have gone through the network so far."""
    return os.path.getsize(log) if os.path.exists(log) else 0
