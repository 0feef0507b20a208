"""Many standing queries against a few documents: which pairs reach the query's threshold. Pure, and exact.

The score of a pair is that of a search, `fusion.weighted_sum`: a share of the cosine, and the rest of BM25 over the
length of the query's term vector. Upper bounds come first:

- of the cosine the product of the leading coordinates, in a basis that has most of the queries' length in them, plus
  the product of what is left of both lengths (Cauchy and Schwarz);
- of BM25 what a document's rare terms add, from a list of queries for each, plus what common terms add in any document
  at the most (as MaxScore has it: Turtle and Flood, "Query Evaluation: Strategies and Optimizations", Information
  Processing & Management 31, 1995).

Where they can't reach the threshold together, and that is nearly everywhere, neither half is computed.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.growing import Growing
from niruhybrid.retrieval.lexical import MAX_QUERY_TERMS, LexicalIndex
from niruhybrid.retrieval.postings import MOST_COUNTED, saturation, spread
from niruhybrid.types import StandingQuery, Vector

__all__ = ("Pairs", "Panel")

Ints = NDArray[Any]
Floats = NDArray[Any]

_FULL = 4096  # queries up to which all coordinates are cheap enough
_LEADING = (31, 63, 127)  # coordinates of the bound, one of these; one more is the length of the rest
_ENOUGH = 0.9  # of the squared length is in the leading coordinates
_SAMPLE = 4096  # queries that a basis is learnt from
_OUTGROWN = 4  # times as many queries as there were then
_BLOCK = 8192  # queries at once, so that what is computed of them stays in the processor's cache
_COMMON = 32  # a term that one query in so many asks for is not looked at before it has to be
_DOCUMENTS = 32  # at once, so that their bounds take 128 bytes a query
_SLACK = 1e-4  # of a score; rounding is far below it


class Pairs(NamedTuple):
    """Queries and documents whose scores reach the thresholds.

    Attributes:
        slots: of the queries, `(n,)`, ascending.
        places: of the documents in their batch, `(n,)`; ascending for each query.
        scores: as a search has them, `(n,)` float64.
    """

    slots: Ints
    places: Ints
    scores: Floats

    @classmethod
    def of(cls, parts: Sequence["Pairs"]) -> Self:
        """Return the pairs of all parts."""
        slots, places, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.lexsort((places, slots))
        return cls(slots[order], places[order], scores[order])


class Panel:
    """Standing queries by slot, in the order of `add`. Not thread-safe.

    Args:
        dense_weight: weight of the dense half, as searches have it.
    """

    def __init__(self, dense_weight: float) -> None:
        self._weight = dense_weight
        self._shares: Growing[np.float64] = Growing.empty(np.float64)  # of the dense half
        self._vectors: Growing[np.float32] | None = None  # zeros for those that go by words alone
        self._rough: Growing[np.float32] | None = None
        self._basis: Vector | None = None
        self._learnt = 0
        self._vocabulary: dict[str, int] = {}
        self._numbers = np.empty(0, np.int64)  # of terms, in the store's vocabulary; -1 where that has it not
        self._starts: Growing[np.int64] = Growing.empty(np.int64).extended([0])
        self._terms: Growing[np.int64] = Growing.empty(np.int64)
        self._times: Growing[np.float32] = Growing.empty(np.float32)
        self._asking: list[array[int]] = []  # for each term the slots that ask for it
        self._asked: list[array[float]] = []  # and how often

    def __len__(self) -> int:
        return len(self._shares)

    def add(self, query: StandingQuery) -> None:
        """Put a query into the next slot; its vector is as long as those before."""
        vector = None if query.mode == "lexical" else query.vector
        counted = Counter(() if query.mode == "dense" else query.terms[:MAX_QUERY_TERMS])
        slot, names = len(self), self._vocabulary
        self._shares = self._shares.extended([0.0 if vector is None else self._weight if counted else 1.0])
        terms = [names.setdefault(term, len(names)) for term in counted]
        self._terms, self._times = self._terms.extended(terms), self._times.extended(list(counted.values()))
        self._starts = self._starts.extended([len(self._terms)])
        self._ask(slot, terms, counted.values())
        self._add_vector(slot, vector)

    def pairs(self, vectors: Vector, terms: Sequence[Sequence[str]], lexical: LexicalIndex, least: Floats) -> Pairs:
        """Return the pairs that reach their query's threshold.

        Args:
            vectors: `(n, dim)` float32, of the documents.
            terms: analysed terms of each.
            lexical: the index whose statistics count; it has the documents.
            least: `(slots,)`, score that a pair must have at the least.
        """
        if not len(self):
            return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
        counted = [Counter(term for term in one if term in self._vocabulary) for one in terms]
        self._number(counted, lexical)
        weights = lexical.weights(self._numbers)
        rest = (1.0 - self._shares.items) / self._norms(weights)  # what one point of BM25 is worth
        average = max(1.0, lexical.total / max(1, lexical.documents))
        against = spread(np.array([len(one) for one in terms], np.float32), average)
        gains = [self._gains(one, weights, against[at : at + 1]) for at, one in enumerate(counted)]
        found = []
        for start in range(0, len(vectors), _DOCUMENTS):
            stop = start + _DOCUMENTS
            bounds = self._bounds(vectors[start:stop])
            needed = (least - _SLACK - rest * self._common(gains[start:stop])).astype(np.float32)
            for place, bound in enumerate(bounds, start):
                slots = self._likely(bound.copy(), gains[place], needed, rest)
                worded = rest[slots] * self._worded(slots, gains[place])
                likely = bound[slots] + worded >= least[slots] - _SLACK
                slots, worded = slots[likely], worded[likely]
                near = self._shares.items[slots] * self._cosines(slots, vectors[place])
                scores = near + worded
                kept = (scores >= least[slots]) & ((self._shares.items[slots] > 0.0) | (worded > 0.0))
                found.append(Pairs(slots[kept], np.full(int(kept.sum()), place), scores[kept]))
        return Pairs.of(found)

    def compact(self, kept: NDArray[np.bool_]) -> None:
        """Close up the slots that are not kept."""
        sizes = np.diff(self._starts.items)
        entries = np.repeat(kept, sizes)
        self._shares = Growing.of(self._shares.items[kept])
        self._terms, self._times = Growing.of(self._terms.items[entries]), Growing.of(self._times.items[entries])
        self._starts = Growing.of(np.append(0, np.cumsum(sizes[kept])))
        self._asking, self._asked = [array("q") for _ in self._vocabulary], [array("f") for _ in self._vocabulary]
        for slot in range(len(self)):
            own = slice(self._starts.items[slot], self._starts.items[slot + 1])
            self._ask(slot, self._terms.items[own].tolist(), self._times.items[own].tolist())
        if self._vectors is not None:
            self._vectors = Growing.of(self._vectors.items[kept])
        if self._rough is not None:
            self._rough = Growing.of(self._rough.items[kept])

    def _ask(self, slot: int, terms: Sequence[int], times: Iterable[float]) -> None:
        for term, asked in zip(terms, times, strict=True):
            while term >= len(self._asking):
                self._asking.append(array("q"))
                self._asked.append(array("f"))
            self._asking[term].append(slot)
            self._asked[term].append(asked)

    def _add_vector(self, slot: int, vector: Vector | None) -> None:
        vectors = self._vectors
        if vectors is None:
            if vector is None:
                return
            vectors = Growing.of(np.zeros((slot, len(vector)), np.float32))
        row = np.zeros((1, vectors.items.shape[1]), np.float32) if vector is None else vector[None, :]
        self._vectors = vectors.extended(row)
        if slot + 1 > max(_FULL, self._learnt * _OUTGROWN):
            self._learn(self._vectors.items)
        elif self._rough is not None:
            self._rough = self._rough.extended(self._sketch(row))

    def _learn(self, vectors: Vector) -> None:
        """Choose the basis: the directions in which a sample of the queries is longest."""
        chosen = np.random.default_rng(0).choice(len(vectors), min(len(vectors), _SAMPLE), replace=False)
        sample = vectors[np.sort(chosen)]
        lengths, directions = np.linalg.eigh(sample.T @ sample)  # ascending
        kept = np.cumsum(lengths[::-1]) >= _ENOUGH * lengths.sum()
        size = next((size for size in _LEADING if kept[min(size, len(kept)) - 1]), _LEADING[-1])
        self._basis = np.ascontiguousarray(directions[:, ::-1][:, :size], np.float32)
        self._learnt = len(vectors)
        rough = Growing[np.float32].empty(np.float32, self._sketch(vectors[:1]).shape[1])
        for start in range(0, len(vectors), _BLOCK):
            rough = rough.extended(self._sketch(vectors[start : start + _BLOCK]))
        self._rough = rough

    def _sketch(self, vectors: Vector) -> Vector:
        """Return the leading coordinates of vectors, and the length of the rest; all of them without a basis."""
        if self._basis is None:
            return vectors
        leading = vectors @ self._basis
        left = np.linalg.norm(vectors - leading @ self._basis.T, axis=1, keepdims=True)
        return np.concatenate((leading, left.astype(np.float32)), axis=1)

    def _bounds(self, vectors: Vector) -> Floats:
        """Return what the dense half adds to each score at the most, `(documents, slots)`."""
        known = self._vectors if self._rough is None else self._rough
        if known is None:
            return np.zeros((len(vectors), len(self)), np.float32)
        bounds = np.empty((len(vectors), len(self)), np.float32)
        sketch = self._sketch(vectors).T
        shares = self._shares.items.astype(np.float32)
        for start in range(0, len(self), _BLOCK):  # turned over in the cache: faster than to multiply so
            own = slice(start, start + _BLOCK)
            np.multiply((known.items[own] @ sketch).T, shares[own], out=bounds[:, own])
        return bounds

    def _number(self, counted: Sequence[Mapping[str, int]], lexical: LexicalIndex) -> None:
        """Look up the store's numbers of terms that are new here, or new there: those only come with documents."""
        names, known = self._vocabulary, len(self._numbers)
        if len(names) > known:
            late = [lexical.vocabulary.get(term, -1) for term in list(names)[known:]]
            self._numbers = np.concatenate((self._numbers, np.array(late, np.int64)))
        for term in {term for one in counted for term in one}:
            self._numbers[names[term]] = lexical.vocabulary[term]

    def _norms(self, weights: Floats) -> Floats:
        """Return the `term_norm` of each query."""
        bounds = self._times.items * weights[self._terms.items]
        norms: Floats = np.sqrt(self._sums(bounds * bounds), dtype=np.float64)
        norms[norms == 0.0] = 1.0
        return norms

    def _sums(self, entries: Floats) -> Floats:
        """Return the sum of what each query's terms have, `(slots,)`."""
        starts = self._starts.items
        sums: Floats = np.add.reduceat(np.append(entries, np.float32(0.0)), starts[:-1])
        sums[np.diff(starts) == 0] = 0.0
        return sums

    def _gains(self, counted: Mapping[str, int], weights: Floats, against: Floats) -> dict[int, float]:
        """Return what a document's terms add to the BM25 score of a query that has them once."""
        terms = [self._vocabulary[term] for term in counted]
        counts = np.minimum(np.fromiter(counted.values(), np.int64, len(terms)), MOST_COUNTED)
        gained = weights[terms] * saturation(counts, against)
        return dict(zip(terms, gained.tolist(), strict=True))

    def _is_common(self, term: int) -> bool:
        return len(self._asking[term]) * _COMMON > len(self)

    def _common(self, gains: Sequence[Mapping[int, float]]) -> Floats:
        """Return what common terms add to BM25 at the most, in any of the documents, for each query."""
        most = np.zeros(len(self._vocabulary), np.float32)
        for one in gains:
            for term, gain in one.items():
                if gain > most[term] and self._is_common(term):
                    most[term] = gain
        return self._sums(self._times.items * most[self._terms.items])

    def _likely(self, bound: Floats, gains: Mapping[int, float], needed: Floats, rest: Floats) -> Ints:
        """Return the queries that may reach their threshold with a document, ascending.

        Args:
            bound: what the dense half adds at the most, `(slots,)`; not to be used again.
            gains: of the document.
            needed: thresholds, less what common terms may add.
            rest: what BM25 counts in each query.
        """
        terms = [term for term in gains if not self._is_common(term)]
        if terms:
            asking = [np.frombuffer(self._asking[term], np.int64) for term in terms]
            slots = np.concatenate(asking)
            times = np.concatenate([np.frombuffer(self._asked[term], np.float32) for term in terms])
            times *= np.repeat(np.array([gains[term] for term in terms], np.float32), [len(one) for one in asking])
            np.add.at(bound, slots, (times * rest[slots]).astype(np.float32))
        return np.flatnonzero(bound >= needed)

    def _worded(self, slots: Ints, gains: Mapping[int, float]) -> Floats:
        """Return the BM25 score of some queries with a document."""
        table = np.zeros(len(self._vocabulary), np.float32)
        table[list(gains)] = list(gains.values())
        starts = self._starts.items[slots]
        sizes = self._starts.items[slots + 1] - starts
        pair = np.repeat(np.arange(len(slots)), sizes)
        entries = np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(starts, sizes)
        gained = self._times.items[entries] * table[self._terms.items[entries]]
        worded: Floats = np.bincount(pair, gained, len(slots))
        return worded

    def _cosines(self, slots: Ints, vector: Vector) -> Floats:
        """Return the inner products of queries with a document; 0 for those that go by words alone."""
        near = np.zeros(len(slots))
        if self._vectors is not None:
            for start in range(0, len(slots), _BLOCK):
                near[start : start + _BLOCK] = np.vecdot(self._vectors.items[slots[start : start + _BLOCK]], vector)
        return near
