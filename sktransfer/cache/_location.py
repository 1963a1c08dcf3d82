"""Where a store lies on disk and how large it and the layer in memory may become."""

import os
from pathlib import Path

import platformdirs

from .._utils._sizes import parse_size

__all__ = [
    "cache_limit",
    "file_size",
    "memory_limit",
    "resolve_cache_root",
]

DEFAULT_CACHE_LIMIT = 50 * 10**9
DEFAULT_MEMORY_LIMIT = 512 * 10**6


def resolve_cache_root(cache):
    """Turn the ``cache`` parameter of an estimator into a directory.

    Parameters
    ----------
    cache : bool, str, os.PathLike or None
        True for the directory named by the environment variable ``SKTRANSFER_HOME`` or, when that
        is not set, the user's cache directory; a path for that directory; None or False for no
        store.

    Returns
    -------
    pathlib.Path or None
        Absolute path of the directory, which need not exist; None for no store.

    Raises
    ------
    TypeError
        If ``cache`` is none of these.
    """
    if cache is None or cache is False:
        return None
    if cache is True:
        cache = os.environ.get("SKTRANSFER_HOME") or platformdirs.user_cache_dir("sktransfer")
    if not isinstance(cache, str | os.PathLike):
        raise TypeError(
            f"cache={cache!r} is a {type(cache).__name__}; pass True for the user's cache "
            "directory, a path for another one, or None for no store."
        )
    # Workers of another process may have another working directory.
    return Path(os.fsdecode(cache)).expanduser().absolute()


def cache_limit():
    """Bytes that the embeddings of one store directory may take on disk."""
    return _from_environment("SKTRANSFER_CACHE_LIMIT", DEFAULT_CACHE_LIMIT)


def memory_limit():
    """Bytes of embeddings that one process keeps in memory."""
    return _from_environment("SKTRANSFER_MEMORY_LIMIT", DEFAULT_MEMORY_LIMIT)


def _from_environment(name, default):
    text = os.environ.get(name)
    if not text:
        return default
    try:
        return parse_size(text)
    except ValueError as error:
        raise ValueError(f"The environment variable {name} is wrong: {error}") from None


def file_size(path):
    """Bytes of a file, 0 when another process has just deleted it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
