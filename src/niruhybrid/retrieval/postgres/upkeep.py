"""The thread that looks after the tables while searches and writes go on, in this process and in others.

It makes the index of vectors once there are so many that it is worth it, and puts the newest into it; of all processes
one does so at a time. A search never waits for it: what is not in the index is compared.

Whenever this process has written as many rows as there are, it has the room of removed rows used again, which the
server by itself does only once a minute, and compares the counts in the state with the passages that are there. It does
the same when it sees counts that no passages can have. Counts that are wrong are corrected; only this keeps others from
writing, for as long as it takes to count all passages.
"""

import contextlib
import logging
import threading
import time

import psycopg

from niruhybrid.retrieval.postgres import nearest
from niruhybrid.retrieval.postgres.connection import Connection, Connections, ask
from niruhybrid.retrieval.postgres.schema import COUNTED, NEAREST, RECOUNT
from niruhybrid.retrieval.postgres.state import STATE, Counts, State
from niruhybrid.retrieval.postgres.transactions import BEGIN, COMMIT

__all__ = ("Upkeep",)

_log = logging.getLogger(__name__)

_INDEXING = 0x4E495256
"""Who has this lock does the work."""

_OVERDUE = 1000  # rows to be written until it is worth it; so many are compared fast
_UNINDEXED, _INDEXED = 1000, 50  # rows that move together: a writer who replaces one of them has to wait
_CHURNED = 1000  # rows to be written, at the least, until the tables are vacuumed and counted
_GOODBYE = 5.0  # seconds for the server to give up

_MOVE = (
    "WITH moved AS (DELETE FROM niru.newest WHERE row IN "
    "(SELECT row FROM niru.newest ORDER BY row LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING row, vector), "
    "kept AS (INSERT INTO niru.settled (row, vector) SELECT row, vector FROM moved) SELECT count(*) FROM moved"
)
_COMPARED = (  # both as of one moment
    f"SELECT s.passages, s.documents, s.terms, c.passages, c.documents, c.terms FROM niru.state s, ({COUNTED}) c"
)
_LOCKED = ("SELECT FROM niru.state FOR UPDATE", ())
_VACUUM_CHURNED = b"VACUUM (SKIP_LOCKED) niru.postings, niru.passages, niru.newest, niru.locks"
_VACUUM = b"VACUUM niru.newest"  # a search goes through all its pages, the empty ones too


class Upkeep:
    """Watches the size of one store.

    Args:
        connections: of the store.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._mutex = threading.Lock()  # what follows belongs to it
        self._unindexed = _OVERDUE  # rows written since they were moved last; before this process nobody knows
        self._churned = 0  # rows written since the tables were vacuumed and counted
        self._thread: threading.Thread | None = None
        self._working: Connection | None = None

    def consider(self, counts: Counts | None, written: int) -> None:
        """Start the thread if there may be work for it; return at once.

        Args:
            counts: the latest known; None where a write was not told.
            written: rows that have just been written.
        """
        with self._mutex:
            self._unindexed += written
            self._churned += written
            busy = self._thread is not None and self._thread.is_alive()
            if counts is None or busy or self._connections.closed:
                return
            index = counts.passages > nearest.EXACT and self._unindexed >= _OVERDUE
            tidy = counts.impossible or self._churned >= max(_CHURNED, counts.passages)
            if not index and not tidy:
                return
            self._unindexed = 0 if index else self._unindexed
            self._churned = 0 if tidy else self._churned
            self._thread = threading.Thread(target=self._run, args=(index, tidy), name="niru-store-index", daemon=True)
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

    def _run(self, index: bool, tidy: bool) -> None:
        began = time.monotonic()
        try:
            with self._connections.connect() as connection:
                self._work_on(connection)
                ask(connection, ("SELECT set_config('statement_timeout', '0', false)", ()))
                if tidy:
                    _correct(connection)
                    connection.execute(_VACUUM_CHURNED)
                if index:
                    self._settle(connection)
                self._work_on(None)
        except psycopg.Error as err:
            if not self._connections.closed:
                _log.warning("store_upkeep_failed error=%s: it is tried again after later writes", type(err).__name__)
            return
        _log.debug("store_upkeep seconds=%.1f", time.monotonic() - began)

    def _work_on(self, connection: Connection | None) -> None:
        with self._mutex:
            self._working = connection

    def _settle(self, connection: Connection) -> None:
        """Move the newest vectors, into the index if there is one, and make one if there is none."""
        [[mine]], rows = ask(
            connection,
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


def _correct(connection: Connection) -> None:
    """Compare the counts with what is there, and write those anew if they differ."""
    [[counts]] = ask(connection, (_COMPARED, ()))
    if counts[:3] == counts[3:]:
        return
    _log.warning("store_counts_corrected passages=%d documents=%d terms=%d were passages=%d documents=%d terms=%d",
                 *counts[3:], *counts[:3])  # fmt: skip
    ask(connection, BEGIN, _LOCKED, (RECOUNT, ()), COMMIT)


def _index(dimension: int) -> str:
    """Return the statement that makes the index while others write."""
    name = NEAREST.partition(".")[2]
    return (
        f"CREATE INDEX CONCURRENTLY {name} ON niru.settled USING hnsw ((vector::halfvec({dimension})) halfvec_ip_ops)"
    )
