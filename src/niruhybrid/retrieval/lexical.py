"""The lexical index: exact BM25 over analysed terms, fresh at every change.

Like all derived indexes it is a value: a change makes a new one and leaves the old as it was. Documents are known by
slot, their place in the order of writing. Most are in postings, which never change; what came since these were made is
a journal, read whole at every search and turned into postings when it gets long.

The scores are those of BM25 with k1 = 1.2, b = 0.75 and the weight of a term ln(1 + (N - n + .5) / (n + .5)), all
statistics being those of the documents that are there.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.fusion import term_norm
from niruhybrid.retrieval.growing import Growing
from niruhybrid.retrieval.matching import Collection, best, best_matches, highest
from niruhybrid.retrieval.postings import K1, MOST_COUNTED, Postings, merged, saturation, spread

__all__ = ("MAX_QUERY_TERMS", "LexicalIndex")

MAX_QUERY_TERMS = 128
"""Terms of one query that count, the first ones; what a query costs grows with each."""

_MERGED_WHEN = 4  # a part is merged with those behind it when they have a quarter of its entries
_GONE = -1

Ints = NDArray[Any]
Floats = NDArray[np.float32]
Allowed = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Entries:
    """Terms of documents: one entry for each term of each."""

    terms: Ints
    slots: Ints  # `_GONE` where the document has been removed
    counts: Ints


@dataclass(frozen=True, slots=True, eq=False)
class _Journal:
    """Entries in the order of the changes that made them."""

    terms: Growing[np.int32]
    slots: Growing[np.int32]
    counts: Growing[np.uint16]

    @classmethod
    def blank(cls) -> Self:
        return cls(Growing.empty(np.int32), Growing.empty(np.int32), Growing.empty(np.uint16))

    def __len__(self) -> int:
        return len(self.terms)

    def since(self, start: int) -> _Entries:
        return _Entries(self.terms.items[start:], self.slots.items[start:], self.counts.items[start:])

    def extended(self, terms: Any, slots: Any, counts: Any) -> Self:
        return type(self)(self.terms.extended(terms), self.slots.extended(slots), self.counts.extended(counts))

    def of(self, wanted: Ints, vocabulary: int) -> _Entries:
        """Return the entries of the wanted terms, numbers below `vocabulary`."""
        asked = np.zeros(vocabulary, np.bool_)
        asked[wanted] = True
        kept = np.flatnonzero(asked[self.terms.items])
        return _Entries(self.terms.items[kept], self.slots.items[kept], self.counts.items[kept])


@dataclass(frozen=True, slots=True, eq=False)
class LexicalIndex:
    """Which documents have which terms.

    Attributes:
        vocabulary: number of each term; shared by all states, none is ever taken away.
        parts: the postings, of ascending slots.
        frequencies: documents that have each term, by its number, when the last part was made.
        lengths: terms of each document, by slot.
        documents: how many there are.
        total: terms of all documents.
    """

    vocabulary: dict[str, int]
    parts: tuple[Postings, ...]
    frequencies: Ints
    lengths: Growing[np.float32]
    documents: int
    total: int
    _journal: _Journal

    @classmethod
    def of(
        cls,
        vocabulary: dict[str, int],
        parts: Sequence[Postings] = (),
        frequencies: Ints | None = None,
        lengths: Growing[np.float32] | None = None,
        live: Allowed | None = None,
    ) -> Self:
        """Return an index of given postings, of which the documents that are `live` are there, or an empty one."""
        known = Growing[np.float32].empty(np.float32) if lengths is None else lengths
        counted = np.zeros(0, np.int32) if frequencies is None else frequencies
        there = known.items[live] if live is not None else known.items
        return cls(
            vocabulary, tuple(parts), counted, known, len(there), int(there.sum(dtype=np.float64)), _Journal.blank()
        )

    @property
    def unmerged(self) -> int:
        """Entries that every search has to read."""
        return len(self._journal)

    @property
    def merged_entries(self) -> int:
        """Entries that searches need not read one by one."""
        return sum(map(len, self.parts))

    def changed(self, removed: Mapping[int, Iterable[str]], added: Sequence[Sequence[str]]) -> Self:
        """Return the index after a change.

        Args:
            removed: slots to forget, each with its terms; each must be there.
            added: terms of each new document, in the order of the slots that follow the last one.
        """
        entries: list[tuple[int, int, int]] = []
        numbers = self.vocabulary
        for terms in removed.values():
            entries += ((numbers[term], _GONE, 0) for term in set(terms))
        for slot, terms in enumerate(added, start=len(self.lengths)):
            for term, count in Counter(terms).items():
                entries.append((numbers.setdefault(term, len(numbers)), slot, min(count, MOST_COUNTED)))
        columns = zip(*entries, strict=True) if entries else ((), (), ())
        sizes = [len(terms) for terms in added]
        lost = sum(int(self.lengths.items[slot]) for slot in removed)
        return type(self)(
            numbers,
            self.parts,
            self.frequencies,
            self.lengths.extended(sizes),
            self.documents - len(removed) + len(added),
            self.total - lost + sum(sizes),
            self._journal.extended(*columns),
        )

    def search(
        self, queries: Sequence[Sequence[str]], limits: Sequence[int], allowed: Sequence[Allowed]
    ) -> list[dict[int, float]]:
        """Find the documents that have any of a query's terms.

        Args:
            queries: analysed terms of each query; the first 128 count, each as often as it is there.
            limits: documents wanted for each, at least 1.
            allowed: for each, `(slots,)`, whether a document may be found; False for those that are gone.

        Returns:
            For each query its `limit` best slots, or all that match, with their scores, above 0; of equal ones the
            lower slots.
        """
        asked = [self._numbered(terms) for terms in queries]
        wanted = np.concatenate([terms for terms, _ in asked]) if asked else np.empty(0, np.int32)
        recent = self._journal.of(wanted, len(self.vocabulary))
        return [
            self._best(terms, times, recent, limit, may) if len(terms) else {}
            for (terms, times), limit, may in zip(asked, limits, allowed, strict=True)
        ]

    def norms(self, queries: Sequence[Sequence[str]]) -> list[float]:
        """Return the length of each query's term vector: `fusion.term_norm` of its terms, unknown ones included."""
        asked = [self._numbered(terms) for terms in queries]
        wanted = np.concatenate([terms for terms, _ in asked]) if asked else np.empty(0, np.int32)
        recent = self._journal.of(wanted, len(self.vocabulary))
        unknown = (K1 + 1.0) * math.log1p((self.documents + 0.5) / 0.5)
        norms = []
        for terms, (numbers, times) in zip(queries, asked, strict=True):
            strange = Counter(term for term in terms[:MAX_QUERY_TERMS] if term not in self.vocabulary)
            bounds = [unknown * times for times in strange.values()]
            if len(numbers):
                bounds += self._weights(numbers, self._recently(numbers, recent)[1], times).tolist()
            norms.append(term_norm(bounds))
        return norms

    def weights(self, terms: Ints) -> Floats:
        """Return how much each of many terms counts in a query that has it once, `(n,)`; -1 is an unknown term."""
        recent = self._journal.since(0)
        known = (terms.max(initial=-1), recent.terms.max(initial=-1), len(self.frequencies) - 1)
        have = np.bincount(recent.terms, np.where(recent.slots < 0, -1, 1), int(max(known)) + 2)  # the last is for -1
        have[: len(self.frequencies)] += self.frequencies
        at = have[terms]
        weights: Floats = ((K1 + 1.0) * np.log1p((self.documents - at + 0.5) / (at + 0.5))).astype(np.float32)
        return weights

    def merged(self, live: Allowed) -> Self:
        """Return the same index without a journal: it, and the parts that it has outgrown, become one part.

        Args:
            live: `(slots,)`, whether a document is there.
        """
        first = self._outgrown()
        part = self._one_part(first, np.where(live, np.arange(len(live)), _GONE), self.lengths.items)
        return self._with((*self.parts[:first], *part), self.lengths)

    def compacted(self, live: Allowed) -> Self:
        """Return the same index as one part, with the slots of documents that are gone closed up."""
        lengths = self.lengths.items[live]
        part = self._one_part(0, np.where(live, np.cumsum(live) - 1, _GONE), lengths)
        return self._with(part, Growing.of(lengths))

    def terms_of(self, slots: Ints) -> dict[int, list[str]]:
        """Return the different terms of documents, in no particular order; of an index without a journal."""
        names = list(self.vocabulary)
        found: dict[int, list[str]] = {slot: [] for slot in slots.tolist()}
        for part in self.parts:
            for term, slot in part.terms_of(slots):
                found[slot].append(names[term])
        return found

    def followed_by(self, before: Self, after: Self) -> Self:
        """Return the index that this one becomes by the changes that led from `before` to `after`.

        Args:
            before: what this one was made from, by `merged` or `compacted`.
            after: what has become of it.
        """
        shift = len(before.lengths) - len(self.lengths)
        late = after._journal.since(before.unmerged)
        slots = np.where(late.slots == _GONE, _GONE, late.slots - shift)
        return replace(
            self,
            lengths=self.lengths.extended(after.lengths.items[len(before.lengths) :]) if shift else after.lengths,
            documents=after.documents,
            total=after.total,
            _journal=self._journal.extended(late.terms, slots, late.counts),
        )

    def _with(self, parts: tuple[Postings, ...], lengths: Growing[np.float32]) -> Self:
        """Return the index with other parts, which have all that the journal says."""
        recent = self._journal.since(0)
        signs = np.where(recent.slots == _GONE, -1, 1)
        frequencies = np.bincount(recent.terms, signs, len(self.vocabulary)).astype(np.int32)
        frequencies[: len(self.frequencies)] += self.frequencies
        return replace(self, parts=parts, frequencies=frequencies, lengths=lengths, _journal=_Journal.blank())

    def _one_part(self, first: int, places: Ints, lengths: Floats) -> tuple[Postings, ...]:
        """Merge the parts from `first` on, and the journal, into one; none if no document is left."""
        recent = self._journal.since(0)
        added = recent.slots != _GONE
        entries = (recent.terms[added], recent.slots[added], recent.counts[added])
        made = merged(self.parts[first:], entries, places, lengths, max(1.0, self.total / max(1, self.documents)))
        return (made,) if len(made) else ()

    def _outgrown(self) -> int:
        """Return the first part that is small beside what is behind it."""
        behind, first = self.unmerged, len(self.parts)
        while first and len(self.parts[first - 1]) < behind * _MERGED_WHEN:
            first -= 1
            behind += len(self.parts[first])
        return first

    def _numbered(self, terms: Sequence[str]) -> tuple[Ints, Floats]:
        """Return the known terms that count, ascending, and how often each is asked for."""
        times = Counter(self.vocabulary[term] for term in terms[:MAX_QUERY_TERMS] if term in self.vocabulary)
        numbers = sorted(times)
        return np.array(numbers, np.int32), np.array([times[number] for number in numbers], np.float32)

    def _best(self, terms: Ints, times: Floats, recent: _Entries, limit: int, allowed: Allowed) -> dict[int, float]:
        average = max(1.0, self.total / max(1, self.documents))
        (at, recent_slots, counts), more = self._recently(terms, recent)
        weights = self._weights(terms, more, times)
        there = np.flatnonzero((recent_slots != _GONE) & allowed[recent_slots])
        new_slots, new_scores = self._recent_scores(recent_slots[there], counts[there], weights[at[there]], average)
        collection = Collection(self.parts, self.lengths.items, average, allowed)
        slots, scores = best_matches(collection, terms, weights, limit, highest(new_scores, limit))
        slots, scores = best(np.concatenate((slots, new_slots)), np.concatenate((scores, new_scores)), limit)
        return dict(zip(slots.tolist(), scores.tolist(), strict=True))

    def _recently(self, terms: Ints, recent: _Entries) -> tuple[tuple[Ints, Ints, Ints], Ints]:
        """Return the journal's entries of these terms, and in how many more documents it has each of them."""
        at = np.minimum(np.searchsorted(terms, recent.terms), len(terms) - 1)
        asked = np.flatnonzero(terms[at] == recent.terms)
        at, slots, counts = at[asked], recent.slots[asked], recent.counts[asked]
        return (at, slots, counts), np.bincount(at, np.where(slots == _GONE, -1, 1), len(terms))

    def _weights(self, terms: Ints, recent: Ints, times: Floats) -> Floats:
        """Return how much each term counts."""
        have = np.zeros(len(terms))
        old = terms < len(self.frequencies)
        have[old] = self.frequencies[terms[old]]
        have += recent
        weights: Floats = (times * (K1 + 1.0) * np.log1p((self.documents - have + 0.5) / (have + 0.5))).astype(
            np.float32
        )
        return weights

    def _recent_scores(self, slots: Ints, counts: Ints, weights: Floats, average: float) -> tuple[Ints, Floats]:
        """Return the documents of entries, and what these add up to."""
        if not len(slots):
            return slots, weights
        first = int(slots.min())
        gained = weights * saturation(counts, spread(self.lengths.items[slots], average))
        scores = np.bincount(slots - first, gained).astype(np.float32)
        found = np.flatnonzero(scores)
        return found + first, scores[found]
