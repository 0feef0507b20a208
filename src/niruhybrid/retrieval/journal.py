"""The newest entries of the lexical index, in the order of the changes that made them, and where each term's are.

Like all derived indexes it is a value: a longer journal leaves the shorter one as it was. Where a term's entries are is
kept once for all that grew from the same blank one. It may name more places than a journal has, and places that an
abandoned change has left: both are passed over in reading.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.growing import Growing

__all__ = ("GONE", "Entries", "Journal")

GONE = -1
"""Slot in an entry that says that a document has been removed."""

Ints = NDArray[Any]

_NOWHERE = array("i")


class Entries(NamedTuple):
    """Terms of documents: one entry for each term of each.

    Attributes:
        terms: number of the term, `(n,)`; where they were asked for, its place in the question.
        slots: the document, or `GONE` where one with the term has been removed.
        counts: occurrences, uint16.
    """

    terms: Ints
    slots: Ints
    counts: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Journal:
    """Entries that no postings have yet. Changes start from the newest one, one at a time."""

    _terms: Growing[np.int32]
    _slots: Growing[np.int32]
    _counts: Growing[np.uint16]
    _places: dict[int, "array[int]"]

    @classmethod
    def blank(cls) -> Self:
        """Return a journal without entries."""
        return cls(Growing.empty(np.int32), Growing.empty(np.int32), Growing.empty(np.uint16), {})

    def __len__(self) -> int:
        return len(self._terms)

    def since(self, start: int) -> Entries:
        """Return the entries but for the first `start`."""
        return Entries(self._terms.items[start:], self._slots.items[start:], self._counts.items[start:])

    def extended(self, terms: Sequence[int] | Ints, slots: Sequence[int] | Ints, counts: Sequence[int] | Ints) -> Self:
        """Return the journal with more entries; slots ascend."""
        if len(terms):
            self._place(np.asarray(terms, np.int32))
        return replace(
            self,
            _terms=self._terms.extended(terms),
            _slots=self._slots.extended(slots),
            _counts=self._counts.extended(counts),
        )

    def of(self, terms: Ints) -> Entries:
        """Return the entries of some terms, `(n,)` numbers, term by term."""
        if not len(self):
            return self.since(0)
        size, found, sizes = len(self), array("i"), []
        for term in terms.tolist():
            known = self._places.get(term, _NOWHERE)
            until = bisect_left(known, size)
            sizes.append(until)
            found.extend(known[:until])
        at, places = np.repeat(np.arange(len(terms)), sizes), np.frombuffer(found, np.intc)
        slots, counts = self._slots.items[places], self._counts.items[places]
        right = self._terms.items[places] == terms[at]
        return Entries(at, slots, counts) if right.all() else Entries(at[right], slots[right], counts[right])

    def _place(self, terms: Ints) -> None:
        """Note where the entries of `terms` are, which are to follow the last one."""
        order = np.argsort(terms, kind="stable")
        bounds = np.flatnonzero(np.diff(terms[order], prepend=-1, append=-1)).tolist()
        names, places = terms[order[bounds[:-1]]].tolist(), array("i", (order + len(self)).astype(np.intc).tobytes())
        for name, start, end in zip(names, bounds[:-1], bounds[1:], strict=True):
            known = self._places.setdefault(name, array("i"))
            while known and known[-1] >= len(self):  # of a change that was abandoned
                known.pop()
            known.extend(places[start:end])
