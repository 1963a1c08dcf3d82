"""The one place that checks a device."""

import sys
from contextlib import suppress
from glob import glob

from ._threads import import_torch, loaded_torch

#: Files of the drivers of NVIDIA and AMD on Linux, in containers, on Jetson and in WSL.
_DRIVERS = ("/dev/nvidia*", "/dev/kfd", "/dev/nvhost*", "/dev/nvmap", "/dev/dxg")


def resolve_device(device):
    """Return the name of a device that this machine has; "auto" is CUDA, else MPS, else the CPU."""
    # Without a driver there is no GPU, which saves the seconds that importing torch takes.
    is_bare = loaded_torch() is None and sys.platform == "linux" and not any(map(glob, _DRIVERS))
    if str(device) == "cpu" or (str(device) == "auto" and is_bare):
        return "cpu"
    torch = import_torch()
    n_devices = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    if str(device) == "auto":
        return next(name for name, number in n_devices.items() if number)
    parsed = None
    with suppress(RuntimeError, TypeError):
        parsed = torch.device(device)
    if parsed is None or parsed.type not in n_devices:
        raise ValueError(
            f'device={device!r} is not supported. Pass "auto", "cpu", "cuda", "cuda:1" or "mps".'
        )
    if (parsed.index or 0) >= n_devices[parsed.type]:
        raise ValueError(
            f'device="{parsed}" is not available: PyTorch finds {n_devices[parsed.type]} '
            f'{parsed.type.upper()} device(s) on this machine. Pass device="auto" or device="cpu".'
        )
    return "cpu" if parsed.type == "cpu" else str(parsed)
