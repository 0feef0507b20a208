"""Many standing queries against a few documents: which pairs reach the query's threshold. Pure, and exact.

The score of a pair is that of a search: a share of the cosine, and the rest of BM25 over the length of the query's term
vector. Most pairs are far below the threshold, so cheap upper bounds of both halves come first:

- the cosine is at most the product of the leading coordinates, in a basis that has most of the queries' length in them,
  plus the product of what is left of both lengths (Cauchy and Schwarz);
- BM25 is at most what the query's terms add in whichever document of the batch has most of each.

Pairs whose bounds reach the threshold together are scored exactly, one by one.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.fusion import weighted_sum
from niruhybrid.retrieval.growing import Growing
from niruhybrid.retrieval.lexical import MAX_QUERY_TERMS, LexicalIndex
from niruhybrid.retrieval.postings import MOST_COUNTED, saturation, spread
from niruhybrid.types import StandingQuery, Vector

__all__ = ("Pair", "Panel")

Ints = NDArray[Any]
Floats = NDArray[Any]

_FULL = 4096  # queries up to which all coordinates are cheap enough
_LEADING = 64  # coordinates of the bound; one more is the length of the rest
_SAMPLE = 4096  # queries that a basis is learnt from
_OUTGROWN = 4  # times as many queries as there were then
_BLOCK = 8192  # queries at once, so that their bounds stay in the processor's cache
_SLACK = 1e-4  # of a score; rounding is far below it


class Pair(NamedTuple):
    """A query and a document whose score reaches the threshold.

    Attributes:
        slot: of the query.
        place: of the document, in its batch.
        score: as a search has it.
    """

    slot: int
    place: int
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class _Half:
    """The lexical half of a batch, for all queries.

    Attributes:
        weights: how much each term counts.
        rows: row in `table` of each term; 0 for those that no document of the batch has.
        table: saturation of each term in each document; the first row is zero.
        norms: of each query, its `term_norm`.
        most: what the half can be at the most, of each query.
    """

    weights: Floats
    rows: Ints
    table: Floats
    norms: Floats
    most: Floats


class Panel:
    """Standing queries by slot, in the order of `add`. Not thread-safe.

    Args:
        dense_weight: weight of the dense half, as searches have it.
    """

    def __init__(self, dense_weight: float) -> None:
        self._weight = dense_weight
        self._shares: Growing[np.float32] = Growing.empty(np.float32)  # of the dense half
        self._vectors: Growing[np.float32] | None = None  # zeros for those that go by words alone
        self._rough: Growing[np.float32] | None = None
        self._basis: Vector | None = None
        self._learnt = 0
        self._vocabulary: dict[str, int] = {}
        self._numbers = np.empty(0, np.int64)  # of terms, in the store's vocabulary; -1 where that has it not
        self._starts: Growing[np.int64] = Growing.empty(np.int64).extended([0])
        self._terms: Growing[np.int64] = Growing.empty(np.int64)
        self._times: Growing[np.float32] = Growing.empty(np.float32)
        self._slots: Growing[np.int64] = Growing.empty(np.int64)

    def __len__(self) -> int:
        return len(self._shares)

    def add(self, query: StandingQuery) -> None:
        """Put a query into the next slot; its vector is as long as those before."""
        vector = None if query.mode == "lexical" else query.vector
        terms = () if query.mode == "dense" else query.terms[:MAX_QUERY_TERMS]
        slot = len(self)
        self._shares = self._shares.extended([0.0 if vector is None else self._weight if terms else 1.0])
        counted = Counter(terms)
        names = self._vocabulary
        self._terms = self._terms.extended([names.setdefault(term, len(names)) for term in counted])
        self._times = self._times.extended(list(counted.values()))
        self._slots = self._slots.extended([slot] * len(counted))
        self._starts = self._starts.extended([len(self._terms)])
        self._add_vector(slot, vector)

    def pairs(
        self, vectors: Vector, terms: Sequence[Sequence[str]], lexical: LexicalIndex, least: Floats
    ) -> Iterator[list[Pair]]:
        """Yield the pairs that reach their query's threshold, in lists, by ascending slot, then place.

        Args:
            vectors: `(n, dim)` float32, of the documents.
            terms: analysed terms of each.
            lexical: the index whose statistics count; it has the documents.
            least: `(slots,)`, score that a pair must have at the least; infinite for queries that are over.
        """
        half = self._half(terms, lexical)
        shares = self._shares.items
        rest = 1.0 - shares
        missing = least - _SLACK - rest * half.most  # what the dense half must bring
        with np.errstate(divide="ignore", invalid="ignore"):
            needed = np.where(shares > 0.0, missing / shares, np.where(missing > 0.0, np.inf, -np.inf))
        needed = needed.astype(np.float32)
        sketch = self._sketch(vectors)
        for start in range(0, len(self), _BLOCK):
            stop = min(start + _BLOCK, len(self))
            bounds = self._bounds(start, stop, sketch, len(vectors))
            at = np.flatnonzero(bounds >= needed[start:stop, None])
            slots, places = at // len(vectors) + start, at % len(vectors)
            if len(at):
                yield self._exact(slots, places, vectors, half, least)

    def compact(self, kept: NDArray[np.bool_]) -> None:
        """Close up the slots that are not kept."""
        places = np.cumsum(kept) - 1
        entries = kept[self._slots.items]
        sizes = np.diff(self._starts.items)[kept]
        self._shares = Growing.of(self._shares.items[kept])
        self._terms, self._times = Growing.of(self._terms.items[entries]), Growing.of(self._times.items[entries])
        self._slots = Growing.of(places[self._slots.items[entries]])
        self._starts = Growing.of(np.append(0, np.cumsum(sizes)))
        if self._vectors is not None:
            self._vectors = Growing.of(self._vectors.items[kept])
        if self._rough is not None:
            self._rough = Growing.of(self._rough.items[kept])

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
        _, directions = np.linalg.eigh(sample.T @ sample)  # ascending
        self._basis = np.ascontiguousarray(directions[:, ::-1][:, :_LEADING], np.float32)
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

    def _bounds(self, start: int, stop: int, sketch: Vector, documents: int) -> Floats:
        """Return what each cosine is at the most, `(queries, documents)`."""
        known = self._vectors if self._rough is None else self._rough
        if known is None:
            return np.zeros((stop - start, documents), np.float32)
        bounds: Floats = known.items[start:stop] @ sketch.T
        return bounds

    def _half(self, terms: Sequence[Sequence[str]], lexical: LexicalIndex) -> _Half:
        counted = [Counter(term for term in one if term in self._vocabulary) for one in terms]
        found = {term: row for row, term in enumerate(dict.fromkeys(term for one in counted for term in one), 1)}
        self._number(found, lexical)
        counts = np.zeros((len(found) + 1, len(terms)), np.int64)
        for place, one in enumerate(counted):
            counts[[found[term] for term in one], place] = list(one.values())
        average = max(1.0, lexical.total / max(1, lexical.documents))
        lengths = np.array([len(one) for one in terms], np.float32)
        table = saturation(np.minimum(counts, MOST_COUNTED), spread(lengths, average))
        rows = np.zeros(len(self._vocabulary), np.int64)
        rows[[self._vocabulary[term] for term in found]] = list(found.values())
        weights = lexical.weights(self._numbers)
        bounds = self._times.items * weights[self._terms.items]
        norms = np.sqrt(np.bincount(self._slots.items, bounds * bounds, len(self)))
        norms[norms == 0.0] = 1.0
        tops = table.max(axis=1, initial=0.0)[rows]
        most = np.bincount(self._slots.items, bounds * tops[self._terms.items], len(self)) / norms
        return _Half(weights, rows, table, norms, most)

    def _number(self, found: dict[str, int], lexical: LexicalIndex) -> None:
        """Look up the store's numbers of terms that are new here, or new there: those only come with documents."""
        names, known = self._vocabulary, len(self._numbers)
        if len(names) > known:
            late = [lexical.vocabulary.get(term, -1) for term in list(names)[known:]]
            self._numbers = np.concatenate((self._numbers, np.array(late, np.int64)))
        for term in found:
            self._numbers[names[term]] = lexical.vocabulary[term]

    def _exact(self, slots: Ints, places: Ints, vectors: Vector, half: _Half, least: Floats) -> list[Pair]:
        """Return those of the pairs whose exact score reaches the threshold."""
        worded = self._worded(slots, places, half)
        shares = self._shares.items[slots]
        near = np.zeros(len(slots), np.float32)
        if self._vectors is not None:
            by_meaning = np.flatnonzero(shares > 0.0)
            near[by_meaning] = np.vecdot(self._vectors.items[slots[by_meaning]], vectors[places[by_meaning]])
        scores = shares * near + (1.0 - shares) * worded / half.norms[slots]
        kept = np.flatnonzero((scores >= least[slots] - _SLACK) & ((shares > 0.0) | (worded > 0.0)))
        sizes = np.diff(self._starts.items)
        found = []
        columns = (slots[kept], places[kept], near[kept], worded[kept])
        for slot, place, cosine, bm25 in zip(*(column.tolist() for column in columns), strict=True):
            halves = ({0: cosine} if self._shares.items[slot] else None), ({0: bm25} if sizes[slot] else None)
            score = weighted_sum(*halves, self._weight, float(half.norms[slot]))[0]
            if score >= least[slot]:
                found.append(Pair(slot, place, score))
        return found

    def _worded(self, slots: Ints, places: Ints, half: _Half) -> Floats:
        """Return the BM25 score of each pair."""
        starts = self._starts.items[slots]
        sizes = self._starts.items[slots + 1] - starts
        pair = np.repeat(np.arange(len(slots)), sizes)
        entries = np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(starts, sizes)
        terms = self._terms.items[entries]
        gained = self._times.items[entries] * half.weights[terms] * half.table[half.rows[terms], places[pair]]
        worded: Floats = np.bincount(pair, gained, len(slots))
        return worded
