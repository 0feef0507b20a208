"""Connections to the server: lent, watched and replaced; its errors made ours; what was lost tried again.

A call has a deadline. Within it, what fails because a connection was lost, or because another writer was first, is done
again. A transaction whose commit was on its way when the connection broke has left a trace, or none: see `Write`.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import errors as refused
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

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

__all__ = ("Connection", "Connections", "Rows", "Statement", "Write", "ask")

_log = logging.getLogger(__name__)

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]
Rows = list[tuple[Any, ...]]
Statement = tuple[str, Any]
"""SQL made of constant parts, and its parameters."""

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0  # seconds between two tries
_LOST = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    PoolTimeout,
)
_AGAIN = (refused.UniqueViolation, refused.DeadlockDetected, refused.SerializationFailure)
_ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
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
        self._pool = ConnectionPool(
            kwargs=self._arguments,
            configure=self._configure,
            min_size=1,
            max_size=config.connections,
            timeout=self._timeout,
            reconnect_timeout=self._timeout,
            name="niru-store",
            num_workers=1,
            open=True,
        )

    def connect(self) -> Connection:
        """Return a connection of one's own, outside a transaction; errors are PostgreSQL's."""
        connection = psycopg.connect(**self._arguments)
        self._configure(connection)
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
            if change.batch is None:
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
        self._pool.close()

    def refuse_closed(self) -> None:
        """Raise `ClosedError` if the store has been closed."""
        if self.closed:
            raise ClosedError(f"{self.name} has been closed: open it again")

    @contextmanager
    def own_errors(self) -> Iterator[None]:
        """Turn the errors of a block into ours."""
        try:
            yield
        except (psycopg.Error, PoolTimeout, PoolClosed) as err:
            self.refuse_closed()
            raise _store_error(err, self.name, self._timeout) from err

    def _tried(self, work: Callable[[Connection], T]) -> T:
        self.refuse_closed()
        deadline, pause = time.monotonic() + self._timeout, _FIRST_WAIT
        with self.own_errors():
            while True:
                try:
                    with self._pool.connection(max(1e-3, deadline - time.monotonic())) as connection:
                        return self._undone_if_failed(connection, work)
                except _AGAIN:
                    if time.monotonic() > deadline:
                        raise
                except _LOST as err:
                    if not _passing(err) or time.monotonic() + pause > deadline or self.closed:
                        raise
                    _log.warning("store_connection_lost error=%s", type(err).__name__)
                    self._pool.check()  # the others are likely lost, too
                    self.wait(pause)
                    pause = min(2 * pause, _LONGEST_WAIT)

    def _undone_if_failed(self, connection: Connection, work: Callable[[Connection], T]) -> T:
        try:
            return work(connection)
        except BaseException:
            if not connection.closed:
                connection.rollback()
            raise

    def _configure(self, connection: Connection) -> None:
        register(connection)
        milliseconds = str(round(self._timeout * 1000))
        settings = {
            "synchronous_commit": self._synchronous,
            "statement_timeout": milliseconds,
            "idle_in_transaction_session_timeout": milliseconds,
            "jit": "off",
            "plan_cache_mode": "force_custom_plan",
        }
        ask(connection, *(("SELECT set_config(%s, %s, false)", setting) for setting in settings.items()))


def ask(connection: Connection, *statements: Statement) -> list[Rows]:
    """Send statements in one go; return the rows of each."""
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


def _passing(err: BaseException) -> bool:
    """Whether an error is of the connection, not of what was asked."""
    return not isinstance(err, psycopg.Error) or err.sqlstate is None or err.sqlstate[:3] in {"57P", "080"}


def _store_error(err: BaseException, name: str, timeout: float) -> StoreError:
    match err:
        case refused.QueryCanceled() | PoolTimeout():
            return StoreUnreachableError(
                f"{name} did not answer in {timeout:g} s: see what the server does, or raise `server_timeout`"
            )
        case refused.DiskFull():
            return StoreFullError(f"{name} has no room to grow, the last change was not made: free some disk space")
        case refused.InsufficientPrivilege() | refused.ReadOnlySqlTransaction():
            return StoreReadOnlyError(f"{name} can't be written to ({_said(err)}): grant the user its rights")
        case psycopg.OperationalError() | psycopg.InterfaceError() if _passing(err):
            return StoreUnreachableError(f"{name} can't be reached ({_said(err)}): check the server and its address")
    return StoreError(f"{name} refused ({_said(err)}): see the server's log")


def _said(err: BaseException) -> str:
    return str(err).strip().split("\n")[0]
