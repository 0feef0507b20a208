"""Connections to the server: lent, watched and replaced; its errors made ours; what was lost tried again.

A call has a deadline. Within it, what fails because a connection was lost, or because another writer was first, is done
again. A transaction whose commit was on its way when the connection broke has left a trace, or none: see `Write`.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import errors as refused

from niruhybrid.config import StoreConfig
from niruhybrid.errors import (
    ClosedError,
    InvalidSettingError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnreachableError,
)
from niruhybrid.retrieval.postgres import schema
from niruhybrid.retrieval.postgres.arrays import register

__all__ = ("Connection", "Connections", "Rows", "Statement", "Write", "ask", "connected")

_log = logging.getLogger(__name__)

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]
Rows = list[tuple[Any, ...]]
Statement = tuple[str, Any]
"""SQL made of constant parts, and its parameters."""

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0  # seconds between two tries
_AGAIN = (refused.UniqueViolation, refused.DeadlockDetected, refused.SerializationFailure)
_ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
_WAITING = 0.9  # of the timeout, for a lock that another writer has: less than all, so that the error says so
_PAUSING = 0.5  # of the timeout, that a process may pause amid a transaction: others who wait for it outlast it
_SHORTEST_CONNECT = 2  # seconds; libpq takes no less


class Write(Protocol):
    """A transaction that is made once, whatever becomes of connections.

    Attributes:
        batch: number of the transaction under way, from before its commit is asked for; None before. While the
            transaction lasts it has the advisory lock of this number, and it leaves a row with it in `niru.writes`.
        watermark: what it left, once it is known to be committed.
    """

    batch: int | None
    watermark: int

    def run(self, connection: Connection) -> None:
        """Make the transaction and commit it."""
        ...


class Connections:
    """The connections of one store. Thread-safe.

    Args:
        config: `path` is the URL.

    Raises:
        InvalidSettingError: the URL is not one.
        StoreUnreachableError: the server can't be reached.
        StoreVersionError: the tables are of a newer version.
        StoreError: the database can't hold a store.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.name = f"store {config.name!r}"
        self._timeout = config.server_timeout
        self._synchronous = "on" if config.durability == "power" else "local"
        self._arguments = _parsed(config)
        self._closed = threading.Event()
        with self.own_errors(), self.connect() as connection:
            schema.prepare(connection, self.name)
            info = connection.execute("SELECT 'vector'::regtype::oid::bigint").fetchone()
        self.vector_kind = int(info[0]) if info else 0
        self._free = threading.Semaphore(config.connections)
        self._idle: deque[Connection] = deque()

    def connect(self) -> Connection:
        """Return a connection of one's own, outside a transaction; errors are PostgreSQL's."""
        connection = psycopg.connect(**self._arguments)
        try:
            self._configure(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` makes of a connection; it may be called again, with another one.

        Raises:
            StoreUnreachableError: the server could not be reached in time.
            StoreError: the server refused.
            ClosedError: the store has been closed.
        """
        return self._tried(work)

    def write(self, change: Write) -> None:
        """Make a transaction exactly once; return when it is committed.

        Raises:
            StoreUnreachableError: the server could not be reached in time: the message says whether the change may
                have been made.
            StoreError: the server refused; nothing was changed.
            ClosedError: the store has been closed.
        """

        def work(connection: Connection) -> None:
            if change.batch is not None:
                change.watermark = _watermark_of(connection, change.batch)
            if not change.watermark:
                change.batch = None
                change.run(connection)

        try:
            self._tried(work)
        except StoreUnreachableError as err:
            if change.batch is None or isinstance(err.__cause__, refused.LockNotAvailable):
                raise
            raise StoreUnreachableError(
                f"{self.name} was lost during a commit, which may have been made: do the same again"
            ) from err

    def wait(self, seconds: float) -> bool:
        """Wait, but not beyond the store's end; return whether that has come."""
        return self._closed.wait(seconds)

    @property
    def closed(self) -> bool:
        """Whether the store has been closed."""
        return self._closed.is_set()

    def close(self) -> None:
        """Close all connections; those in use when they are given back."""
        self._closed.set()
        self._drop_idle()

    def refuse_closed(self) -> None:
        """Raise `ClosedError` if the store has been closed."""
        if self.closed:
            raise ClosedError(f"{self.name} has been closed: open it again")

    @contextmanager
    def own_errors(self) -> Iterator[None]:
        """Turn the errors of a block into ours."""
        try:
            yield
        except psycopg.Error as err:
            self.refuse_closed()
            raise _store_error(err, self.name, self._timeout) from err

    def _tried(self, work: Callable[[Connection], T]) -> T:
        deadline, pause = time.monotonic() + self._timeout, _FIRST_WAIT
        with self.own_errors():
            while True:
                try:
                    with self._borrowed(deadline) as connection:
                        return work(connection)
                except _AGAIN:
                    if time.monotonic() > deadline:
                        raise
                except psycopg.Error as err:
                    if not _lost(err) or time.monotonic() + pause > deadline:
                        raise
                    _log.warning("store_connection_lost error=%s", type(err).__name__)
                    self._drop_idle()  # likely lost, too
                    self.wait(pause)
                    pause = min(2 * pause, _LONGEST_WAIT)

    @contextmanager
    def _borrowed(self, deadline: float) -> Iterator[Connection]:
        """Lend a connection; what it has begun and not committed is undone when it is given back."""
        self.refuse_closed()
        if not self._free.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StoreUnreachableError(
                f"{self.name} had no connection free in {self._timeout:g} s: raise `connections`, or ask less at once"
            )
        try:
            connection = self._taken() or self.connect()
            try:
                yield connection
            except BaseException:
                if not connection.closed:
                    connection.rollback()
                raise
            finally:
                self._give_back(connection)
        finally:
            self._free.release()

    def _taken(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _give_back(self, connection: Connection) -> None:
        if not connection.closed:
            self._idle.append(connection)
        if self.closed:
            self._drop_idle()

    def _drop_idle(self) -> None:
        while (connection := self._taken()) is not None:
            connection.close()

    def _configure(self, connection: Connection) -> None:
        register(connection)
        settings = {
            "synchronous_commit": self._synchronous,
            "statement_timeout": _milliseconds(self._timeout),
            "lock_timeout": _milliseconds(self._timeout * _WAITING),
            "idle_in_transaction_session_timeout": _milliseconds(self._timeout * _PAUSING),
            "jit": "off",
            "plan_cache_mode": "force_custom_plan",
        }
        ask(connection, *(("SELECT set_config(%s, %s, false)", setting) for setting in settings.items()))


@contextmanager
def connected(config: StoreConfig) -> Iterator[Connection]:
    """Lend a connection as the server gives it, outside a transaction.

    Raises:
        InvalidSettingError: the URL is not one.
        StoreUnreachableError: the server can't be reached.
        StoreError: it refuses.
    """
    try:
        with psycopg.connect(**_parsed(config)) as connection:
            yield connection
    except psycopg.Error as err:
        raise _store_error(err, f"store {config.name!r}", config.server_timeout) from err


def ask(connection: Connection, *statements: Statement) -> list[Rows]:
    """Send statements in one go; return the rows of each."""
    if len(statements) == 1:
        [(sql, values)] = statements
        cursor = connection.execute(sql.encode(), values, binary=True)
        return [cursor.fetchall() if cursor.description else []]
    with connection.pipeline():
        cursors = [connection.execute(sql.encode(), values, binary=True) for sql, values in statements]
    return [cursor.fetchall() if cursor.description else [] for cursor in cursors]


def _watermark_of(connection: Connection, batch: int) -> int:
    """Return what a transaction left; 0 if it was not committed. Waits until it is neither under way any more."""
    ask(connection, ("SELECT pg_advisory_xact_lock(%s)", (batch,)))  # its own transaction, and so given back at once
    [rows] = ask(connection, ("SELECT watermark FROM niru.writes WHERE batch = %s", (batch,)))
    return int(rows[0][0]) if rows else 0


def _parsed(config: StoreConfig) -> dict[str, Any]:
    try:
        given = psycopg.conninfo.conninfo_to_dict(config.path or "")
    except psycopg.ProgrammingError:
        raise InvalidSettingError(
            f"`path` is {config.name!r}: give postgresql://user@host:port/database, "
            "with what is not letters or digits in user and password written as %XX"
        ) from None  # its message may have the password
    seconds = max(_SHORTEST_CONNECT, round(config.server_timeout))
    return _ALIVE | {"application_name": "niruhybrid", "connect_timeout": seconds} | given | {"autocommit": True}


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def _lost(err: psycopg.Error) -> bool:
    """Whether an error is of the connection, not of what was asked."""
    if err.sqlstate is None:
        return isinstance(err, psycopg.OperationalError | psycopg.InterfaceError)
    return err.sqlstate[:3] in {"57P", "080"} or isinstance(err, refused.IdleInTransactionSessionTimeout)


def _store_error(err: psycopg.Error, name: str, timeout: float) -> StoreError:
    match err:
        case refused.LockNotAvailable():
            return StoreUnreachableError(
                f"{name} waited {timeout * _WAITING:g} s for another writer, nothing was changed: "
                "do the same again, or raise `server_timeout`"
            )
        case refused.QueryCanceled():
            return StoreUnreachableError(
                f"{name} did not answer in {timeout:g} s: see what the server does, or raise `server_timeout`"
            )
        case refused.DiskFull():
            return StoreFullError(f"{name} has no room to grow, the last change was not made: free some disk space")
        case refused.InsufficientPrivilege() | refused.ReadOnlySqlTransaction():
            return StoreReadOnlyError(f"{name} can't be written to ({_said(err)}): grant the user its rights")
        case _ if _lost(err):
            return StoreUnreachableError(f"{name} can't be reached ({_said(err)}): check the server and its address")
    return StoreError(f"{name} refused ({_said(err)}): see the server's log")


def _said(err: psycopg.Error) -> str:
    return str(err).strip().split("\n")[0]
