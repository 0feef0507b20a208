"""The durable truth: documents, vectors and terms in one SQLite file with a write-ahead log.

Whatever else this room holds is derived from here and can be built again. Each committed transaction has a number, the
watermark: an index that carries the same number shows the same state.

Process death loses no committed transaction in either mode; `durability="power"` also syncs the file at each commit.
Only this module writes to the file; `database` opens it, and turns the errors of SQLite's driver into ours.
"""

import ctypes
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import apsw

from niruhybrid.config import Durability
from niruhybrid.errors import ClosedError, StoreCorruptError, StoreReadOnlyError
from niruhybrid.forks import forked_error, watch
from niruhybrid.retrieval.claim import Claim, wal_of
from niruhybrid.retrieval.database import BUSY_MS, connected, format_of, own_errors, vacuum
from niruhybrid.retrieval.schema import BLANK, MIGRATIONS, SCHEMA, VERSION
from niruhybrid.retrieval.session import Session

__all__ = ("Begin", "Log", "Session")

_log = logging.getLogger(__name__)

Begin = Callable[[], AbstractContextManager[Session]]
"""Begins a transaction that reads."""

_WAL_BYTES = 32 << 20  # of the write-ahead log; SQLite begins to copy it into the file at half of it
_EMPTYING_MS, _EMPTYING_MS_AT_MOST = 100, 1000  # that writers wait for readers: at 32 MB, in proportion above
_EMPTYING_SHARE = 10  # writers wait for readers a tenth of the time at the most


def _checksum(*vector: Any) -> int:
    return crc32(*vector)


class Log:
    """An open store file, or a store in memory. Thread-safe.

    One writer at a time. Readers of a file wait neither for it nor for each other; in memory they take turns. A
    transaction is refused when the path no longer leads to the file that was opened.

    The write-ahead log is emptied when it has outgrown 32 MB, as soon as no transaction reads it: readers should keep
    theirs short.

    Args:
        path: the file, made if there is none; None keeps everything in memory.
        durability: `process` or `power`, see the module.

    Attributes:
        file: the same path, absolute and without symbolic links; None in memory.
        forked: whether this is a child of the process that opened the log.

    Raises:
        StoreLockedError: the file is open already, here or in another process, under this name or another.
        StoreCorruptError: the file is damaged, or not a store.
        StoreVersionError: it was written by a newer version.
        StoreReadOnlyError: it can't be written to.
        StoreError: it can't be opened for another reason.
    """

    def __init__(self, path: Path | None, durability: Durability = "process") -> None:
        self._name = "the store in memory" if path is None else f"store {str(path)!r}"
        self._mutex = threading.Lock()
        self._lending = threading.Lock()
        self._idle: list[apsw.Connection] = []
        self._lent = 0
        self._closed = False
        self._emptying = time.monotonic()
        self._size = 0
        self.forked = False
        self._claim = None if path is None else Claim(path)
        self.file = None if self._claim is None else self._claim.file
        try:
            with self._own_errors():
                self._writer = self._open_writer("FULL" if durability == "power" else "NORMAL")
        except BaseException:
            if self._claim is not None:
                self._claim.close()
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
                self._refuse_cut_short()
            self._bound_wal()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Run a block on one state, whatever is written meanwhile.

        Raises:
            ClosedError: the log has been closed.
            StoreError: it can't be read; the subclass says why.
        """
        with self.reader() as begin, begin() as session:
            yield session

    @contextmanager
    def reader(self) -> Iterator[Begin]:
        """Lend what begins reading transactions, one at a time; it can be used to its end after `close`.

        Raises:
            ClosedError: the log has been closed.
            StoreError: it can't be read; the subclass says why.
        """
        self.refuse_forked()
        with self._own_errors():
            connection = self._borrowed()
        try:
            yield partial(self._reading, connection)
        finally:
            self._give_back(connection)

    def copy(self, target: Path) -> None:
        """Write the present state to an empty file; writers and readers go on, in memory they wait.

        Raises:
            ClosedError: the log has been closed.
            StoreFullError: there is no room for the copy.
            StoreError: it can't be read, or the copy can't be written; the subclass says why.
        """
        self.refuse_forked()
        with self._own_errors():
            connection = self._borrowed()
        try:
            with self._mutex if connection is self._writer else nullcontext():
                self._refuse_moved()
                vacuum(connection, self._name, target)
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """Close the log: a write is waited for, readers end undisturbed, and with the last one the file is released.

        A second call does nothing.
        """
        if self.forked:
            return
        with self._mutex, self._lending:
            if self._closed:
                return
            self._closed = True
            last = not self._lent
        if last:
            self._release()

    @contextmanager
    def _reading(self, connection: apsw.Connection) -> Iterator[Session]:
        alone = self._mutex if connection is self._writer else nullcontext()
        with alone, self._own_errors(), _transaction(connection, "BEGIN") as session:
            self._refuse_moved()
            yield session

    def _borrowed(self) -> apsw.Connection:
        """Return a connection to read with; there are as many as there were readers at once."""
        with self._lending:
            self._refuse_closed()
            connection = self._writer if self._claim is None else self._idle.pop() if self._idle else None
            self._lent += 1
        try:
            return connection or self._connect_reader()
        except BaseException:
            self._give_back(None)
            raise

    def _give_back(self, connection: apsw.Connection | None) -> None:
        with self._lending:
            self._lent -= 1
            if connection is not None and connection is not self._writer:
                self._idle.append(connection)
            last = self._closed and not self._lent
        if last:
            self._release()

    def after_fork(self) -> None:
        """Take note, in the child, that the process has forked: SQLite's connections are the parent's alone.

        Here they must not even be closed, as the parent's write may be under way, so they are kept for ever. Of the
        claim a copy came along, without which the parent can give it back.
        """
        self.forked = True
        for connection in (self._writer, *self._idle):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        if self._claim is not None:
            self._claim.abandon()

    def refuse_forked(self) -> None:
        """Refuse to work in a child of the process that opened the log.

        Raises:
            ClosedError: this is one.
        """
        if self.forked:
            raise forked_error(self._name)

    def _release(self) -> None:
        """Close all connections and then the claim, once nobody uses them."""
        for connection in (*self._idle, self._writer):
            connection.close()
        if self._claim is not None:
            self._claim.close()

    def _connect(self) -> apsw.Connection:
        return connected(":memory:" if self.file is None else str(self.file))

    def _connect_reader(self) -> apsw.Connection:
        self._refuse_moved()  # what is there instead is not to be opened
        connection = self._connect()
        try:
            self._refuse_moved()
            connection.pragma("query_only", value=True)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_writer(self, synchronous: str) -> apsw.Connection:
        connection = self._connect()
        try:
            version = format_of(connection, self._name)
            self._refuse_read_only(connection)
            connection.pragma("journal_mode", value="wal")
            connection.pragma("synchronous", value=synchronous)
            if version == BLANK:
                connection.execute(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT")
            elif version < VERSION:
                connection.create_scalar_function("crc32", _checksum, 1, deterministic=True)
                steps = "".join(MIGRATIONS[number] for number in range(version, VERSION))
                connection.execute(f"BEGIN IMMEDIATE; {steps} COMMIT")
            if self._claim is not None:
                connection.pragma("page_count")  # whatever reads, makes the write-ahead log
                self._claim.watch_wal()
                self._size = self._claim.refuse_moved()
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_read_only(self, connection: apsw.Connection) -> None:
        if connection.readonly("main"):
            raise StoreReadOnlyError(f"{self._name} can't be written to: change the file's permissions, or copy it")

    def _bound_wal(self) -> None:
        """Empty the write-ahead log if it has outgrown its bound; called after a commit, by the writer.

        Readers that began before are waited for a moment; later ones find everything in the file and are not in the
        way. Where one of them takes longer, the next attempt comes after ten times the time that this one took.
        """
        if self.file is None:
            return
        began = time.monotonic()
        if began < self._emptying:
            return
        try:
            size = wal_of(self.file).stat().st_size
            if size < _WAL_BYTES:
                return
            self._writer.set_busy_timeout(min(_EMPTYING_MS * size // _WAL_BYTES, _EMPTYING_MS_AT_MOST))
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            _log.debug("store_wal_in_use")
        except (apsw.Error, OSError) as err:  # the commit stands
            _log.warning("store_wal_not_emptied error=%s", err)
        finally:
            self._writer.set_busy_timeout(BUSY_MS)
        ended = time.monotonic()
        self._emptying = ended + _EMPTYING_SHARE * (ended - began)

    def _refuse_cut_short(self) -> None:
        """Refuse a file that was moved, or has become smaller than SQLite has left it; called by the writer."""
        if self._claim is None:
            return
        size = self._claim.refuse_moved()
        if size < self._size and self._writer.pragma("page_count") * self._writer.pragma("page_size") >= self._size:
            raise StoreCorruptError(f"{self._name} was overwritten while it was open: close it, and put a copy back")
        self._size = size

    def _refuse_moved(self) -> None:
        if self._claim is not None:
            self._claim.refuse_moved()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClosedError(f"{self._name} has been closed: open it again")

    def _own_errors(self) -> AbstractContextManager[None]:
        return own_errors(self._name)


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
