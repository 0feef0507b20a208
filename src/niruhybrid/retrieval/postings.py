"""Postings: for each term the documents that have it, in arrays that never change once made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ("K1", "MOST_COUNTED", "B", "Postings", "merged", "saturation", "spread")

K1 = 1.2
B = 0.75

Ints = NDArray[Any]
Floats = NDArray[np.float32]

MOST_COUNTED = np.iinfo(np.uint16).max
ROUNDED = 255
_COMMON = 16  # a term that one document in so many has takes less room in a table, and is looked up faster


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

    @classmethod
    def of(cls, span: slice, entries: tuple[Ints, Ints, Ints], lengths: Floats, average: float) -> Self:
        """Sort entries, one for each term of each document.

        Args:
            span: the slots of the documents.
            entries: term, slot and occurrences (uint16) of each; slots ascend for the same term.
            lengths: terms of each document, by slot.
            average: document length to compute `rough` with.
        """
        order = np.argsort(entries[0], kind="stable")
        terms, slots, counts = (column[order] for column in entries)
        firsts = np.flatnonzero(np.diff(terms, prepend=-1))
        sizes = np.diff(firsts, append=len(terms))
        many = sizes * _COMMON >= span.stop - span.start
        table = np.zeros((int(many.sum()), span.stop - span.start), np.uint16)
        for row, (start, size) in enumerate(zip(firsts[many].tolist(), sizes[many].tolist(), strict=True)):
            table[row, slots[start : start + size] - span.start] = counts[start : start + size]
        against = spread(lengths[span], average)
        rough = np.zeros(table.shape, np.uint8)
        for row, counted in enumerate(table):
            rough[row] = np.maximum(np.rint(saturation(counted, against) * ROUNDED), counted > 0)
        common = {term: row for row, term in enumerate(terms[firsts[many]].tolist())}
        rare = np.repeat(~many, sizes)
        starts = np.append(0, np.cumsum(sizes[~many]))
        tops = rough.max(axis=1, initial=0)
        return cls(span, terms[firsts[~many]], starts, slots[rare], counts[rare], common, table, rough, average, tops)

    def __len__(self) -> int:
        return len(self.slots) + self.table.size

    def lists(self, wanted: Ints) -> Ints:
        """Return from where to where the lists of ascending terms go, `(n, 2)`; a term without has an empty one."""
        bounds = np.zeros((len(wanted), 2), np.int64)
        if len(self.terms):
            at = np.minimum(np.searchsorted(self.terms, wanted), len(self.terms) - 1)
            known = self.terms[at] == wanted
            bounds[known, 0], bounds[known, 1] = self.starts[at[known]], self.starts[at[known] + 1]
        return bounds

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

    def entries(self) -> tuple[Ints, Ints, Ints]:
        """Return term, slot and occurrences of each entry; slots ascend for the same term."""
        rows, places = np.nonzero(self.table)
        names = np.fromiter(self.common, np.int32, len(self.common))
        return (
            np.concatenate((np.repeat(self.terms, np.diff(self.starts)), names[rows])),
            np.concatenate((self.slots, (places + self.span.start).astype(np.int32))),
            np.concatenate((self.counts, self.table[rows, places])),
        )


def merged(
    parts: Sequence[Postings], entries: tuple[Ints, Ints, Ints], places: Ints, lengths: Floats, average: float
) -> Postings:
    """Make one of several, of neighbouring documents.

    Args:
        parts: the postings, those of lower slots first.
        entries: term, slot and occurrences of more documents, with slots above; slots ascend for the same term.
        places: new slot of each old one, ascending; below 0 for documents that are gone.
        lengths: terms of each document, by new slot.
        average: document length to compute `rough` with.
    """
    columns = zip(*(part.entries() for part in parts), entries, strict=True)
    terms, slots, counts = (np.concatenate(column) for column in columns)
    slots = places[slots]
    kept = slots >= 0
    terms, slots, counts = terms[kept], slots[kept], counts[kept]
    span = slice(int(slots.min()), int(slots.max()) + 1) if len(slots) else slice(0, 0)
    return Postings.of(span, (terms, slots, counts), lengths, average)
