"""The thread that makes the index of vectors once there are so many that it is worth it, and puts the newest into it.

Searches and writes go on meanwhile, in this process and in others; of all processes one does it at a time. A search
never waits for it: what is not in the index is compared.
"""

import contextlib
import logging
import threading
import time

import psycopg

from niruhybrid.retrieval.postgres import nearest
from niruhybrid.retrieval.postgres.connection import Connection, Connections, ask
from niruhybrid.retrieval.postgres.schema import NEAREST
from niruhybrid.retrieval.postgres.state import STATE, State

__all__ = ("Upkeep",)

_log = logging.getLogger(__name__)

_INDEXING = 0x4E495256
"""Who has this lock does the work."""

_OVERDUE = 1000  # rows to be written until it is worth it; so many are compared fast
_UNINDEXED, _INDEXED = 1000, 50  # rows that move together: a writer who replaces one of them has to wait
_GOODBYE = 5.0  # seconds for the server to give up

_MOVE = (
    "WITH moved AS (DELETE FROM niru.newest WHERE row IN "
    "(SELECT row FROM niru.newest ORDER BY row LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING row, vector), "
    "kept AS (INSERT INTO niru.settled (row, vector) SELECT row, vector FROM moved) SELECT count(*) FROM moved"
)
_VACUUM = b"VACUUM niru.newest"  # a search goes through all its pages, the empty ones too


class Upkeep:
    """Watches the size of one store.

    Args:
        connections: of the store.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._mutex = threading.Lock()  # what follows belongs to it
        self._written = _OVERDUE  # rows, since the thread was started last; nobody knows of those before this process
        self._thread: threading.Thread | None = None
        self._working: Connection | None = None

    def consider(self, passages: int, written: int) -> None:
        """Have the work done if there may be some; returns at once.

        Args:
            passages: how many there are.
            written: rows that have just been written.
        """
        with self._mutex:
            self._written += written
            busy = self._thread is not None and self._thread.is_alive()
            if busy or passages <= nearest.EXACT or self._written < _OVERDUE or self._connections.closed:
                return
            self._written = 0
            self._thread = threading.Thread(target=self._run, name="niru-store-index", daemon=True)
            self._thread.start()

    def join(self) -> None:
        """Give up what is under way, once the connections are closed, and wait for the thread's end."""
        with self._mutex:
            working, thread = self._working, self._thread
        if working is not None:
            with contextlib.suppress(psycopg.Error):  # it may just have been closed
                working.cancel_safe(timeout=_GOODBYE)
        if thread is not None:
            thread.join(_GOODBYE)

    def _run(self) -> None:
        began = time.monotonic()
        try:
            with self._connections.connect() as connection:
                self._work_on(connection)
                self._settle(connection)
                self._work_on(None)
        except psycopg.Error as err:
            if not self._connections.closed:
                _log.warning("store_index_failed error=%s: searches stay right, but get slower", type(err).__name__)
            return
        _log.debug("store_indexed seconds=%.1f", time.monotonic() - began)

    def _work_on(self, connection: Connection | None) -> None:
        with self._mutex:
            self._working = connection

    def _settle(self, connection: Connection) -> None:
        """Move the newest vectors, into the index if there is one, and make one if there is none."""
        _, [[mine]], rows = ask(
            connection,
            ("SELECT set_config('statement_timeout', '0', false)", ()),
            ("SELECT pg_try_advisory_lock(%s)", (_INDEXING,)),
            (STATE, ()),
        )
        state = State.of(rows)
        dimension = state.dimension or 0
        if not mine or not 0 < dimension <= nearest.MOST_DIMENSIONS:
            return
        together = _INDEXED if state.indexed else _UNINDEXED
        moved = 1
        while moved and not self._connections.closed:
            [[[moved]]] = ask(connection, (_MOVE, (together,)))
        connection.execute(_VACUUM)
        if not state.indexed and not self._connections.closed:
            connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NEAREST}".encode())  # what was given up before
            connection.execute(_index(dimension).encode())


def _index(dimension: int) -> str:
    """Return the statement that makes the index while others write."""
    name = NEAREST.partition(".")[2]
    return (
        f"CREATE INDEX CONCURRENTLY {name} ON niru.settled USING hnsw ((vector::halfvec({dimension})) halfvec_ip_ops)"
    )
