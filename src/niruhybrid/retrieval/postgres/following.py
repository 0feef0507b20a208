"""Standing queries over the writes of all processes: each is told of in order, once, whoever made it.

The order is that of watermarks, and `niru.writes` has it. Whoever has just written catches up with it, and so does a
thread that listens to the server: from the last write that was told of to the last there is. What was replaced or
removed before it could be told is no news. While nobody is subscribed nothing of this happens.
"""

import logging
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from niruhybrid.errors import NiruError
from niruhybrid.retrieval.lexical import MAX_QUERY_TERMS, term_weights
from niruhybrid.retrieval.postgres import terms
from niruhybrid.retrieval.postgres.connection import Connection, Connections, Rows, ask
from niruhybrid.retrieval.postgres.frequencies import Frequencies
from niruhybrid.retrieval.postgres.reading import ENTRIES, entry_of
from niruhybrid.retrieval.postgres.schema import BATCH
from niruhybrid.retrieval.postgres.state import STATE, State
from niruhybrid.retrieval.postgres.transactions import COMMIT, SNAPSHOT
from niruhybrid.retrieval.postgres.writing import CHANNEL
from niruhybrid.retrieval.standing import News, StandingQueries
from niruhybrid.types import Match, StandingQuery

__all__ = ("Follower",)

_log = logging.getLogger(__name__)

_AT_ONCE = 16  # writes that are read together
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0  # seconds until the server is listened to again
_GOODBYE = 5.0

_WRITES = f"SELECT watermark, batch FROM niru.writes WHERE watermark > %s ORDER BY watermark LIMIT {_AT_ONCE}"
_NEWS = f"{ENTRIES} WHERE p.row >= %s AND p.row < %s ORDER BY p.row"


@dataclass(frozen=True, slots=True)
class _Statistics:
    """A `panel.Statistics`: what the server has counted of the terms that standing queries have."""

    documents: int
    owners: int
    total: int
    numbers: dict[str, int]  # grows with later subscriptions, whose terms count as rare until the next write
    have: NDArray[Any]
    have_documents: NDArray[Any]

    @property
    def numbering(self) -> object:
        return self.numbers

    def number_of(self, term: str) -> int:
        return self.numbers.get(term, -1)

    def weights(self, terms: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        known = np.where((terms < 0) | (terms >= len(self.have)), -1, terms)
        passages, documents = (np.append(have, 0)[known] for have in (self.have, self.have_documents))
        return term_weights(passages, self.documents), term_weights(documents, self.owners)


class Follower:
    """Tells the subscriptions of one store in this process. Thread-safe.

    Args:
        connections: of the store.
        frequencies: counts of terms, of the same store.
        dense_weight: weight of the dense half.
    """

    def __init__(self, connections: Connections, frequencies: Frequencies, dense_weight: float) -> None:
        self._connections = connections
        self._frequencies = frequencies
        self._standing = StandingQueries(dense_weight)
        self._turn = threading.RLock()  # what follows belongs to it
        self._told = 0
        self._numbers: dict[str, int] = {}  # of terms that standing queries have, in the order in which they came
        self._terms: list[int] = []  # the same as postings know them
        self._listener: threading.Thread | None = None
        self._wake, self._woken = socket.socketpair()

    def add(self, query: StandingQuery, deliver: Callable[[Match], None]) -> Callable[[], None]:
        """Have `deliver` told of all that matches from now on; return what ends it. See `ports.Store.subscribe`.

        Raises:
            InvalidVectorError: the vector's length is not the store's.
            StoreError: the server can't be asked.
        """
        with self._turn:
            if self._standing.awaited:
                self.catch_up()
            state = self._connections.read(_state)
            if not self._standing.awaited:
                self._told = state.watermark
            for term in query.terms[:MAX_QUERY_TERMS]:
                if term not in self._numbers:
                    self._terms.append(terms.number(term))
                    self._numbers[term] = len(self._numbers)
            end = self._standing.add(query, deliver, state.dimension)
            if self._listener is None:
                self._listener = threading.Thread(target=self._listen, name="niru-store-listener", daemon=True)
                self._listener.start()
            return end

    def catch_up(self, watermark: int | None = None) -> None:
        """Tell of all writes so far; with `watermark` of those up to it, at least.

        Raises:
            StoreError: the server can't be asked; nothing is lost, the next call tells of the same.
        """
        while self._standing.awaited:
            with self._turn:
                if watermark is not None and self._told >= watermark:
                    return
                news, told, last = self._connections.read(self._news)
                self._told = told
                for one in news:
                    self._standing.note(one)
                self._standing.tell()
                if told >= last:
                    return

    def told(self, watermark: int) -> None:
        """Catch up with a write of one's own, which is committed: what goes wrong is left to the listener."""
        try:
            self.catch_up(watermark)
        except NiruError as err:
            _log.warning("standing_queries_late watermark=%d error=%s", watermark, type(err).__name__)

    def close(self) -> None:
        """End the listening thread; the connections are closed already."""
        self._wake.close()
        with self._turn:
            listener = self._listener
        if listener is not None and listener is not threading.current_thread():
            listener.join(_GOODBYE)
        self._woken.close()

    def _news(self, connection: Connection) -> tuple[list[News], int, int]:
        """Return the next writes, the last of them, and the last there is."""
        _, rows, writes = ask(connection, SNAPSHOT, (STATE, ()), (_WRITES, (self._told,)))
        state = State.of(rows)
        if not writes:
            ask(connection, COMMIT)
            return [], state.watermark, state.watermark
        (first, _), (last, _) = writes[0], writes[-1]
        if first > self._told + 1:
            _log.error("standing_queries_lost writes=%d: they were too long ago", first - self._told - 1)
        have, have_documents = self._frequencies.of(
            np.array(self._terms, np.int64),
            state,
            lambda statement: ask(connection, statement)[0],
        )
        statistics = _Statistics(state.passages, state.documents, state.terms, self._numbers, have, have_documents)
        asked = [(_NEWS, (batch * BATCH, (batch + 1) * BATCH)) for _, batch in writes]
        *found, _ = ask(connection, *asked, COMMIT)
        news = [_of(watermark, kept, statistics) for (watermark, _), kept in zip(writes, found, strict=True) if kept]
        return news, last, state.watermark

    def _listen(self) -> None:
        pause = _FIRST_WAIT
        while not self._connections.closed:
            try:
                with self._connections.connect() as connection:
                    connection.execute(f"LISTEN {CHANNEL}".encode())
                    self.catch_up()
                    pause = _FIRST_WAIT
                    while (heard := self._heard(connection)) is not None:
                        self.catch_up(heard)
            except (psycopg.Error, NiruError) as err:
                if not self._connections.closed:
                    _log.warning("store_listener_lost error=%s", type(err).__name__)
            if self._connections.wait(pause):
                return
            pause = min(2 * pause, _LONGEST_WAIT)

    def _heard(self, connection: Connection) -> int | None:
        """Wait for the news of a write, and return its watermark; None at the end of the store."""
        while not self._connections.closed:
            heard = [int(one.extra) for one in iter(connection.pgconn.notifies, None)]
            if heard:
                return max(heard)
            ready, _, _ = select.select([connection.fileno(), self._woken.fileno()], [], [])
            if self._woken.fileno() in ready:
                break
            connection.pgconn.consume_input()
        return None


def _state(connection: Connection) -> State:
    return State.of(ask(connection, (STATE, ()))[0])


def _of(watermark: int, rows: Rows, statistics: _Statistics) -> News:
    entries = [entry_of(row) for row in rows]
    return News(
        entries,
        np.array([entry.vector for entry in entries]),
        [entry.terms for entry in entries],
        watermark,
        statistics,
    )
