"""The embedded store: a log and the indexes derived from it, one transaction a micro-batch, one watermark."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np

from niruhybrid.config import StoreConfig
from niruhybrid.errors import InvalidVectorError, StoreBehindError, StoreError
from niruhybrid.retrieval.keeper import Keeper
from niruhybrid.retrieval.lexical import MAX_QUERY_TERMS
from niruhybrid.retrieval.log import Log, Record, Session, State, as_kept, joined, split
from niruhybrid.retrieval.recovery import Checkpoints, Recovery, opened
from niruhybrid.retrieval.search import best_slots
from niruhybrid.retrieval.snapshot import Additions, Snapshot
from niruhybrid.retrieval.standing import News, StandingQueries
from niruhybrid.types import Document, Hit, IndexEntry, Match, SearchRequest, SearchResponse, StandingQuery, Vector

__all__ = ("EmbeddedStore",)

_log = logging.getLogger(__name__)


class EmbeddedStore:
    """Keeps documents in one file, or in memory, and finds them by meaning and by words.

    Thread-safe: any number of threads may search while one writes. Every call may block. A file belongs to one store
    at a time. Use it in a `with` block, or call `close`.

    Args:
        path: the file, made if there is none; None takes the path of `config`, which keeps the store in memory when it
            has none.
        config: durability and weights; None takes the defaults.

    Raises:
        StoreLockedError: the file is open already, here or in another process.
        StoreCorruptError: the file is damaged, or not a store.
        StoreVersionError: it was written by a newer version.
        StoreReadOnlyError: it can't be written to.
        StoreError: it can't be opened for another reason.
    """

    def __init__(self, path: str | Path | None = None, *, config: StoreConfig | None = None) -> None:
        self._config = config or StoreConfig()
        chosen = path if path is not None else self._config.path
        file = None if chosen is None else Path(chosen)
        self._standing = StandingQueries(self._config.dense_weight)
        self._log = Log(file, self._config.durability)
        try:
            with self._log.read() as session:
                snapshot, self._recovery = opened(file, session)
        except BaseException:
            self._log.close()
            raise
        last = snapshot.rows.items[-1] if self._recovery.checkpoint is not None and len(snapshot.rows) else 0
        checkpoints = Checkpoints(file, self._log, int(last) - self._recovery.added)
        self._keeper = Keeper(snapshot, self._watermark, checkpoints)
        with self._keeper.changing:
            self._keeper.wake()
        _log.info("store_opened rows=%d watermark=%d %s", len(snapshot), snapshot.watermark, self._recovery)

    @property
    def recovery(self) -> Recovery:
        """How the indexes came to be when the store was opened."""
        return self._recovery

    def upsert(self, entries: Sequence[IndexEntry], /) -> int:
        """Keep all entries or none, replacing those with the same id (the last of a batch wins).

        Returns:
            The watermark: a search that reports this or a later one saw the entries. The next search does.

        Raises:
            InvalidVectorError: a vector is not finite, or its dimension is not the store's; nothing was written.
            StoreError: nothing was written; the subclass says why.
            ClosedError: the store has been closed.
        """
        if not entries:
            return self._watermark()
        latest = {entry.document.id: at for at, entry in enumerate(entries)}
        kept = [entries[at] for at in latest.values()]
        records = [_record(entry.document) for entry in kept]
        terms = [split(joined(entry.terms)) for entry in kept]  # as they will come back
        news: list[News] = []
        with self._change(news) as (session, state):
            before = session.state
            vectors = _matrix([entry.vector for entry in entries], before.dimension)[list(latest.values())]
            after = State(before.watermark + 1, before.last_row + len(latest), vectors.shape[1])
            rows = range(before.last_row + 1, after.last_row + 1)
            replaced = _taken_out(session, latest)
            session.insert(rows, records, terms, vectors)
            metadata = [as_kept(record.metadata) for record in records]
            added = Additions(rows, vectors, terms, metadata)
            changed = state.changed(after.watermark, replaced, added)
            self._keeper.offer(state, changed)
            session.advance(after)
            news.append(News(kept, vectors, changed))
        self._standing.tell()
        return after.watermark

    def delete(self, ids: Sequence[str], /) -> tuple[int, int]:
        """Remove documents; unknown ids are passed over.

        Returns:
            How many were removed, and the watermark.

        Raises:
            StoreError: nothing was removed; the subclass says why.
            ClosedError: the store has been closed.
        """
        with self._change() as (session, state):
            before = session.state
            removed = _taken_out(session, ids)
            if not removed:
                return 0, before.watermark
            after = State(before.watermark + 1, before.last_row, before.dimension)
            self._keeper.offer(state, state.changed(after.watermark, removed, Additions.nothing()))
            session.advance(after)
        return len(removed), after.watermark

    def get(self, ids: Sequence[str], /) -> list[Document | None]:
        """Return the documents of these ids, in their order, with their vectors; None for each unknown one.

        Raises:
            StoreError: nothing can be read; the subclass says why.
            ClosedError: the store has been closed.
        """
        with self._log.read() as session:
            return [_document(session, name) for name in ids]

    def search(self, requests: Sequence[SearchRequest], /) -> list[SearchResponse]:
        """Answer a batch of queries, in their order, all from one state of the store.

        Both halves look at least 100 deep, or four times `top_k`. Of equal scores the document written first wins. Of
        the passages of one document, those with the same string in the metadata field `document`, the best one wins.

        Raises:
            InvalidVectorError: a vector is not finite, or its dimension is not the store's.
            StoreError: nothing can be read, or there is no such write yet as a `min_watermark` asks for.
            ClosedError: the store has been closed.
        """
        with self._pinned() as (session, state):
            _refuse_too_new(requests, state.watermark)
            _refuse_vectors(requests, session.state.dimension)
            ranked = best_slots(state, requests, self._config.dense_weight)
            return [
                SearchResponse(_hits(session, state, best), state.watermark, _notes(request))
                for request, best in zip(requests, ranked, strict=True)
            ]

    def subscribe(self, query: StandingQuery, deliver: Callable[[Match], None], /) -> Callable[[], None]:
        """Have `deliver` told of every document that matches `query` from now on, once it is searchable.

        Args:
            query: what is waited for; not kept when the store is closed.
            deliver: called in the thread that wrote, in the order of the writes; must return at once. One that raises
                is not called again.

        Returns:
            What ends the subscription; to be called from any thread, a second time in vain.

        Raises:
            InvalidVectorError: the vector is not finite, or its dimension is not the store's.
            ClosedError: the store has been closed.
        """
        with self._log.read() as session:
            if query.vector is not None:
                _matrix([query.vector], session.state.dimension)
        return self._standing.add(query, deliver)

    def count(self) -> int:
        """Return how many documents there are."""
        with self._pinned() as (_, state):
            return len(state)

    def ids(self) -> list[str]:
        """Return the ids of all documents, in no particular order."""
        with self._log.read() as session:
            return session.ids()

    def list_ids(self, limit: int, after: str = "") -> list[str]:
        """Return the `limit` ids that follow `after`, ascending by code point: page by page, all there are."""
        with self._log.read() as session:
            return session.page_of_ids(after, limit)

    def close(self) -> None:
        """Release files and memory; searches in progress end undisturbed. A second call does nothing."""
        self._keeper.stop()
        self._log.close()
        self._keeper.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _change(self, news: Sequence[News] = ()) -> Iterator[tuple[Session, Snapshot]]:
        """Run a block as one transaction, with the state that it changes; then keep what it made of `news`."""
        with self._keeper.changing:
            with self._log.write() as session:
                state = self._keeper.at(session.state.watermark)
                if state is None:
                    raise StoreError("the store's indexes are behind its log: close it and open it again")
                yield session, state
            for one in news:
                self._standing.note(one)
            self._keeper.wake()

    @contextmanager
    def _pinned(self) -> Iterator[tuple[Session, Snapshot]]:
        """Open one state: a transaction, and the indexes of the same watermark.

        A writer offers the next state before it commits and takes the last one back no earlier than its next change,
        so the state is missing only if two changes came between the two steps here. Then it is out of date anyway.
        """
        while True:
            with self._log.read() as session:
                state = self._keeper.at(session.state.watermark)
                if state is not None:
                    yield session, state
                    return

    def _watermark(self) -> int:
        with self._log.read() as session:
            return session.state.watermark


def _taken_out(session: Session, ids: Iterable[str]) -> dict[int, list[str]]:
    """Remove documents from the log; return their rows, each with its terms."""
    rows = session.rows_of(ids)
    removed = {row: session.terms(row) for row in rows}
    session.remove(rows)
    return removed


def _refuse_too_new(requests: Sequence[SearchRequest], watermark: int) -> None:
    asked = max((request.min_watermark for request in requests), default=0)
    if asked > watermark:
        raise StoreBehindError(
            f"the store is at watermark {watermark}, `min_watermark` is {asked}: ask for one that this store returned"
        )


def _refuse_vectors(requests: Sequence[SearchRequest], dimension: int | None) -> None:
    vectors = [request.vector for request in requests if request.vector is not None]
    if vectors:
        _matrix(vectors, dimension)


def _notes(request: SearchRequest) -> tuple[str, ...]:
    """Say what of a request was passed over."""
    if request.mode == "dense" or len(request.terms) <= MAX_QUERY_TERMS:
        return ()
    return (f"of {len(request.terms)} terms the first {MAX_QUERY_TERMS} were searched for",)


def _matrix(vectors: Sequence[Vector], dimension: int | None) -> Vector:
    """Stack vectors, `(n, dim)` float32.

    Raises:
        InvalidVectorError: one is not finite, or not of the store's dimension.
    """
    dim = dimension if dimension is not None else vectors[0].size
    for vector in vectors:
        if vector.shape != (dim,) or dim == 0:
            raise InvalidVectorError(
                f"embedding has shape {vector.shape}, the store has dimension {dim}: "
                "use the model that the store was filled with"
            )
    matrix = np.ascontiguousarray(vectors, np.float32)
    if not np.isfinite(matrix).all():
        raise InvalidVectorError("embedding has a value that is not finite: check the encoder's output")
    return matrix


def _record(document: Document) -> Record:
    return Record(document.id, document.title, document.text, document.metadata)


def _document(session: Session, name: str) -> Document | None:
    for row in session.rows_of((name,)):
        kept = session.record(row)
        vector = np.frombuffer(session.vector(row), np.float32)
        return Document(kept.id, kept.text, title=kept.title, metadata=kept.metadata, embedding=vector)
    return None


def _hits(session: Session, state: Snapshot, best: Sequence[tuple[int, float]]) -> tuple[Hit, ...]:
    rows = state.rows.items
    return tuple(_hit(session.record(int(rows[slot])), rank, score) for rank, (slot, score) in enumerate(best, start=1))


def _hit(kept: Record, rank: int, score: float) -> Hit:
    return Hit(kept.id, rank, score, kept.text, kept.title, MappingProxyType(dict(kept.metadata)))
