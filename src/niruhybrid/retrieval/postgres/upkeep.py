"""The thread that makes the index of vectors, once there are so many that it is worth it.

Searches and writes go on meanwhile, in this process and in others; of all processes one does it. It takes as long as
the server needs, and ends, undone, with the store.
"""

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
"""Who has this lock makes the index."""

_GOODBYE = 5.0  # seconds for the server to give up


class Upkeep:
    """Watches the size of one store.

    Args:
        connections: of the store.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None
        self._working: Connection | None = None

    def consider(self, passages: int) -> None:
        """Make the index if it is not there, and this many passages are worth it; returns at once."""
        if passages <= nearest.EXACT or self._thread is not None:  # one try is enough for one process
            return
        with self._mutex:
            if self._thread is None and not self._connections.closed:
                self._thread = threading.Thread(target=self._run, name="niru-store-index", daemon=True)
                self._thread.start()

    def join(self) -> None:
        """Give up what is under way, once the connections are closed, and wait for the thread's end."""
        with self._mutex:
            working, thread = self._working, self._thread
        if working is not None:
            working.cancel_safe(timeout=_GOODBYE)
        if thread is not None:
            thread.join(_GOODBYE)

    def _run(self) -> None:
        began = time.monotonic()
        try:
            with self._connections.connect() as connection:
                with self._mutex:
                    self._working = connection
                try:
                    made = not self._connections.closed and _indexed(connection)
                finally:
                    with self._mutex:
                        self._working = None
        except psycopg.Error as err:
            if not self._connections.closed:
                _log.warning("store_index_failed error=%s: searches stay right, but get slower", type(err).__name__)
            return
        if made:
            _log.info("store_indexed seconds=%.1f", time.monotonic() - began)


def _indexed(connection: Connection) -> bool:
    """Make the index unless it is there, or another process is at it; return whether it was made."""
    _, [[mine]], rows = ask(
        connection,
        ("SELECT set_config('statement_timeout', '0', false)", ()),
        ("SELECT pg_try_advisory_lock(%s)", (_INDEXING,)),
        (STATE, ()),
    )
    state = State.of(rows)
    dimension = state.dimension or 0
    if not mine or state.indexed or not 0 < dimension <= nearest.MOST_DIMENSIONS:
        return False
    connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NEAREST}".encode())  # what was given up before
    connection.execute(nearest.index(dimension).encode())
    return True
