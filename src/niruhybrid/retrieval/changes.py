"""What a write does within its transaction: from the entries to rows of the log, and to the next state of the indexes.

A change is prepared by the thread that asks for it, and applied by whichever thread commits, perhaps more than once.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import orjson

from niruhybrid.errors import InvalidVectorError
from niruhybrid.retrieval.passages import follow, planned
from niruhybrid.retrieval.session import Record, Session, State, joined, split
from niruhybrid.retrieval.snapshot import Additions, Snapshot
from niruhybrid.retrieval.standing import News
from niruhybrid.types import IndexEntry, Metadata, Vector

__all__ = ("Change", "Delete", "Upsert", "checked_matrix")


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


class Upsert:
    """Keeps passages, in the place of those they replace.

    Args:
        entries: as the store's `upsert` has them, at least one.

    Attributes:
        watermark: see `Change`.
        news: see `Change`.

    Raises:
        InvalidPassageError: the entries themselves leave a gap in a document.
        InvalidVectorError: vectors differ in length, or one is not finite.
    """

    def __init__(self, entries: Sequence[IndexEntry]) -> None:
        self.watermark = 0
        self.news: News | None = None
        self._runs = planned(entries)
        self._entries = [entry for run in self._runs.values() for entry in run]
        self._vectors = checked_matrix([entry.vector for entry in entries], None)
        if len(self._entries) < len(entries):
            self._vectors = checked_matrix([entry.vector for entry in self._entries], None)
        self._joined = [joined(entry.terms) for entry in self._entries]
        self._terms = [split(terms) for terms in self._joined]  # as they will come back
        self._metadata = [orjson.dumps(dict(entry.document.metadata)) for entry in self._entries]
        self._as_kept: list[Metadata] = [orjson.loads(metadata) for metadata in self._metadata]

    def apply(self, session: Session, state: Snapshot) -> Snapshot:
        """Make the change; see `Change`.

        Raises:
            InvalidPassageError: a passage does not follow what the log has of its document.
            InvalidVectorError: the vectors' length is not the store's.
        """
        before = session.state
        _refuse_dimension(self._vectors, before.dimension)
        rows = range(before.last_row + 1, before.last_row + 1 + len(self._entries))
        owners, removed, fresh = self._places(session, rows)
        session.remove(removed)
        session.insert(self._records(rows), owners, self._joined, self._vectors)
        after = State(before.watermark + 1, rows[-1], before.documents + fresh, self._vectors.shape[1])
        added = Additions(rows, self._vectors, self._terms, self._as_kept, owners)
        changed = state.changed(after.watermark, removed, added)
        session.advance(after)
        self.watermark, self.news = after.watermark, News(self._entries, self._vectors, self._terms, changed)
        return changed

    def _places(self, session: Session, rows: range) -> tuple[list[int], dict[int, list[str]], int]:
        """Return each row's owner, the rows that are replaced with their terms, and how many documents are new."""
        owners: list[int] = []
        removed: dict[int, list[str]] = {}
        fresh = 0
        for name, run in self._runs.items():
            owner, first = rows[len(owners)], run[0]
            if first.part:
                before, owner = session.part(name, first.part - 1) or (None, owner)
                follow(name, first, before)
            replaced = session.parts(name, first.part)
            fresh += not first.part and not replaced
            removed.update(replaced)
            owners += [owner] * len(run)
        return owners, removed, fresh

    def _records(self, rows: range) -> list[Record]:
        return [
            Record(row, one.document.id, one.part, one.start, one.document.title, one.document.text, metadata)
            for row, one, metadata in zip(rows, self._entries, self._metadata, strict=True)
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


def _refuse_dimension(vectors: Vector, dimension: int | None) -> None:
    if dimension is not None and vectors.shape[1] != dimension:
        raise _other_dimension(vectors.shape[1:], dimension)


def _other_dimension(shape: tuple[int, ...], dimension: int) -> InvalidVectorError:
    return InvalidVectorError(
        f"embedding has shape {shape}, the store has dimension {dimension}: "
        "use the model that the store was filled with"
    )
