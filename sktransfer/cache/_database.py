"""One SQLite file, used by one thread during one call.

SQLite's default ``journal_mode=DELETE`` can be read in a read-only directory; with
``synchronous=FULL`` a committed row survives a power cut.
"""

import os
import sqlite3
import time
import zlib
from contextlib import AbstractContextManager

from .._utils._fork import fork_safe_lock
from ._failures import Trouble, trouble_from, vanished, warned_of
from ._location import make_private

SCHEMA_VERSION = 1

#: Message about a file of another program, which must never be deleted.
FOREIGN = "sktransfer did not write this SQLite file"

#: Seconds to wait for a file that another process has locked, once per process.
PATIENCE = 30.0

#: Seconds for which SQLite waits for a lock while no other thread gets a turn.
BUSY_SECONDS = 1.0

#: Rows per SQL statement. Other processes wait at most as long as one statement takes.
CHUNK = 500

#: Rows of 8 KB fill pages of 8 KB with little waste; larger pages waste up to half.
_PAGE_BYTES = 8192

#: Connections of a parent process. Closing one in a child could undo the parent's transaction.
_inherited = []

#: Held around every statement, so that a fork never happens in the middle of a transaction.
_gate = fork_safe_lock()


class Database(AbstractContextManager):
    """One SQLite file with a table ``meta``, and a table ``rows`` that maps keys to bytes.

    Every method raises `Trouble`, and no other error, if the file cannot be used.

    Parameters
    ----------
    path : pathlib.Path
        The file. It is created when the first row is written.
    meta : dict of str to str or None
        Metadata of the file. A ``key`` must equal that of an existing file.
    sorted_by_key : bool
        Whether neighboring keys share a page, which suits rows of a few bytes.
    """

    def __init__(self, path, meta=None, *, sorted_by_key=False):
        self.path, self._options = path, " WITHOUT ROWID" if sorted_by_key else ""
        self._meta = {"schema_version": str(SCHEMA_VERSION), **(meta or {})}
        self._connection = self._pid = self._identity = None

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        """Close the file; the next use opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None and self._pid != os.getpid():
            _inherited.append(connection)
        elif connection is not None:
            with _gate:
                connection.close()

    def read(self, sql, parameters=()):
        """Return the rows of a query; an empty list if the file does not exist yet."""
        if not self._open(create=False):
            return []
        return self._patiently(lambda: self._connection.execute(sql, parameters).fetchall())

    def find(self, keys, columns="*"):
        """Yield the rows (key, bytes, checksum) of a list of keys, a few hundred at a time."""
        for start in range(0, len(keys), CHUNK):
            some = keys[start : start + CHUNK]
            where = f"digest IN ({','.join('?' * len(some))})"
            yield self.read(f"SELECT {columns} FROM rows WHERE {where}", some)

    def write(self, rows):
        """Write {key: bytes} in one transaction."""
        sql = "INSERT OR REPLACE INTO rows VALUES (?, ?, ?)"
        rows = [(key, row, _checksum(key, row)) for key, row in rows.items()]
        self._open(create=True)
        self._patiently(lambda: self._transaction(lambda c: c.executemany(sql, rows)))

    def remove(self):
        """Delete the file. A process that is writing to it notices."""
        if self._open(create=False):
            # Writers check the file's identity once they have its lock, which is ours now.
            unlink = lambda connection: self.path.unlink()  # noqa: E731
            self._patiently(lambda: self._transaction(unlink, begin="BEGIN EXCLUSIVE"))
            self.close()

    def _open(self, create):
        """Connect and check the metadata of the file; return whether there is a file."""
        if self._connection is not None and self._pid == os.getpid():
            return True
        self.close()
        try:
            if create:
                make_private(self.path.parent)
            elif not self.path.exists():
                return False
            mode = "rwc" if create else "rw"
            with _gate:
                # An iterator that is dropped in another thread closes the file there.
                self._connection = sqlite3.connect(
                    f"{self.path.as_uri()}?mode={mode}",
                    uri=True,
                    timeout=BUSY_SECONDS,
                    isolation_level=None,
                    check_same_thread=False,
                )
                self._pid, self._identity = os.getpid(), _identity(self.path)
            written = self._patiently(self._read_meta)
            if written is None and create:
                self._connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
                self._patiently(lambda: self._transaction(self._create))
                written = self._patiently(self._read_meta)
            if written is None:
                self.close()
                return False
            version = written.get("schema_version")
            if version != str(SCHEMA_VERSION):
                raise Trouble(
                    "unusable",
                    f"its format is {version!r:.60} and this version of sktransfer reads format "
                    f"{SCHEMA_VERSION}; a newer version may have written it",
                )
            if "key" in self._meta and written.get("key") != self._meta["key"]:
                raise Trouble("unusable", f"it belongs to {written.get('key')!r:.200}")
            self._connection.execute("PRAGMA synchronous=FULL")
        except (sqlite3.Error, OSError) as error:
            self.close()
            if isinstance(error, OSError) and not create:
                raise Trouble("unusable", error) from error
            raise trouble_from(error, self.path) from error
        except Trouble:
            self.close()
            raise
        return True

    def _read_meta(self):
        tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
        if not tables:
            return None
        if "meta" not in tables:
            raise Trouble("unusable", FOREIGN)
        return dict(self._connection.execute("SELECT name, value FROM meta").fetchall())

    def _create(self, connection):
        connection.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS rows (digest BLOB PRIMARY KEY, row BLOB NOT NULL, "
            f"checksum INTEGER NOT NULL){self._options}"
        )
        connection.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", self._meta.items())

    def _transaction(self, change, begin="BEGIN IMMEDIATE"):
        connection = self._connection
        connection.execute(begin)
        try:
            if _identity(self.path) != self._identity:
                raise vanished()
            change(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _patiently(self, operation):
        """Run an operation; repeat it while another process has the file locked."""
        # After one warning about a locked file, it is not waited for again.
        patience = 0.0 if warned_of(self.path, "locked") else PATIENCE
        deadline = time.monotonic() + patience
        while True:
            try:
                with _gate:
                    return operation()
            except (sqlite3.Error, OSError) as error:
                trouble = trouble_from(error, self.path)
                if trouble.cause != "locked" or time.monotonic() > deadline:
                    raise trouble from error


def is_intact(key, row, checksum):
    """Whether a row has not changed since it was written."""
    return type(row) is bytes and _checksum(key, row) == checksum


def _checksum(key, row):
    # SQLite has no checksums: a flipped bit in a row would go unnoticed.
    return zlib.crc32(row, zlib.crc32(key))


def _identity(path):
    """Return device and inode of a file, or None if it does not exist."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
