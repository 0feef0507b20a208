"""Postings: for each term the documents that have it, in arrays that never change once made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ("K1", "MOST_COUNTED", "B", "Postings", "average_length", "merged", "saturation", "spread")

K1 = 1.2
B = 0.75

Ints = NDArray[Any]
Floats = NDArray[np.float32]
Run = tuple[Ints, Ints, Ints]
"""Entries, one for each term of each document: term, slot and occurrences (uint16)."""

MOST_COUNTED = np.iinfo(np.uint16).max
ROUNDED = 255
_RUN = 262_144  # entries looked at in one go
_COMMON = 16  # a term that one document in so many has takes less room in a table, and is looked up faster


def average_length(terms: float, documents: int) -> float:
    """Return the terms of a document in the mean, 1 at the least: what BM25 sets a document's length against."""
    return max(1.0, terms / max(1, documents))


def spread(lengths: Floats, average: float) -> Floats:
    """Return what BM25 sets a term's occurrences against: more for longer documents, elementwise."""
    scaled: Floats = lengths * np.float32(K1 * B / average)
    scaled += np.float32(K1 * (1.0 - B))
    return scaled


def saturation(counts: Ints, against: Floats) -> Floats:
    """Return BM25's term frequency part, 0 to 1, elementwise: `counts` of a term against `spread`."""
    counted = counts.astype(np.float32)
    counted /= counted + against
    return counted


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """How often which document has which term, for the documents of a range.

    Rare terms have a list of documents each, one behind the other. Common ones have a row of a table each, with a
    number for every document.

    Attributes:
        span: the slots of the documents.
        terms: `(t,)` int32, rare terms, ascending.
        starts: `(t + 1,)` int64; the list of the n-th goes from `starts[n]` to `starts[n + 1]`.
        slots: `(p,)` int32, ascending within a list.
        counts: `(p,)` uint16; 65,535 stands for any higher number, too.
        common: row in `table` of each common term.
        table: `(c, documents)` uint16.
        rough: `(c, documents)` uint8, saturation at `average` as a share of 255, rounded, but 1 at the least where the
            term is there.
        average: document length that `rough` was computed with.
        tops: `(c,)` uint8, the highest number in each row of `rough`.
    """

    span: slice
    terms: Ints
    starts: Ints
    slots: Ints
    counts: Ints
    common: Mapping[int, int]
    table: Ints
    rough: Ints
    average: float
    tops: Ints

    def __len__(self) -> int:
        return len(self.slots) + self.table.size

    def lists(self, wanted: Ints) -> list[tuple[int, int, int]]:
        """Return which of the terms, ascending, have a list here: the position of each, and from where to where."""
        if not len(self.terms):
            return []
        at = np.minimum(self.terms.searchsorted(wanted), len(self.terms) - 1)
        places = np.flatnonzero(self.terms[at] == wanted)
        known = at[places]
        return list(zip(places.tolist(), self.starts[known].tolist(), self.starts[known + 1].tolist(), strict=True))

    def renumbered(self, numbers: Ints) -> Self:
        """Return the same postings with other numbers for the terms: by the old number, ascending as the old ones."""
        return replace(
            self,
            terms=numbers[self.terms].astype(np.int32),
            common={int(numbers[term]): row for term, row in self.common.items()},
        )

    def terms_of(self, slots: Ints) -> list[tuple[int, int]]:
        """Return each term of each of the documents, with the document."""
        at = np.flatnonzero(np.isin(self.slots, slots))
        rare = self.terms[np.searchsorted(self.starts, at, side="right") - 1]
        inside = slots[(slots >= self.span.start) & (slots < self.span.stop)]
        rows, places = np.nonzero(self.table[:, inside - self.span.start])
        names = np.fromiter(self.common, np.int32, len(self.common))
        return [
            *zip(rare.tolist(), self.slots[at].tolist(), strict=True),
            *zip(names[rows].tolist(), inside[places].tolist(), strict=True),
        ]

    def runs(self) -> Iterator[Run]:
        """Yield all entries, whole lists at a time: those of one term together, their slots ascending."""
        start = 0
        while start < len(self.terms):
            end = int(np.searchsorted(self.starts, self.starts[start] + _RUN, side="right")) - 1
            end = max(start + 1, min(end, len(self.terms)))
            inside = slice(int(self.starts[start]), int(self.starts[end]))
            terms = np.repeat(self.terms[start:end], np.diff(self.starts[start : end + 1]))
            yield terms, self.slots[inside], self.counts[inside]
            start = end
        for term, row in self.common.items():
            places = np.flatnonzero(self.table[row])
            yield np.full(len(places), term, np.int32), places + self.span.start, self.table[row, places]


def merged(parts: Sequence[Postings], entries: Run, places: Ints, lengths: Floats, average: float) -> Postings | None:
    """Make one of several, of neighbouring documents; None if no entry is left.

    In two passes over runs of entries, one to count and one to write: never more than what comes out is in memory
    beside what goes in, and other threads get their turn between runs.

    Args:
        parts: the postings, those of lower slots first.
        entries: term, slot and occurrences of more documents, with slots above; slots ascend for the same term.
        places: new slot of each old one, ascending; below 0 for documents that are gone.
        lengths: terms of each document, by new slot.
        average: document length to compute `rough` with.
    """
    order = np.argsort(entries[0], kind="stable")
    journal = entries[0][order], entries[1][order], entries[2][order]
    known = max((int(part.terms[-1]) for part in parts if len(part.terms)), default=-1)
    known = max(known, *(term for part in parts for term in part.common), *journal[0][-1:].tolist(), -1)
    have, span = _counted(parts, journal, places, known + 1)
    if span.start >= span.stop:
        return None
    many = have * _COMMON >= span.stop - span.start
    names = np.flatnonzero(many)
    table = np.zeros((len(names), span.stop - span.start), np.uint16)
    rare = np.flatnonzero((have > 0) & ~many)
    starts = np.append(0, np.cumsum(have[rare]))
    lists = _Lists.empty(int(starts[-1]), rare, starts, len(have))
    rows = np.full(len(have), -1)
    rows[names] = np.arange(len(names))
    for terms, slots, counts in _live(parts, journal, places):
        row = rows[terms]
        common = row >= 0
        table[row[common], slots[common] - span.start] = counts[common]
        lists.write(terms[~common], slots[~common], counts[~common])
    rough = _rough(table, spread(lengths[span], average))
    common_rows = {term: row for row, term in enumerate(names.tolist())}
    tops = rough.max(axis=1, initial=0)
    return Postings(
        span, rare.astype(np.int32), starts, lists.slots, lists.counts, common_rows, table, rough, average, tops
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Lists:
    """Lists that are being written, one behind the other."""

    slots: Ints
    counts: Ints
    ends: Ints  # of what has been written of each term's list, by term

    @classmethod
    def empty(cls, size: int, terms: Ints, starts: Ints, vocabulary: int) -> Self:
        ends = np.zeros(vocabulary, np.int64)
        ends[terms] = starts[:-1]
        return cls(np.empty(size, np.int32), np.empty(size, np.uint16), ends)

    def write(self, terms: Ints, slots: Ints, counts: Ints) -> None:
        """Put entries, ascending by term, behind those of the same term."""
        firsts = np.flatnonzero(np.diff(terms, prepend=-1))
        sizes = np.diff(firsts, append=len(terms))
        at = self.ends[terms] + np.arange(len(terms)) - np.repeat(firsts, sizes)
        self.slots[at], self.counts[at] = slots, counts
        self.ends[terms[firsts]] += sizes


def _counted(parts: Sequence[Postings], journal: Run, places: Ints, vocabulary: int) -> tuple[Ints, slice]:
    """Return how many documents have each term, and which new slots there are."""
    have, first, last = np.zeros(vocabulary, np.int64), len(places), -1
    for terms, slots, _ in _live(parts, journal, places):
        have += np.bincount(terms, minlength=len(have))
        first, last = min(first, int(slots.min())), max(last, int(slots.max()))
    return have, slice(first, last + 1)


def _live(parts: Sequence[Postings], journal: Run, places: Ints) -> Iterator[Run]:
    """Yield the entries of documents that are there, with their new slots; no run is empty."""
    for terms, slots, counts in chain(*(part.runs() for part in parts), (journal,)):
        moved = places[slots]
        kept = moved >= 0
        if kept.all() and len(kept):
            yield terms, moved, counts
        elif kept.any():
            yield terms[kept], moved[kept], counts[kept]


def _rough(table: Ints, against: Floats) -> Ints:
    rough = np.zeros(table.shape, np.uint8)
    for row, counted in enumerate(table):
        rough[row] = np.maximum(np.rint(saturation(counted, against) * ROUNDED), counted > 0)
    return rough
