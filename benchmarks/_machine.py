"""The line about the machine that every benchmark prints."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def machine(*packages):
    """Return one line with the processor, the cores, and the versions of Python and packages."""
    model = platform.processor() or "unknown processor"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    if torch.cuda.is_available():
        model += f" with {torch.cuda.get_device_name()}"
    return ", ".join(
        [
            f"{model}, {len(os.sched_getaffinity(0))} cores",
            f"Python {platform.python_version()}",
            *(f"{package} {_version(package)}" for package in ("torch", "scikit-learn", *packages)),
        ]
    )


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
