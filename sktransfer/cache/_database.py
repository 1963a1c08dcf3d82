"""One SQLite file, used by one thread during one call.

A connection lives no longer than a call, so it never meets another thread, a pickle or, in the
usual run of things, a fork. ``journal_mode=DELETE`` because it can be read from a read-only
directory, and ``synchronous=FULL`` because a committed row must outlive a power cut.
"""

import os
import sqlite3
import threading
import time
from functools import partial

from ._failures import Trouble, trouble_from, warned_of

__all__ = ["SCHEMA_VERSION", "Database", "fork_safe_lock"]

SCHEMA_VERSION = 1

#: Seconds for which a file that another process keeps locked is tried, once in each process.
PATIENCE = 30.0

#: Seconds of these for which SQLite waits by itself, while no other thread gets a turn.
BUSY_SECONDS = 1.0

#: Rows of 8 KB fill pages of 8 KB with little waste; larger pages waste up to half.
_PAGE_BYTES = 8192

#: Connections that a fork carried into a child: closing one could undo its parent's transaction.
_abandoned = []


def fork_safe_lock():
    """Make a lock that nobody holds when the process forks, so that no child inherits it held."""
    lock = threading.Lock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )
    return lock


#: Held around every statement: a fork never cuts through a transaction.
_gate = fork_safe_lock()


class Database:
    """One SQLite file with a ``meta`` table and one table of ours.

    Every method raises `Trouble`, and no other error, when the file cannot be used.

    Parameters
    ----------
    path : pathlib.Path
        The file; its directory is made when the first row is written.
    create_table : str
        SQL statement that makes the table.
    meta : dict of str to str
        What the file says about itself; ``key``, when given, must be its key.
    """

    def __init__(self, path, create_table, meta):
        self.path = path
        self._create_table = create_table
        self._meta = {"schema_version": str(SCHEMA_VERSION), **meta}
        self._connection = None
        self._pid = None
        self._identity = None

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        """Close the file; the next use opens it again."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._pid != os.getpid():
            _abandoned.append(connection)
            return
        with _gate:
            connection.close()

    def read(self, sql, parameters=()):
        """Return the rows of a query, none when the file does not exist yet."""
        if not self._open(create=False):
            return []
        return self._patiently(lambda: self._connection.execute(sql, parameters).fetchall())

    def write(self, sql, rows):
        """Write rows in one transaction."""
        self._open(create=True)
        self._patiently(partial(self._transaction, lambda c: c.executemany(sql, rows)))

    def remove(self):
        """Delete the file, in a way that a process which is writing to it notices."""
        if self._open(create=False):
            self._patiently(partial(self._transaction, self._unlink, begin="BEGIN EXCLUSIVE"))
            self.close()

    def _unlink(self, connection):
        # Writers look at the file's identity after they have its lock, which is ours now.
        self.path.unlink()

    def _open(self, create):
        if self._connection is not None and self._pid != os.getpid():
            self.close()
        if self._connection is not None:
            return True
        try:
            if create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            elif not self.path.exists():
                return False
            self._connect("rwc" if create else "rw")
        except (sqlite3.Error, OSError) as error:
            raise trouble_from(error, self.path) from error
        return self._is_ours(create)

    def _connect(self, mode):
        uri = f"{self.path.as_uri()}?mode={mode}"
        with _gate:
            # Another thread may close it when an iterator is dropped there; none uses it there.
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._pid = os.getpid()
            self._identity = _identity(self.path)

    def _is_ours(self, create):
        """Check what the file says about itself; write it into a new one."""
        try:
            written = self._patiently(self._read_meta)
            if written is None and create:
                self._patiently(self._set_up)
                written = self._patiently(self._read_meta)
            if written is None:
                self.close()
                return False
            self._check_meta(written)
        except Trouble:
            self.close()
            raise
        return True

    def _read_meta(self):
        tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
        if not tables:
            return None
        if "meta" not in tables:
            raise Trouble("foreign", "an SQLite file that sktransfer has not written")
        return dict(self._connection.execute("SELECT name, value FROM meta").fetchall())

    def _check_meta(self, written):
        version = written.get("schema_version")
        if not str(version).isdigit():
            raise Trouble("corrupt", f"its schema version reads {version!r}")
        if int(version) > SCHEMA_VERSION:
            raise Trouble(
                "newer", f"its format is {version}, this version knows up to {SCHEMA_VERSION}"
            )
        if "key" in self._meta and written.get("key") != self._meta["key"]:
            raise Trouble("foreign", f"it was made for {written.get('key')!r}")
        self._connection.execute("PRAGMA synchronous=FULL")

    def _set_up(self):
        self._connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        self._connection.execute("PRAGMA journal_mode=DELETE")
        self._transaction(self._create)

    def _create(self, connection):
        connection.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT)")
        connection.execute(self._create_table)
        connection.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", self._meta.items())

    def _transaction(self, change, begin="BEGIN IMMEDIATE"):
        connection = self._connection
        connection.execute(begin)
        try:
            if _identity(self.path) != self._identity:
                raise Trouble("vanished")
            change(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _patiently(self, operation):
        """Run an operation, again and again while another process has the file locked."""
        # Who has been let down once by a locked file does not wait as long a second time.
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


def _identity(path):
    """Device and inode of a file, None when it does not exist."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
