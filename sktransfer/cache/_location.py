"""Where a cache is, who may write to it, and how large it may become."""

import os
import stat
from contextlib import suppress
from pathlib import Path

import platformdirs

from .._utils._sizes import parse_size
from .._utils._warnings import warn_user
from ..exceptions import CacheWarning
from ._failures import Trouble, warn_once

#: What a cache directory holds: the embeddings, the locks by which processes divide the work,
#: the networks that OpenVINO has converted, and the digests of known files.
EMBEDDINGS, LOCKS, NETWORKS, KNOWN_FILES = "embeddings", "locks", "openvino", "files.sqlite"

_exposed = set()


def resolve_cache_root(cache):
    """Return the absolute path that the parameter ``cache`` of an estimator stands for.

    The result is None for no cache and, with a `CacheWarning`, for a path that cannot be used.
    """
    if cache is None or cache is False:
        return None
    if cache is not True and not isinstance(cache, str | os.PathLike):
        raise TypeError(
            f"cache={cache!r} is a {type(cache).__name__}. Pass True for the user's cache "
            "directory, a path for another one, or None for no cache."
        )
    if cache == "":
        raise ValueError(
            'cache="" is not a directory. Pass "." for the working directory, or None for no cache.'
        )
    cache_limit(), memory_limit()  # a wrong one is an error before any work is done
    try:
        if cache is True:
            cache = os.environ.get("SKTRANSFER_HOME") or platformdirs.user_cache_dir("sktransfer")
        # Workers in other processes may have another working directory.
        root = Path(os.fsdecode(cache)).expanduser().absolute()
        with suppress(FileNotFoundError, PermissionError):
            os.lstat(root / EMBEDDINGS)
    except (RuntimeError, ValueError, OSError) as error:  # no home, NUL, too long, inside a file
        warn_once(repr(cache), Trouble("unusable", error))
        return None
    return root


def make_private(directory):
    """Create a directory and its parents for the owner alone: embeddings reveal images."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        if directory.parent == directory:
            raise
        make_private(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)  # in /proc, for example, this always fails


def warn_if_exposed(root):
    """Warn, once per process, if other users may write to a cache."""
    if root in _exposed or os.name != "posix":
        return
    for place in (root, root / EMBEDDINGS):
        try:
            status = os.stat(place)
        except OSError:
            continue
        # The group of most users is theirs alone.
        by_group = status.st_mode & stat.S_IWGRP and status.st_gid != os.getegid()
        if status.st_mode & stat.S_IWOTH or by_group:
            _exposed.add(root)
            warn_user(
                f"Other users may write to the cache directory {place}, and whoever writes to it "
                f"can plant wrong embeddings.\nHint: run chmod go-w {place}.",
                CacheWarning,
            )
            return


def cache_limit():
    """Return how many bytes the embeddings of one cache directory may take on disk."""
    return _from_environment("SKTRANSFER_CACHE_LIMIT", 50 * 10**9)


def memory_limit():
    """Return how many bytes of embeddings one process keeps in memory."""
    return _from_environment("SKTRANSFER_MEMORY_LIMIT", 512 * 10**6)


def _from_environment(name, default):
    text = os.environ.get(name)
    return parse_size(text, name) if text else default


def file_size(path):
    """Return the bytes of a file, 0 if it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
