"""What can go wrong with a store, and the one warning that says so.

A store costs speed when it fails, never a result: every failure becomes a `Trouble`, which the
caller turns into one `CacheWarning` for each store, cause and process.
"""

import errno
import sqlite3
import threading

from .._utils._warnings import warn_user
from ..exceptions import CacheWarning

__all__ = ["Trouble", "forget_warnings", "trouble_from", "warn_once", "warned_of"]

_ELSEWHERE = "choose another place with cache=PATH or the environment variable SKTRANSFER_HOME"
_GO_ON = "The result is right; embeddings that are not stored are computed again next time"

#: cause -> (what happened, what to do)
_TEXTS = {
    "full": (
        "cannot take more: its disk is full",
        f"Make room, remove stored embeddings with sktransfer.clear_cache(), or {_ELSEWHERE}",
    ),
    "limit": (
        "has reached its size limit, so new embeddings are not stored",
        "Raise the limit with the environment variable SKTRANSFER_CACHE_LIMIT (for example "
        '"200GB"), or remove stored embeddings with sktransfer.clear_cache()',
    ),
    "read-only": (
        "cannot be written; what it holds is still read",
        f"Make it writable, or {_ELSEWHERE}",
    ),
    "corrupt": (
        "is damaged and is not used",
        "Delete the file, or call sktransfer.clear_cache(), to start it anew",
    ),
    "damaged row": (
        "holds rows whose checksum is wrong; they are computed again",
        "Check the disk; if this comes again, call sktransfer.clear_cache() to start anew",
    ),
    "foreign": (
        "is not the file that it should be and is not used",
        "Move or delete the file",
    ),
    "newer": (
        "was written by a newer version of sktransfer and is not used",
        f"Upgrade sktransfer, or {_ELSEWHERE}",
    ),
    "locked": (
        "is kept locked by another program and is not used",
        "Close the program that has it open",
    ),
    "no locks": (
        "lies on a file system without file locks, so new embeddings are not stored",
        f"Mount it with locks, or {_ELSEWHERE}",
    ),
    "held": (
        "waits for embeddings that another process announced but does not deliver; they are "
        "computed here as well",
        "Look for a process that is stopped or hangs",
    ),
    "vanished": (
        "was moved or deleted while it was in use",
        "Nothing needs doing: the next call starts it anew; let no program delete it meanwhile",
    ),
    "failed": ("cannot be used", f"Check the disk, or {_ELSEWHERE}"),
}

_BY_SQLITE_CODE = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_PERM: "read-only",
    sqlite3.SQLITE_AUTH: "read-only",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_IOERR_SHORT_READ: "corrupt",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_PROTOCOL: "no locks",
    sqlite3.SQLITE_IOERR_LOCK: "no locks",
    sqlite3.SQLITE_IOERR_RDLOCK: "no locks",
    sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK: "no locks",
}

_BY_ERRNO = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EFBIG: "full",
    errno.EROFS: "read-only",
    errno.EACCES: "read-only",
    errno.EPERM: "read-only",
    errno.ENOENT: "vanished",
    errno.ESTALE: "vanished",
    errno.ENOLCK: "no locks",
    errno.ENOSYS: "no locks",
    errno.EOPNOTSUPP: "no locks",
}

_warned = set()
_warned_lock = threading.Lock()


class Trouble(Exception):
    """A store that cannot be used as asked: why, and in whose words."""

    def __init__(self, cause, detail=""):
        super().__init__(cause, detail)
        self.cause, self.detail = cause, str(detail)


def trouble_from(error, path):
    """Name the cause of an error of SQLite, of a lock or of the file system."""
    if isinstance(error, Trouble):
        return error
    if isinstance(error, NotImplementedError):
        return Trouble("no locks", error)
    if isinstance(error, OSError):
        return Trouble(_BY_ERRNO.get(error.errno, "failed"), error)
    code = getattr(error, "sqlite_errorcode", None) or 0
    cause = _BY_SQLITE_CODE.get(code) or _BY_SQLITE_CODE.get(code & 0xFF, "failed")
    if code & 0xFF == sqlite3.SQLITE_CANTOPEN and not path.exists():
        cause = "vanished"
    return Trouble(cause, error)


def warn_once(path, trouble):
    """Warn of a trouble unless this process has warned of its like for this store."""
    with _warned_lock:
        if (path, trouble.cause) in _warned:
            return
        _warned.add((path, trouble.cause))
    happened, advice = _TEXTS[trouble.cause]
    detail = f" ({trouble.detail})" if trouble.detail else ""
    warn_user(
        f"The store {path} {happened}{detail}. {_GO_ON}.\nHint: {advice}.",
        CacheWarning,
    )


def warned_of(path, cause):
    """Whether this process has met this trouble with this store."""
    return (path, cause) in _warned


def forget_warnings(path):
    """Let a store that has been started anew warn again."""
    with _warned_lock:
        _warned.difference_update({entry for entry in _warned if entry[0] == path})
