"""The embedded store: a log and two indexes, one transaction a micro-batch, one watermark."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np

from niruhybrid.config import StoreConfig
from niruhybrid.errors import InvalidVectorError, StoreCorruptError
from niruhybrid.retrieval import fusion, lexical
from niruhybrid.retrieval.dense import DenseIndex
from niruhybrid.retrieval.log import Log, Record, Session, State
from niruhybrid.types import Document, Hit, IndexEntry, SearchRequest, SearchResponse, Vector

__all__ = ("EmbeddedStore",)

_log = logging.getLogger(__name__)

_DEPTH = 100
_DEPTH_PER_HIT = 4


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
        self._log = Log(None if chosen is None else Path(chosen), self._config.durability)
        try:
            with self._log.write() as session:
                rebuilt = lexical.ensure(session)
                # The newest states, one or two: which of them counts is for the log's watermark to say.
                self._indexes: tuple[DenseIndex, ...] = (_read_index(session),)
        except BaseException:
            self._log.close()
            raise
        index = self._indexes[0]
        _log.info("store_opened rows=%d watermark=%d lexical_rebuilt=%s", len(index), index.watermark, rebuilt)

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
        records = [_record(entries[at].document) for at in latest.values()]
        terms = [lexical.joined(entries[at].terms) for at in latest.values()]
        with self._log.write() as session:
            before = session.state
            vectors = _matrix([entry.vector for entry in entries], before.dimension)[list(latest.values())]
            after = State(before.watermark + 1, before.last_row + len(latest), vectors.shape[1])
            rows = range(before.last_row + 1, after.last_row + 1)
            replaced = session.rows_of(latest)
            self._forget(session, replaced)
            session.insert(rows, records, terms, vectors)
            lexical.add(session, rows, terms)
            self._advance(session, after, replaced, rows, vectors)
        return after.watermark

    def delete(self, ids: Sequence[str], /) -> tuple[int, int]:
        """Remove documents; unknown ids are passed over.

        Returns:
            How many were removed, and the watermark.

        Raises:
            StoreError: nothing was removed; the subclass says why.
            ClosedError: the store has been closed.
        """
        with self._log.write() as session:
            before = session.state
            rows = session.rows_of(ids)
            if not rows:
                return 0, before.watermark
            after = State(before.watermark + 1, before.last_row, before.dimension)
            self._forget(session, rows)
            self._advance(session, after, rows, (), np.empty((0, before.dimension or 0), np.float32))
        return len(rows), after.watermark

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

        Both halves look at least 100 deep, or four times `top_k`. Of equal scores the document written first wins.

        Raises:
            InvalidVectorError: a vector is not finite, or its dimension is not the store's.
            StoreError: nothing can be read; the subclass says why.
            ClosedError: the store has been closed.
        """
        with self._pinned() as (session, index):
            near = _dense(index, requests, session.state.dimension)
            return [
                self._answer(session, request, found, len(index)) for request, found in zip(requests, near, strict=True)
            ]

    def count(self) -> int:
        """Return how many documents there are."""
        with self._pinned() as (_, index):
            return len(index)

    def ids(self) -> list[str]:
        """Return the ids of all documents, in no particular order."""
        with self._log.read() as session:
            return session.ids()

    def close(self) -> None:
        """Release files and memory; searches in progress end undisturbed. A second call does nothing."""
        self._log.close()
        self._indexes = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _pinned(self) -> Iterator[tuple[Session, DenseIndex]]:
        """Open one state: a transaction, and the index of the same watermark.

        A writer offers the next index before it commits and takes the last one back no earlier than its next change,
        so the index is missing only if two changes came between the two steps here. Then the state is out of date
        anyway.
        """
        while True:
            with self._log.read() as session:
                index = self._index_at(session.state.watermark)
                if index is not None:
                    yield session, index
                    return

    def _watermark(self) -> int:
        with self._log.read() as session:
            return session.state.watermark

    def _index_at(self, watermark: int) -> DenseIndex | None:
        return next((index for index in self._indexes if index.watermark == watermark), None)

    @staticmethod
    def _forget(session: Session, rows: Sequence[int]) -> None:
        session.remove(rows)
        lexical.remove(session, rows)

    def _advance(
        self, session: Session, after: State, removed: Sequence[int], rows: Sequence[int], vectors: Vector
    ) -> None:
        """Make the change's index known ahead of its commit: nobody uses it until the log says so."""
        (index,) = (index for index in self._indexes if index.watermark == session.state.watermark)
        self._indexes = (index, index.changed(after.watermark, remove=removed, rows=rows, vectors=vectors))
        session.advance(after)

    def _answer(
        self, session: Session, request: SearchRequest, near: dict[int, float], documents: int
    ) -> SearchResponse:
        worded = lexical.search(session, request.terms, _depth(request), documents)
        fused = fusion.convex(near, worded, self._config.dense_weight)
        best = fusion.ranked(fused.items())[: request.top_k]
        hits = (_hit(session.record(row), rank, score) for rank, (row, score) in enumerate(best, start=1))
        return SearchResponse(tuple(hits), session.state.watermark)


def _depth(request: SearchRequest) -> int:
    """Return how many candidates each half gives to fusion."""
    return max(_DEPTH, _DEPTH_PER_HIT * request.top_k)


def _dense(index: DenseIndex, requests: Sequence[SearchRequest], dimension: int | None) -> list[dict[int, float]]:
    """Return the dense candidates of each request; none for those without a vector."""
    asked = {at: request.vector for at, request in enumerate(requests) if request.vector is not None}
    near: list[dict[int, float]] = [{} for _ in requests]
    if asked:
        matrix = _matrix(list(asked.values()), dimension)
        found = index.search(matrix, [_depth(requests[at]) for at in asked])
        for at, rows in zip(asked, found, strict=True):
            near[at] = rows
    return near


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


def _read_index(session: Session) -> DenseIndex:
    """Build the dense index from the log."""
    rows: list[int] = []
    blobs: list[bytes] = []
    for row, blob in session.vectors():
        rows.append(row)
        blobs.append(blob)
    dim = session.state.dimension or 0
    flat = np.frombuffer(bytearray().join(blobs), np.float32)
    documents = next(session.execute("SELECT count(*) FROM documents"))[0]
    if len(flat) != len(rows) * dim or len(rows) != documents:
        raise StoreCorruptError(
            f"the store has {documents} documents and {len(rows)} vectors of {len(flat)} numbers in all, "
            f"dimension {dim}: restore it from a copy"
        )
    return DenseIndex.of(session.state.watermark, np.array(rows, np.int64), flat.reshape(len(rows), dim))


def _record(document: Document) -> Record:
    return Record(document.id, document.title, document.text, document.metadata)


def _document(session: Session, name: str) -> Document | None:
    for row in session.rows_of((name,)):
        kept = session.record(row)
        vector = np.frombuffer(session.vector(row), np.float32)
        return Document(kept.id, kept.text, title=kept.title, metadata=kept.metadata, embedding=vector)
    return None


def _hit(kept: Record, rank: int, score: float) -> Hit:
    return Hit(kept.id, rank, score, kept.text, kept.title, MappingProxyType(dict(kept.metadata)))
