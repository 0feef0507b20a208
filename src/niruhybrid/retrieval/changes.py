"""What a write does within its transaction: from the entries to rows of the log, and to the next state of the indexes.

A change is prepared by the thread that asks for it, and applied by whichever thread commits, perhaps more than once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import orjson

from niruhybrid.errors import InvalidVectorError
from niruhybrid.retrieval.passages import follow, planned
from niruhybrid.retrieval.session import Record, Session, State, joined, split
from niruhybrid.retrieval.snapshot import Additions, Snapshot
from niruhybrid.retrieval.standing import News
from niruhybrid.types import IndexEntry, Metadata, Vector

__all__ = ("Change", "Delete", "Prepared", "Upsert", "checked_matrix", "refuse_dimension")


class Change(Protocol):
    """One write.

    Attributes:
        watermark: the state that it left, once applied.
        news: what it added, once applied; None for nothing.
    """

    watermark: int
    news: News | None

    def apply(self, session: Session, state: Snapshot) -> Snapshot:
        """Make the change in the log; return the state of the indexes after it, or `state` if nothing was changed."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What remains of a batch of entries, ready to be kept.

    Attributes:
        runs: the entries of each document, passages of consecutive parts.
        entries: all of them, in this order.
        vectors: `(n, dim)` float32, of each.
        joined: analysed terms of each, as they are kept.
        terms: the same as they will come back.
        metadata: of each, encoded.
        as_kept: the same as it will come back.
    """

    runs: Mapping[str, Sequence[IndexEntry]]
    entries: Sequence[IndexEntry]
    vectors: Vector
    joined: Sequence[str]
    terms: Sequence[Sequence[str]]
    metadata: Sequence[bytes]
    as_kept: Sequence[Metadata]

    @classmethod
    def of(cls, entries: Sequence[IndexEntry]) -> Self:
        """Prepare a batch of at least one entry.

        Raises:
            InvalidPassageError: the entries themselves leave a gap in a document.
            InvalidVectorError: vectors differ in length, or one is not finite.
        """
        runs = planned(entries)
        left = [entry for run in runs.values() for entry in run]
        vectors = checked_matrix([entry.vector for entry in entries], None)
        if len(left) < len(entries):
            vectors = checked_matrix([entry.vector for entry in left], None)
        words = [joined(entry.terms) for entry in left]
        metadata = [orjson.dumps(dict(entry.document.metadata)) for entry in left]
        as_kept = [orjson.loads(one) for one in metadata]
        return cls(runs, left, vectors, words, [split(one) for one in words], metadata, as_kept)


class Upsert:
    """Keeps passages, in the place of those they replace.

    Args:
        entries: as the store's `upsert` has them, at least one.
        awaited: says, when the change is applied, whether anybody waits for its news.

    Attributes:
        watermark: see `Change`.
        news: see `Change`; None too if nobody waits for it.

    Raises:
        InvalidPassageError: the entries themselves leave a gap in a document.
        InvalidVectorError: vectors differ in length, or one is not finite.
    """

    def __init__(self, entries: Sequence[IndexEntry], awaited: Callable[[], bool]) -> None:
        self.watermark = 0
        self.news: News | None = None
        self._awaited = awaited
        self._made = Prepared.of(entries)

    def apply(self, session: Session, state: Snapshot) -> Snapshot:
        """Make the change; see `Change`.

        Raises:
            InvalidPassageError: a passage does not follow what the log has of its document.
            InvalidVectorError: the vectors' length is not the store's.
        """
        before = session.state
        made = self._made
        refuse_dimension(made.vectors, before.dimension)
        rows = range(before.last_row + 1, before.last_row + 1 + len(made.entries))
        owners, removed, fresh = self._places(session, rows)
        earlier = self._earlier(session) if self._awaited() else None
        session.remove(removed)
        session.insert(self._records(rows), owners, made.joined, made.vectors)
        after = State(before.watermark + 1, rows[-1], before.documents + fresh, made.vectors.shape[1])
        added = Additions(rows, made.vectors, made.terms, made.as_kept, owners)
        changed = state.changed(after.watermark, removed, added)
        session.advance(after)
        self.watermark, self.news = after.watermark, None
        if earlier is not None:
            self.news = News(made.entries, made.vectors, made.terms, after.watermark, changed.lexical, earlier)
        return changed

    def _places(self, session: Session, rows: range) -> tuple[list[int], dict[int, list[str]], int]:
        """Return each row's owner, the rows that are replaced with their terms, and how many documents are new."""
        owners: list[int] = []
        removed: dict[int, list[str]] = {}
        fresh = 0
        for name, run in self._made.runs.items():
            owner, first = rows[len(owners)], run[0]
            if first.part:
                before, owner = session.part(name, first.part - 1) or (None, owner)
                follow(name, first, before)
            replaced = session.parts(name, first.part)
            fresh += not first.part and not replaced
            removed.update(replaced)
            owners += [owner] * len(run)
        return owners, removed, fresh

    def _earlier(self, session: Session) -> dict[str, list[list[str]]]:
        """Return, of documents that are continued, the terms of the passages that stay before the new ones."""
        continued = [(name, run[0].part) for name, run in self._made.runs.items() if run[0].part]
        return {name: [terms for _, terms in session.parts(name)[:part]] for name, part in continued}

    def _records(self, rows: range) -> list[Record]:
        return [
            Record(row, one.document.id, one.part, one.start, one.document.title, one.document.text, metadata)
            for row, one, metadata in zip(rows, self._made.entries, self._made.metadata, strict=True)
        ]


class Delete:
    """Removes documents.

    Args:
        ids: of the documents; unknown ones are passed over.

    Attributes:
        watermark: see `Change`.
        news: always None.
        removed: how many documents there were, once applied.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.watermark = 0
        self.news: News | None = None
        self.removed = 0
        self._ids = dict.fromkeys(ids)

    def apply(self, session: Session, state: Snapshot) -> Snapshot:
        """Make the change; see `Change`."""
        before = session.state
        found = [parts for parts in (session.parts(name) for name in self._ids) if parts]
        self.removed, self.watermark = len(found), before.watermark + bool(found)
        if not found:
            return state
        removed = {row: terms for parts in found for row, terms in parts}
        session.remove(removed)
        changed = state.changed(self.watermark, removed, Additions.nothing())
        session.advance(State(self.watermark, before.last_row, before.documents - len(found), before.dimension))
        return changed


def checked_matrix(vectors: Sequence[Vector], dimension: int | None) -> Vector:
    """Stack vectors, `(n, dim)` float32.

    Args:
        vectors: at least one.
        dimension: the store's; None takes the first vector's.

    Raises:
        InvalidVectorError: one is not finite, or not of this dimension.
    """
    dim = dimension if dimension is not None else vectors[0].size
    for vector in vectors:
        if vector.shape != (dim,) or dim == 0:
            raise _other_dimension(vector.shape, dim)
    matrix = np.ascontiguousarray(vectors, np.float32)
    if not np.isfinite(matrix).all():
        raise InvalidVectorError("embedding has a value that is not finite: check the encoder's output")
    return matrix


def refuse_dimension(vectors: Vector, dimension: int | None) -> None:
    """Refuse vectors, `(n, dim)`, of another dimension than the store's; None is a store without one.

    Raises:
        InvalidVectorError: they are of another.
    """
    if dimension is not None and vectors.shape[1] != dimension:
        raise _other_dimension(vectors.shape[1:], dimension)


def _other_dimension(shape: tuple[int, ...], dimension: int) -> InvalidVectorError:
    return InvalidVectorError(
        f"embedding has shape {shape}, the store has dimension {dimension}: "
        "use the model that the store was filled with"
    )
