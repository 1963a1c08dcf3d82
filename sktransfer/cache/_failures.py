"""What can go wrong with a cache, and the one warning about it.

A cache that fails costs time, never a result: every failure becomes a `Trouble`, of which there is
one `CacheWarning` per cache, cause and process.
"""

import errno
import os
import sqlite3
from pathlib import Path

from .._utils._fork import fork_safe_lock
from .._utils._warnings import warn_user
from ..exceptions import CacheWarning

_ELSEWHERE = "choose another directory with cache=PATH or the environment variable SKTRANSFER_HOME"

#: {cause: (what happened, what to do)}
_TEXTS = {
    "full": (
        "has no room for more embeddings",
        "Free disk space, raise the limit with the environment variable SKTRANSFER_CACHE_LIMIT "
        '(for example "200GB"), delete embeddings with sktransfer.clear_cache(cache={root!r}), or '
        f"{_ELSEWHERE}",
    ),
    "read-only": (
        "cannot be written; embeddings in it are still read",
        f"Make it writable, or {_ELSEWHERE}",
    ),
    "locked": (
        "is locked by another process",
        "Close other programs that have it open, and look for a process that hangs",
    ),
    "unusable": (
        "cannot be used",
        f"Check the path and the disk, or {_ELSEWHERE}",
    ),
    "damaged": (
        "cannot be used",
        f"Delete it with sktransfer.clear_cache(cache={{root!r}}), or {_ELSEWHERE}",
    ),
}

_BY_SQLITE_CODE = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_PERM: "read-only",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
}
_BY_ERRNO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "full"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "read-only"),
}

_warned = set()
_lock = fork_safe_lock()


class Trouble(Exception):
    """A cache failed: ``cause`` is a key of `_TEXTS`, ``detail`` says what exactly happened."""

    def __init__(self, cause, detail):
        super().__init__(cause, detail)
        self.cause, self.detail = cause, str(detail)


def trouble_from(error, path):
    """Name the cause of an error of SQLite, of a lock or of the file system."""
    if isinstance(error, Trouble):
        return error
    if isinstance(error, OSError):
        return Trouble(_BY_ERRNO.get(error.errno, "unusable"), error)
    # The first byte of SQLite's extended codes is the kind of error.
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Trouble("damaged", f"it is damaged: {error}")
    if code == sqlite3.SQLITE_CANTOPEN:
        effective = {"effective_ids": True} if os.access in os.supports_effective_ids else {}
        if not os.path.lexists(path.parent):
            return vanished()
        if not os.access(path.parent, os.W_OK, **effective):
            return Trouble("read-only", f"no permission to write to the directory {path.parent}")
    return Trouble(_BY_SQLITE_CODE.get(code, "unusable"), error)


def vanished():
    return Trouble("unusable", "it was moved or deleted while in use; the next call recreates it")


def warn_once(path, trouble):
    """Warn about a trouble, once per cause, cache and process."""
    with _lock:
        if (path, trouble.cause) in _warned:
            return
        _warned.add((path, trouble.cause))
    from ._location import EMBEDDINGS  # which imports this module

    happened, advice = _TEXTS[trouble.cause]
    folder = Path(path).parent
    root = folder.parent if folder.name == EMBEDDINGS else folder
    warn_user(
        f"The cache {path} {happened} ({trouble.detail}). Results are correct; embeddings that "
        "are not in the cache are computed again next time.\n"
        f"Hint: {advice.format(root=str(root))}.",
        CacheWarning,
    )


def warned_of(path, cause):
    """Whether this process has warned about this cause for this cache."""
    return (path, cause) in _warned


def forget_warnings(path):
    """Let a new cache in the same place warn again."""
    with _lock:
        _warned.difference_update({entry for entry in _warned if entry[0] == path})
