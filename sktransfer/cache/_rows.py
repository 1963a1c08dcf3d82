"""The rows of one backbone on disk."""

import hashlib
import re
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from .._utils._sizes import size_text
from ._database import Database
from ._failures import Trouble, trouble_from, warn_once
from ._location import cache_limit, file_size

__all__ = ["EMBEDDINGS", "LOCKS", "EmbeddingCache", "StoredRows"]

#: Directories below the root of a store.
EMBEDDINGS, LOCKS = "embeddings", "locks"

#: Free bytes that are left on a disk, or this share of a small one.
_RESERVE_BYTES, _RESERVE_SHARE = 10**9, 0.05

_CREATE_TABLE = (
    "CREATE TABLE IF NOT EXISTS rows "
    "(digest BLOB PRIMARY KEY, row BLOB NOT NULL, checksum INTEGER NOT NULL)"
)
_INSERT = "INSERT OR REPLACE INTO rows VALUES (?, ?, ?)"

#: Rows read by one statement: other processes are kept waiting only for as long.
_CHUNK = 500


@dataclass(frozen=True)
class EmbeddingCache:
    """Where the embeddings of one backbone are kept; small, picklable, touches no disk.

    Parameters
    ----------
    key : str
        Everything but the image that an embedding depends on: fingerprint of the network,
        preprocessing, precision, engine.
    n_features : int
        Length of a row, at least 1.
    root : pathlib.Path or None
        Directory of the store, see `resolve_cache_root`; None stores nothing, neither on disk nor
        in memory.
    description : str
        One line for people. Its first word is the backbone's name, by which `clear_cache` finds
        the store.

    Attributes
    ----------
    path : pathlib.Path or None
        File of the rows: the backbone's name and a digest of ``key``.
    lock_dir : pathlib.Path or None
        Directory of the locks by which processes divide the work.
    """

    key: str
    n_features: int
    root: Path | None = field(kw_only=True)
    description: str = field(kw_only=True)
    path: Path | None = field(init=False, repr=False, compare=False)
    lock_dir: Path | None = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        name = f"{_slug(self.description)}-{_short_digest(self.key)}"
        root = self.root
        path = None if root is None else Path(root).absolute() / EMBEDDINGS / f"{name}.sqlite"
        object.__setattr__(self, "path", path)
        lock_dir = None if root is None else Path(root).absolute() / LOCKS / name
        object.__setattr__(self, "lock_dir", lock_dir)


def _slug(description):
    words = description.split()
    return re.sub(r"[^A-Za-z0-9._-]+", "_", words[0])[:60] if words else "backbone"


def _short_digest(key):
    return hashlib.blake2b(key.encode(), digest_size=6).hexdigest()


class StoredRows:
    """Reads and writes the rows of one store during one call; stops using it when it fails.

    Parameters
    ----------
    store : EmbeddingCache
        Its ``root`` must not be None.

    Attributes
    ----------
    readable, writable : bool
        Whether the file still serves; a failure, warned of once, ends it for this call.
    """

    def __init__(self, store):
        self._store = store
        self.readable = self.writable = True
        self._database = Database(
            store.path,
            _CREATE_TABLE,
            {
                "key": store.key,
                "description": store.description,
                "n_features": str(store.n_features),
            },
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._database.close()

    def read(self, digests):
        """Yield {digest: row bytes} for the digests that are stored, some hundred at a time."""
        digests = list(digests)
        for start in range(0, len(digests), _CHUNK):
            if not self.readable:
                return
            yield self._read_chunk(digests[start : start + _CHUNK])

    def _read_chunk(self, digests):
        marks = ",".join("?" * len(digests))
        try:
            stored = self._database.read(
                f"SELECT digest, row, checksum FROM rows WHERE digest IN ({marks})", digests
            )
        except Trouble as trouble:
            self.readable = False
            self.stop_writing(trouble)
            return {}
        return self._undamaged(stored)

    def _undamaged(self, stored):
        n_bytes = 4 * self._store.n_features
        good = {
            digest: row
            for digest, row, checksum in stored
            if type(row) is bytes and len(row) == n_bytes and _checksum(digest, row) == checksum
        }
        if len(good) < len(stored):
            n_damaged = len(stored) - len(good)
            warn_once(self._store.path, Trouble("damaged row", f"{n_damaged} rows just read"))
        return good

    def write(self, items):
        """Commit (digest, row bytes) pairs in one transaction, unless writing has failed."""
        if not self.writable or not items:
            return
        try:
            self._check_room(sum(len(row) for _, row in items))
            self._database.write(_INSERT, [(d, row, _checksum(d, row)) for d, row in items])
        except Trouble as trouble:
            self.stop_writing(trouble)

    def stop_writing(self, trouble):
        """Warn of a trouble and write nothing more during this call."""
        self.writable = False
        warn_once(self._store.path, trouble)

    def _check_room(self, n_bytes):
        directory = self._store.path.parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
            used = sum(map(file_size, directory.glob("*.sqlite")))
            disk = shutil.disk_usage(directory)
        except OSError as error:
            raise trouble_from(error, directory) from error
        if used + n_bytes > cache_limit():
            raise Trouble("limit", f"{size_text(used)} of {size_text(cache_limit())}")
        if disk.free - n_bytes < min(_RESERVE_BYTES, _RESERVE_SHARE * disk.total):
            raise Trouble("full", f"{size_text(disk.free)} of {size_text(disk.total)} free")


def _checksum(digest, row):
    # SQLite has none of its own: a flipped bit in a row would go unnoticed.
    return zlib.crc32(row, zlib.crc32(digest))
