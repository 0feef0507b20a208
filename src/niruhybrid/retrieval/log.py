"""The durable truth: documents, vectors and terms in one SQLite file with a write-ahead log.

Whatever else this room holds is derived from here and can be built again. Each committed transaction has a number, the
watermark: an index that carries the same number shows the same state.

Process death loses no committed transaction in either mode; `durability="power"` also syncs the file at each commit.
Only this module opens the file, and only this one turns the errors of SQLite's driver into ours.
"""

import ctypes
import errno
import fcntl
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from zlib import crc32

import apsw

from niruhybrid.config import Durability
from niruhybrid.errors import (
    ClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreReadOnlyError,
    StoreVersionError,
)
from niruhybrid.forks import forked_error, watch
from niruhybrid.retrieval.schema import APPLICATION_ID, MIGRATIONS, SCHEMA, SETTINGS, VERSION
from niruhybrid.retrieval.session import Session

__all__ = ("Log", "Session")

_BUSY_MS = 500  # only another program can be in the way, see `_claim`


def _checksum(*vector: Any) -> int:
    return crc32(*vector)


class Log:
    """An open store file, or a store in memory. Thread-safe.

    One writer at a time. Readers of a file wait neither for it nor for each other; in memory they take turns.

    Args:
        path: the file, made if there is none; None keeps everything in memory.
        durability: `process` or `power`, see the module.

    Attributes:
        forked: whether this is a child of the process that opened the log.

    Raises:
        StoreLockedError: the file is open already, here or in another process.
        StoreCorruptError: the file is damaged, or not a store.
        StoreVersionError: it was written by a newer version.
        StoreReadOnlyError: it can't be written to.
        StoreError: it can't be opened for another reason.
    """

    def __init__(self, path: Path | None, durability: Durability = "process") -> None:
        self._path = path
        self._name = "the store in memory" if path is None else f"store {str(path)!r}"
        self._mutex = threading.Lock()
        self._idle: deque[apsw.Connection] = deque()
        self._closed = False
        self.forked = False
        self._claim = None if path is None else _claim(path)
        try:
            with self._own_errors():
                self._writer = self._open_writer("FULL" if durability == "power" else "NORMAL")
        except BaseException:
            self._release()
            raise
        watch(self)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Run a block as one transaction, alone: all of it is kept when the block ends, none if it raises.

        Raises:
            ClosedError: the log has been closed.
            StoreError: nothing was written; the subclass says why.
        """
        self.refuse_forked()
        with self._mutex, self._own_errors():
            self._refuse_closed()
            with _transaction(self._writer, "BEGIN IMMEDIATE") as session:
                yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Run a block on one state, whatever is written meanwhile.

        Raises:
            ClosedError: the log has been closed.
            StoreError: it can't be read; the subclass says why.
        """
        self.refuse_forked()
        with self._own_errors():
            if self._path is None:
                with self._mutex:
                    self._refuse_closed()
                    with _transaction(self._writer, "BEGIN") as session:
                        yield session
            else:
                with self._borrowed() as connection, _transaction(connection, "BEGIN") as session:
                    yield session

    def close(self) -> None:
        """Close the file; reads in progress end undisturbed, a write is waited for. A second call does nothing."""
        if self.forked:
            return
        with self._mutex:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            self._writer.close()
            self._release()

    def after_fork(self) -> None:
        """Take note, in the child, that the process has forked: SQLite's connections are the parent's alone.

        Here they must not even be closed, as the parent's write may be under way, so they are kept for ever. Of the
        claim a copy came along, without which the parent can give it back.
        """
        self.forked = True
        for connection in (self._writer, *self._idle):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        self._release()

    def refuse_forked(self) -> None:
        """Refuse to work in a child of the process that opened the log.

        Raises:
            ClosedError: this is one.
        """
        if self.forked:
            raise forked_error(self._name)

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.close()

    @contextmanager
    def _borrowed(self) -> Iterator[apsw.Connection]:
        """Lend a reading connection; there are as many as there were readers at once."""
        self._refuse_closed()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
            connection.pragma("query_only", value=True)
        try:
            yield connection
        finally:
            self._idle.append(connection)
            if self._closed:
                self._drop_idle()

    def _drop_idle(self) -> None:
        with self._mutex:
            while self._idle:
                self._idle.pop().close()

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(":memory:" if self._path is None else str(self._path))
        connection.set_busy_timeout(_BUSY_MS)
        for _ in connection.execute(SETTINGS):
            pass
        return connection

    def _open_writer(self, synchronous: str) -> apsw.Connection:
        connection = self._connect()
        try:
            blank = self._refuse_foreign(connection)
            connection.pragma("journal_mode", value="wal")
            connection.pragma("synchronous", value=synchronous)
            if blank:
                connection.execute(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT")
            elif (version := connection.pragma("user_version")) < VERSION:
                connection.create_scalar_function("crc32", _checksum, 1, deterministic=True)
                steps = "".join(MIGRATIONS[number] for number in range(version, VERSION))
                connection.execute(f"BEGIN IMMEDIATE; {steps} COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_foreign(self, connection: apsw.Connection) -> bool:
        """Return whether the file is still empty. One that isn't ours is left as it was."""
        kind, version = connection.pragma("application_id"), connection.pragma("user_version")
        blank = kind == 0 and next(connection.execute("SELECT count(*) FROM sqlite_schema"))[0] == 0
        if not blank and kind != APPLICATION_ID:
            raise StoreCorruptError(f"{self._name} is a database of another kind: give another path")
        if not blank and not (isinstance(version, int) and version <= VERSION):
            raise StoreVersionError(
                f"{self._name} has format {version}, this version reads up to {VERSION}: use a newer niruhybrid"
            )
        if connection.readonly("main"):
            raise StoreReadOnlyError(f"{self._name} can't be written to: change the file's permissions, or copy it")
        return bool(blank)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClosedError(f"{self._name} has been closed: open it again")

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as err:
            raise _store_error(err, self._name) from err


@contextmanager
def _transaction(connection: apsw.Connection, begin: str) -> Iterator[Session]:
    connection.execute(begin)
    try:
        yield Session(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have SQLite roll back by itself
            connection.execute("ROLLBACK")
        raise


def _claim(path: Path) -> IO[bytes]:
    """Take the store for this process. The system gives the claim back when the process ends, however it ends."""
    beside = path.with_name(path.name + ".lock")
    try:
        claim = beside.open("ab")
    except OSError as err:
        raise _claim_error(err, path) from err
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        claim.close()
        raise StoreLockedError(f"store {str(path)!r} is open already: close it there, or give another path") from err
    return claim


def _claim_error(err: OSError, path: Path) -> StoreError:
    if isinstance(err, PermissionError) or err.errno == errno.EROFS:
        return StoreReadOnlyError(f"store {str(path)!r} can't be written to: change the folder's permissions")
    if isinstance(err, FileNotFoundError):
        return StoreError(f"store {str(path)!r} is in a folder that there is not: make the folder first")
    return StoreError(f"store {str(path)!r} can't be opened ({err.strerror}): give the path of a file")


def _store_error(err: apsw.Error, name: str) -> StoreError:
    match err:
        case apsw.FullError():
            return StoreFullError(f"{name} has no room to grow, the last change was not made: free some disk space")
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            return StoreReadOnlyError(f"{name} can't be written to: change the file's permissions, or copy it")
        case apsw.BusyError() | apsw.LockedError():
            return StoreLockedError(f"{name} is in use by another program: close it there")
        case apsw.CorruptError() | apsw.NotADBError():
            return StoreCorruptError(f"{name} is damaged ({err}): restore it from a copy")
    return StoreError(f"{name} can't be read or written ({err}): check the disk and the file's permissions")
