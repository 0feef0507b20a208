"""The embedded store: a log and the indexes derived from it, one transaction a micro-batch, one watermark."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
import orjson

from niruhybrid.config import StoreConfig
from niruhybrid.errors import StoreError
from niruhybrid.retrieval.backup import Backup, copied
from niruhybrid.retrieval.changes import Delete, Upsert, checked_matrix
from niruhybrid.retrieval.commits import Commits
from niruhybrid.retrieval.keeper import Keeper
from niruhybrid.retrieval.log import Begin, Log
from niruhybrid.retrieval.passages import whole
from niruhybrid.retrieval.recovery import Checkpoints, Recovery, opened
from niruhybrid.retrieval.refusals import notes_of, refuse_too_new, refuse_vectors
from niruhybrid.retrieval.search import best_slots
from niruhybrid.retrieval.session import Record, Session, State
from niruhybrid.retrieval.snapshot import Snapshot
from niruhybrid.retrieval.standing import StandingQueries
from niruhybrid.types import Document, Hit, IndexEntry, Match, SearchRequest, SearchResponse, StandingQuery
from niruhybrid.types.items import kept_document

__all__ = ("EmbeddedStore",)

_log = logging.getLogger(__name__)

_TRIES = 100  # to find the log and the indexes at the same watermark; the first one nearly always does


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
        self._standing = StandingQueries(self._config.dense_weight)
        self._log = Log(None if chosen is None else Path(chosen), self._config.durability)
        file = self._log.file
        try:
            with self._log.read() as session:
                snapshot, self._recovery = opened(file, session)
        except BaseException:
            self._log.close()
            raise
        last = snapshot.rows.items[-1] if self._recovery.checkpoint is not None and len(snapshot.rows) else 0
        checkpoints = Checkpoints(file, self._log, int(last) - self._recovery.added)
        self._keeper = Keeper(snapshot, self._watermark, checkpoints)
        self._commits = Commits(self._log, self._keeper, self._standing)
        with self._keeper.changing:
            self._keeper.wake()
        _log.info("store_opened passages=%d watermark=%d %s", len(snapshot), snapshot.watermark, self._recovery)

    @property
    def recovery(self) -> Recovery:
        """How the indexes came to be when the store was opened."""
        return self._recovery

    def upsert(self, entries: Sequence[IndexEntry], /) -> int:
        """Keep all entries or none; each takes the place of what `IndexEntry` says (the last of a batch wins).

        Writes that come at once share a commit, and with `durability="power"` a sync of the file.

        Returns:
            The watermark: a search that reports this or a later one saw the entries. The next search does.

        Raises:
            InvalidVectorError: a vector is not finite, or its dimension is not the store's; nothing was written.
            InvalidPassageError: a passage does not continue its document; nothing was written.
            StoreError: nothing was written; the subclass says why.
            ClosedError: the store has been closed.
        """
        if not entries:
            return self._watermark()
        self._log.refuse_forked()
        change = Upsert(entries, lambda: self._standing.awaited)
        self._commits.run(change)
        return change.watermark

    def delete(self, ids: Sequence[str], /) -> tuple[int, int]:
        """Remove documents; unknown ids are passed over.

        Returns:
            How many were removed, and the watermark.

        Raises:
            StoreError: nothing was removed; the subclass says why.
            ClosedError: the store has been closed.
        """
        self._log.refuse_forked()
        change = Delete(ids)
        self._commits.run(change)
        return change.removed, change.watermark

    def get(self, ids: Sequence[str], /) -> list[Document | None]:
        """Return the documents of these ids, in their order; None for each unknown one.

        The text is put together from the passages; title and metadata are the first one's. A document of one passage
        comes with its vector. One of several has none: no single vector stands for all of it, and the document can be
        given back to a pipeline, which reads it as it did the first time.

        Raises:
            StoreError: nothing can be read; the subclass says why.
            ClosedError: the store has been closed.
        """
        with self._log.read() as session:
            return [_document(session, name) for name in ids]

    def search(self, requests: Sequence[SearchRequest], /) -> list[SearchResponse]:
        """Answer a batch of queries, in their order, all from one state of the store.

        Up to 16,384 passages all are scored; of more, what either half finds at least 100 deep, or four times `top_k`.
        Of equal scores the document written first wins. Of the passages of one document, those with the same string in
        the metadata field `document`, the best one wins.

        Raises:
            InvalidVectorError: a vector is not finite, or its dimension is not the store's.
            UnknownWatermarkError: `min_watermark` is of a write that this store has not seen: a watermark is returned
                after the commit only, so it is another store's, or the file was put back to an earlier state.
            StoreError: nothing can be read; the subclass says why.
            ClosedError: the store has been closed.
        """
        with self._log.reader() as begin:
            with self._pinned(begin) as (session, state):
                dimension = session.state.dimension
            # No transaction lasts as long as the ranking: the write-ahead log could not be emptied meanwhile.
            best = self._best(requests, state, dimension)
            rows = {row for one in best for row, _ in one}
            with begin() as session:
                kept = session.remaining(rows)
            if len(kept) == len(rows):
                return _responses(requests, state, best, kept)
            with self._pinned(begin) as (session, state):  # a hit was replaced: search once more, and hold the state
                best = self._best(requests, state, session.state.dimension)
                kept = session.passages(row for one in best for row, _ in one)
                return _responses(requests, state, best, kept)

    def subscribe(self, query: StandingQuery, deliver: Callable[[Match], None], /) -> Callable[[], None]:
        """Have `deliver` told of every document that matches `query` from now on, once it is searchable.

        Args:
            query: what is waited for; not kept when the store is closed.
            deliver: called in the thread that wrote, in the order of the writes; must return at once and not raise: the
                subscription ends when it raises, or takes more than a second.

        Returns:
            What ends the subscription; to be called from any thread, a second time in vain.

        Raises:
            InvalidVectorError: the vector is not finite, or its dimension is not the store's.
            ClosedError: the store has been closed.
        """
        dimension = self._read_state().dimension
        if query.vector is not None:
            checked_matrix([query.vector], dimension)
        return self._standing.add(query, deliver, dimension)

    def count(self) -> int:
        """Return how many documents there are."""
        return self._read_state().documents

    def ids(self) -> list[str]:
        """Return the ids of all documents, in no particular order."""
        with self._log.read() as session:
            return session.ids()

    def list_ids(self, limit: int, after: str = "") -> list[str]:
        """Return the `limit` ids that follow `after`, ascending by code point: page by page, all there are."""
        with self._log.read() as session:
            return session.page_of_ids(after, limit)

    def entries(self, limit: int, after: tuple[str, int] = ("", 0)) -> list[IndexEntry]:
        """Return the `limit` entries that follow a document's part, by id and part: page by page, all there are.

        Raises:
            StoreError: nothing can be read; the subclass says why.
            ClosedError: the store has been closed.
        """
        with self._log.read() as session:
            return [_entry(*kept) for kept in session.page_of_entries(*after, limit)]

    def backup(self, target: str | Path, /) -> Backup:
        """Copy the store to a new file, as it is now; writes and searches go on, in memory they wait.

        The copy is a store of its own, whose indexes are built when it is opened. Until it is whole it has another
        name. While it is made the write-ahead log grows with what is written.

        Returns:
            The watermark of the last write in the copy, its documents, and its size.

        Raises:
            StoreFullError: there is no room for the copy.
            StoreError: `target` is there already, or can't be written; the subclass says more. No part of it is left.
            ClosedError: the store has been closed.
        """
        return copied(self._log, target)

    def close(self) -> None:
        """Release files and memory; searches in progress end undisturbed. A second call does nothing."""
        if self._log.forked:
            return
        try:
            self._keeper.stop()
        finally:
            self._log.close()
            self._keeper.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _pinned(self, begin: Begin) -> Iterator[tuple[Session, Snapshot]]:
        """Open one state: a transaction, and the indexes of the same watermark.

        A writer offers the next state before it commits and takes the last one back no earlier than its next change,
        so the state is missing only if two changes came between the two steps here. Then it is out of date anyway.

        Raises:
            StoreError: another program has written to the file.
        """
        for _ in range(_TRIES):
            with begin() as session:
                state = self._keeper.at(session.state.watermark)
                if state is not None:
                    yield session, state
                    return
        raise StoreError(f"the store changed while each of {_TRIES} attempts to read it began: try again")

    def _best(
        self, requests: Sequence[SearchRequest], state: Snapshot, dimension: int | None
    ) -> list[list[tuple[int, float]]]:
        """Return the best rows of each request, with their scores."""
        refuse_too_new(requests, state.watermark)
        refuse_vectors(requests, dimension)
        rows = state.rows.items
        ranked = best_slots(state, requests, self._config.dense_weight)
        return [[(int(rows[slot]), score) for slot, score in one] for one in ranked]

    def _watermark(self) -> int:
        return self._read_state().watermark

    def _read_state(self) -> State:
        with self._log.read() as session:
            return session.state


def _document(session: Session, name: str) -> Document | None:
    parts = session.records(name)
    if not parts:
        return None
    first = parts[0]
    vector = np.frombuffer(session.vector(first.row), np.float32) if len(parts) == 1 else None
    return kept_document(name, whole(parts), first.title, orjson.loads(first.metadata), vector)


def _entry(kept: Record, terms: list[str], data: bytes) -> IndexEntry:
    vector = np.frombuffer(data, np.float32)
    metadata, blank = orjson.loads(kept.metadata), not kept.text or kept.text.isspace()
    document = kept_document(kept.id, kept.text, kept.title, metadata, vector if blank else None)  # which needs one
    return IndexEntry(document, vector, terms, kept.part, kept.start)


def _responses(
    requests: Sequence[SearchRequest],
    state: Snapshot,
    best: Sequence[Sequence[tuple[int, float]]],
    kept: Mapping[int, Record],
) -> list[SearchResponse]:
    return [
        SearchResponse(_hits(kept, one), state.watermark, notes_of(request))
        for request, one in zip(requests, best, strict=True)
    ]


def _hits(kept: Mapping[int, Record], best: Sequence[tuple[int, float]]) -> tuple[Hit, ...]:
    return tuple(_hit(kept[row], rank, score) for rank, (row, score) in enumerate(best, start=1))


def _hit(kept: Record, rank: int, score: float) -> Hit:
    metadata = MappingProxyType(orjson.loads(kept.metadata))
    return Hit(kept.id, rank, score, kept.text, kept.title, metadata, (kept.start, kept.end))
