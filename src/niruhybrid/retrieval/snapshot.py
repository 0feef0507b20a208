"""One state of the derived indexes: all of them, as of one watermark. Pure.

A snapshot is a value: a change makes a new one and leaves the old as it was, so whoever searches keeps one state
without a lock. Documents have slots, in the order of writing; the row numbers of the log ascend with them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import ne
from typing import Self

import numpy as np
from numpy.typing import NDArray

from niruhybrid.filters import Filter
from niruhybrid.retrieval.columns import Columns
from niruhybrid.retrieval.dense import DenseIndex
from niruhybrid.retrieval.growing import Growing
from niruhybrid.retrieval.lexical import LexicalIndex
from niruhybrid.retrieval.repeats import Owners
from niruhybrid.types import Metadata, Vector

__all__ = ("Additions", "Snapshot")

Mask = NDArray[np.bool_]

_DEAD_SHARE, _FEWEST_DEAD = 4, 1024  # a quarter of dead slots is worth closing up
_UNMERGED, _UNMERGED_SHARE = 100_000, 64  # entries of the journal: so many, or a share of all


@dataclass(frozen=True, slots=True, eq=False)
class Additions:
    """New documents, in ascending rows.

    Attributes:
        rows: their numbers, above all there were.
        vectors: `(n, dim)` float32.
        terms: analysed terms of each.
        metadata: of each.
        owners: the row of each one's document: that of its first passage, its own for the first; by default all are.
    """

    rows: Sequence[int]
    vectors: Vector
    terms: Sequence[Sequence[str]]
    metadata: Sequence[Metadata]
    owners: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not self.owners:
            object.__setattr__(self, "owners", self.rows)

    @classmethod
    def nothing(cls) -> Self:
        """Return no documents."""
        return cls((), np.empty((0, 0), np.float32), (), ())


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The derived indexes as of one watermark.

    Attributes:
        watermark: the state of the log that they show.
        rows: `(slots,)` row of each slot, ascending.
        owners: `(slots,)` row of the first passage of each slot's document.
        passages: whether there may be documents of several; False if each row is its own owner.
        live: `(slots,)` whether the document is still there.
        dense: vectors.
        lexical: terms.
        columns: metadata.
    """

    watermark: int
    rows: Growing[np.int64]
    owners: Growing[np.int64]
    passages: bool
    live: Growing[np.bool_]
    dense: DenseIndex
    lexical: LexicalIndex
    columns: Columns

    @classmethod
    def empty(cls, watermark: int) -> Self:
        """Return a state without documents."""
        nothing = Growing[np.float32].empty(np.float32, 0)
        return cls(
            watermark,
            rows=Growing.empty(np.int64),
            owners=Growing.empty(np.int64),
            passages=False,
            live=Growing.empty(np.bool_),
            dense=DenseIndex.of(nothing),
            lexical=LexicalIndex.of({}),
            columns=Columns({}),
        )

    def __len__(self) -> int:
        return self.lexical.documents

    @property
    def documents(self) -> int:
        """How many documents there are, all passages of one being one."""
        return self.lexical.owners

    def changed(self, watermark: int, removed: Mapping[int, Iterable[str]], added: Additions) -> Self:
        """Return the state after a change.

        Args:
            watermark: the state of the log after it.
            removed: rows to forget, each with its terms; each must be there.
            added: the new documents.
        """
        slots = np.searchsorted(self.rows.items, np.fromiter(removed, np.int64)).tolist()
        live, passages = self.live, self.passages or any(map(ne, added.owners, added.rows))
        if slots:
            still = self.live.items.copy()
            still[slots] = False
            live = Growing.of(still)
        return type(self)(
            watermark,
            self.rows.extended(added.rows),
            self.owners.extended(added.owners),
            passages,
            live.extended(np.ones(len(added.rows), np.bool_)),
            self.dense.changed(added.vectors),
            self.lexical.changed(
                dict(zip(slots, removed.values(), strict=True)),
                added.terms,
                self._owners(slots, removed, live.items, added) if passages else None,
            ),
            self.columns.changed(len(self.rows), added.metadata),
        )

    def _owners(self, slots: Sequence[int], removed: Iterable[int], live: Mask, added: Additions) -> Owners:
        """Return whose passages a change is about.

        Args:
            slots: of the passages to remove.
            removed: their rows.
            live: `(slots,)`, what is there without them.
            added: the new passages.
        """
        owners = self.owners.items
        lost, first = owners[slots], added.rows[0] if len(added.rows) else 0
        staying = set(lost.tolist()).difference(removed)  # a document's first passage is the last to go
        staying.update(owner for owner in added.owners if owner < first)
        if not staying:
            return Owners(lost, added.owners, np.empty(0, np.intp), np.empty(0, np.int64))
        start = int(self.rows.items.searchsorted(min(staying)))
        kept = np.flatnonzero(np.isin(owners[start:], list(staying)) & live[start:]) + start
        return Owners(lost, added.owners, kept, owners[kept])

    def passing(self, wanted: Filter | None) -> Mask:
        """Return which slots a search may find, `(slots,)`."""
        if wanted is None:
            return self.live.items
        passing: Mask = self.columns.passing(wanted, len(self.rows)) & self.live.items
        return passing

    def upkeep(self) -> Callable[[Self, Callable[[], bool]], Self] | None:
        """Return what would make searches faster: a function of a state and of whether to stop; None if nothing."""
        slots, dead = len(self.rows), len(self.rows) - len(self)
        if dead > _FEWEST_DEAD and dead * _DEAD_SHARE > slots:
            return type(self).compacted
        if self.dense.outgrown or self.lexical.unmerged > max(
            _UNMERGED, self.lexical.merged_entries // _UNMERGED_SHARE
        ):
            return type(self).merged
        return None

    def merged(self, stopped: Callable[[], bool]) -> Self:
        """Return the same state with what has outgrown its place merged into the large structures."""
        live = self.live.items
        dense = self.dense.sieved(live, stopped) if self.dense.outgrown else self.dense
        return replace(self, dense=dense, lexical=self.lexical.merged(live))

    def without_journal(self) -> Self:
        """Return the same state, fit to be written to a file."""
        return replace(self, lexical=self.lexical.merged(self.live.items)) if self.lexical.unmerged else self

    def compacted(self, stopped: Callable[[], bool]) -> Self:
        """Return the same state with the slots of documents that are gone closed up."""
        live = self.live.items
        return replace(
            self,
            rows=Growing.of(self.rows.items[live]),
            owners=Growing.of(self.owners.items[live]),
            live=Growing.of(np.ones(len(self), np.bool_)),
            dense=self.dense.compacted(live, stopped),
            lexical=self.lexical.compacted(live),
            columns=self.columns.compacted(live),
        )

    def changes_since(self, before: Self) -> int:
        """Return how many entries the changes that led from `before` to this state have added to the journal."""
        return self.lexical.unmerged - before.lexical.unmerged

    def grown_to(self, after: Self) -> Self:
        """Return `after` as it would be if none of this state's documents had been removed since."""
        live = np.ones(len(after.rows), np.bool_)
        live[: len(self.rows)] = self.live.items
        return replace(after, live=Growing.of(live))

    def followed_by(self, before: Self, after: Self) -> Self:
        """Return the state that this one becomes by the changes that led from `before` to `after`.

        Args:
            before: what this one was made from, by `merged` or `compacted`.
            after: what has become of it meanwhile.
        """
        start = len(before.rows)
        closed_up = len(self.rows) < start
        kept = np.ones(len(after.rows), np.bool_)
        kept[:start] = before.live.items
        return replace(
            self,
            watermark=after.watermark,
            rows=self.rows.extended(after.rows.items[start:]) if closed_up else after.rows,
            owners=self.owners.extended(after.owners.items[start:]) if closed_up else after.owners,
            passages=after.passages,
            live=Growing.of(after.live.items[kept]) if closed_up else after.live,
            dense=self.dense.followed_by(before.dense, after.dense),
            lexical=self.lexical.followed_by(before.lexical, after.lexical),
            columns=self.columns.followed_by(after.columns, start, start - len(self.rows))
            if closed_up
            else after.columns,
        )
