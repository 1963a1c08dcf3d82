"""Sizes in bytes, in a form that people read and write."""

import re
from decimal import Decimal


def parse_size(text, name):
    """Return the number of bytes in a size such as ``"1.5 GB"``; an error calls it ``name``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if not match:
        raise ValueError(f'{name}={text!r} is not a size; write it like "512MB" or "20GB".')
    return int(Decimal(match[1]) * 1000 ** ["", *"KMGT"].index(match[2]))


def size_text(n_bytes):
    """Return a size for people to read, such as ``"81.9 MB"``."""
    for unit in ("B", "KB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
