"""The store on PostgreSQL: what `EmbeddedStore` does, for any number of processes at once."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from niruhybrid.config import StoreConfig
from niruhybrid.retrieval.changes import checked_matrix
from niruhybrid.retrieval.postgres.connection import Connection, Connections, Rows, Statement, ask
from niruhybrid.retrieval.postgres.following import Follower
from niruhybrid.retrieval.postgres.frequencies import Frequencies
from niruhybrid.retrieval.postgres.reading import ENTRIES, documents, documents_of, entry_of, hits_of, records_of
from niruhybrid.retrieval.postgres.searching import Search
from niruhybrid.retrieval.postgres.state import STATE, State
from niruhybrid.retrieval.postgres.transactions import COMMIT, SNAPSHOT
from niruhybrid.retrieval.postgres.upkeep import Upkeep
from niruhybrid.retrieval.postgres.writing import Delete, Upsert
from niruhybrid.retrieval.refusals import notes_of, refuse_too_new, refuse_vectors
from niruhybrid.types import Document, IndexEntry, Match, SearchRequest, SearchResponse, StandingQuery

__all__ = ("PostgresStore",)

_log = logging.getLogger(__name__)

_PRUNED = 1024  # writes after which those that are long told of are forgotten


class PostgresStore:
    """Keeps documents in a PostgreSQL database with pgvector, and finds them by meaning and by words.

    Thread-safe, and any number of processes may have the same database open, write to it and be told of each other's
    writes. Every call may block, for `server_timeout` at the most: within it, connections that are lost are made anew
    and what was asked is asked again, a write never made twice. Use it in a `with` block, or call `close`.

    Args:
        path: the database's URL; None takes the path of `config`.
        config: durability, weights, connections; None takes the defaults.

    Raises:
        InvalidSettingError: the URL is not one.
        StoreUnreachableError: the server can't be reached.
        StoreVersionError: the tables are of a newer version.
        StoreReadOnlyError: the tables can't be made or written to.
        StoreError: the database can't hold a store: it has no pgvector, or its texts are not UTF-8.
    """

    def __init__(self, path: str | None = None, *, config: StoreConfig | None = None) -> None:
        self._config = config or StoreConfig()
        if path is not None:
            self._config = replace(self._config, path=path)
        self._connections = Connections(self._config)
        self._frequencies = Frequencies()
        self._follower = Follower(self._connections, self._frequencies, self._config.dense_weight)
        self._upkeep = Upkeep(self._connections)
        state = self._state()
        self._upkeep.consider(state.counts, 0)
        _log.info("store_opened passages=%d watermark=%d", state.passages, state.watermark)

    def upsert(self, entries: Sequence[IndexEntry], /) -> int:
        """Keep all entries or none; each takes the place of what `IndexEntry` says (the last of a batch wins).

        Returns:
            The watermark: a search that reports this or a later one saw the entries. The next search does, in every
            process.

        Raises:
            InvalidVectorError: a vector is not finite, or its dimension is not the store's; nothing was written.
            InvalidPassageError: a passage does not continue its document; nothing was written.
            StoreUnreachableError: the server was lost; the message says whether the entries may have been written.
            StoreError: nothing was written; the subclass says why.
            ClosedError: the store has been closed.
        """
        if not entries:
            return self._state().watermark
        change = Upsert(entries, self._connections.vector_kind)
        self._write(change)
        self._upkeep.consider(change.counts, len(entries))
        return change.watermark

    def delete(self, ids: Sequence[str], /) -> tuple[int, int]:
        """Remove documents; unknown ids are passed over.

        Returns:
            How many were removed, and the watermark. Where nothing was removed, none of them was there at it.

        Raises:
            StoreUnreachableError: the server was lost; the message says whether documents may have been removed.
            StoreError: nothing was removed; the subclass says why.
            ClosedError: the store has been closed.
        """
        change = Delete(_possible(ids))
        self._write(change)
        self._upkeep.consider(change.counts, 0)
        return change.removed, change.watermark

    def get(self, ids: Sequence[str], /) -> list[Document | None]:
        """Return the documents of these ids, in their order; None for each unknown one. See `EmbeddedStore.get`.

        Raises:
            StoreError: nothing can be read; the subclass says why.
            ClosedError: the store has been closed.
        """
        known = documents(self._rows(documents_of(_possible(ids))))
        return [known.get(name) for name in ids]

    def search(self, requests: Sequence[SearchRequest], /) -> list[SearchResponse]:
        """Answer a batch of queries, in their order, all from one state of the store. See `EmbeddedStore.search`.

        In a store of more than 10,000 passages the dense half goes by an index, and may miss a few of the nearest.

        Raises:
            InvalidVectorError: a vector is not finite, or its dimension is not the store's.
            UnknownWatermarkError: `min_watermark` is of a write that this store has not seen.
            StoreError: nothing can be read; the subclass says why.
            ClosedError: the store has been closed.
        """
        return self._connections.read(lambda connection: self._answers(connection, requests))

    def subscribe(self, query: StandingQuery, deliver: Callable[[Match], None], /) -> Callable[[], None]:
        """Have `deliver` told of every document that matches `query` from now on, whichever process writes it.

        Args:
            query: what is waited for; not kept when the store is closed.
            deliver: called in the thread that wrote, or in one that listens to the server, in the order of the writes;
                must return at once and not raise: the subscription ends when it raises, or takes more than a second.

        Returns:
            What ends the subscription; to be called from any thread, a second time in vain.

        Raises:
            InvalidVectorError: the vector is not finite, or its dimension is not the store's.
            StoreError: the server can't be asked.
            ClosedError: the store has been closed.
        """
        if query.vector is not None:
            checked_matrix([query.vector], self._state().dimension)
        return self._follower.add(query, deliver)

    def count(self) -> int:
        """Return how many documents there are."""
        return self._state().documents

    def ids(self) -> list[str]:
        """Return the ids of all documents, in no particular order."""
        return [name for (name,) in self._rows(("SELECT id FROM niru.passages WHERE part = 0", ()))]

    def list_ids(self, limit: int, after: str = "") -> list[str]:
        """Return the `limit` ids that follow `after`, ascending by code point: page by page, all there are."""
        sql = "SELECT id FROM niru.passages WHERE id > %s AND part = 0 ORDER BY id LIMIT %s"
        return [name for (name,) in self._rows((sql, (after, limit)))]

    def entries(self, limit: int, after: tuple[str, int] = ("", 0)) -> list[IndexEntry]:
        """Return the `limit` entries that follow a document's part, by id and part: page by page, all there are.

        Raises:
            StoreError: nothing can be read; the subclass says why.
            ClosedError: the store has been closed.
        """
        sql = f"{ENTRIES} WHERE (p.id, p.part) > (%s, %s) ORDER BY p.id, p.part LIMIT %s"
        return [entry_of(row) for row in self._rows((sql, (*after, limit)))]

    def close(self) -> None:
        """Release connections; searches in progress end undisturbed. A second call does nothing."""
        if self._connections.closed:
            return
        self._connections.close()
        self._follower.close()
        self._upkeep.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answers(self, connection: Connection, requests: Sequence[SearchRequest]) -> list[SearchResponse]:
        _, rows = ask(connection, SNAPSHOT, (STATE, ()))
        state = State.of(rows)
        refuse_too_new(requests, state.watermark)
        refuse_vectors(requests, state.dimension)
        found = Search(connection, state, self._frequencies, self._config.dense_weight).best(requests)
        wanted = list({row for best in found for row, _ in best})
        kept, _ = ask(connection, records_of(wanted), COMMIT)
        records = {record[0]: record for record in kept}
        return [
            SearchResponse(hits_of(best, records), state.watermark, notes_of(request))
            for request, best in zip(requests, found, strict=True)
        ]

    def _write(self, change: Upsert | Delete) -> None:
        self._connections.write(change)
        self._follower.told(change.watermark)
        if change.watermark % _PRUNED == 0:
            self._rows(("DELETE FROM niru.writes WHERE at < now() - interval '1 hour'", ()))

    def _state(self) -> State:
        return State.of(self._rows((STATE, ())))

    def _rows(self, statement: Statement) -> Rows:
        return self._connections.read(lambda connection: ask(connection, statement)[0])


def _possible(ids: Sequence[str]) -> list[str]:
    """Return the ids that a document can have: PostgreSQL takes no others."""
    return [name for name in ids if name.isprintable()]
