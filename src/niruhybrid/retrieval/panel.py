"""Many standing queries against a few documents: which pairs reach the query's threshold. Pure, and exact.

The score of a pair is that of a search, `fusion.weighted_sum`: a share of the cosine, and the rest of BM25 over the
length of the query's term vector; in a store with documents of several passages that is the mean of the passage's and
of its whole document's. It is computed for the few pairs only that stay after two looks at all the others:

- A query is put aside for all documents if its largest product with any of them, in eight bits a coordinate, and the
  most that its words could add in any document, term by term, don't reach its threshold together.
- A pair is put aside if that product and what the words do add in the document don't reach it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.codes import Codes, Few
from niruhybrid.retrieval.growing import Growing
from niruhybrid.retrieval.lexical import MAX_QUERY_TERMS
from niruhybrid.retrieval.postings import MOST_COUNTED, average_length, saturation, spread
from niruhybrid.types import StandingQuery, Vector

__all__ = ("Pairs", "Panel", "Statistics")

Ints = NDArray[Any]
Floats = NDArray[Any]

_BLOCK = 8192  # queries at once, so that what is computed of them stays in the processor's cache
_DOCUMENTS = 32  # at once; the fewer there are, the less the words of any of them can add
_LOWEST, _HIGHEST = np.iinfo(np.int32).min, np.iinfo(np.int32).max
_KEPT = 0.9  # of a term's weight, until the lengths of term vectors are computed anew
_SLACK = 1e-4  # of a score; rounding is far below it


class Statistics(Protocol):
    """What weighs terms: how many passages, and how many documents, there are and have them."""

    @property
    def documents(self) -> int:
        """How many passages there are."""
        ...

    @property
    def owners(self) -> int:
        """How many documents these make."""
        ...

    @property
    def total(self) -> int:
        """Terms of all of them."""
        ...

    @property
    def numbering(self) -> object:
        """What gives terms their numbers: these are good as long as it is the same object."""
        ...

    def number_of(self, term: str) -> int:
        """Return the number of a term; -1, for now, if no document has had it."""
        ...

    def weights(self, terms: Ints) -> tuple[Floats, Floats]:
        """Return how much each of many terms, by number, counts in a query that has it once.

        Returns:
            Among passages, `(n,)`, and among documents, `(n,)`.
        """
        ...


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


class _Counted(NamedTuple):
    """How often a list of terms has each of the panel's, `(n,)` both, and how long it is."""

    terms: list[int]
    counts: Ints
    length: int


class _Half(NamedTuple):
    """What counts of the terms of some documents: each passage by itself, or each with all of its document.

    Attributes:
        weights: of the panel's terms, `(terms,)`.
        gains: what each adds to the BM25 score of a query that has it once, `(terms, n)`.
        most: the highest of each term, `(terms,)`.
    """

    weights: Floats
    gains: Floats
    most: Floats


class _Batch(NamedTuple):
    """Some passages, and what counts of their terms.

    Attributes:
        vectors: `(n, dim)` float32.
        few: the same; None where no query has a vector.
        halves: the score of words is the mean of these: of the passages, and of their documents where any document of
            the store has several.
    """

    vectors: Vector
    few: Few | None
    halves: tuple[_Half, ...]


class _Norms:
    """How long the term vectors of all queries are, by weights that change a little with each write."""

    def __init__(self) -> None:
        self._lengths = np.empty(0)  # by the weights of an earlier batch
        self._weights = np.empty(0, np.float32)  # these weights
        self._kept = 1.0

    def follow(self, weights: Floats, times: Floats, terms: Ints, starts: Ints) -> None:
        """Take other weights, `(terms,)`, for queries that have some terms so many times each."""
        known = len(self._lengths) == len(starts) - 1 and len(self._weights) == len(weights)
        self._kept = float(np.min(weights / self._weights, initial=1.0)) if known else 0.0
        if self._kept < _KEPT:
            squares = _sums(np.square(times * weights[terms]), starts)
            self._lengths, self._weights, self._kept = np.sqrt(np.where(squares > 0.0, squares, 1.0)), weights, 1.0

    def at_least(self, own: slice) -> Floats:
        """Return lengths of the term vectors of some queries that are no longer than the true ones."""
        least: Floats = self._lengths[own] * self._kept
        return least

    def forget(self) -> None:
        """Have all lengths computed anew by the next `follow`."""
        self._lengths = np.empty(0)


class Panel:
    """Standing queries by slot, in the order of `add`. Not thread-safe.

    Args:
        dense_weight: weight of the dense half, as searches have it.
    """

    def __init__(self, dense_weight: float) -> None:
        self._weight = dense_weight
        self._shares: Growing[np.float64] = Growing.empty(np.float64)  # of the dense half
        self._vectors: Growing[np.float32] | None = None  # zeros for those that go by words alone
        self._codes: Codes | None = None  # of the vectors times their shares
        self._vocabulary: dict[str, int] = {}
        self._numbers = np.empty(0, np.int64)  # of terms, in the store's vocabulary; -1 where that has it not
        self._starts: Growing[np.int64] = Growing.empty(np.int64).extended([0])
        self._terms: Growing[np.int64] = Growing.empty(np.int64)
        self._times: Growing[np.float32] = Growing.empty(np.float32)
        self._numbering: object = None  # what these numbers belong to
        self._norms = _Norms(), _Norms()  # among passages, among documents

    def __len__(self) -> int:
        return len(self._shares)

    def add(self, query: StandingQuery) -> None:
        """Put a query into the next slot; its vector is as long as those before."""
        vector = None if query.mode == "lexical" else query.vector
        counted = Counter(() if query.mode == "dense" else query.terms[:MAX_QUERY_TERMS])
        share = 0.0 if vector is None else self._weight if counted else 1.0
        self._add_vector(vector, share)
        names = self._vocabulary
        terms = [names.setdefault(term, len(names)) for term in counted]
        self._shares = self._shares.extended([share])
        self._terms, self._times = self._terms.extended(terms), self._times.extended(list(counted.values()))
        self._starts = self._starts.extended([len(self._terms)])

    @property
    def terms(self) -> int:
        """How many different terms are held."""
        return len(self._vocabulary)

    def pairs(
        self,
        vectors: Vector,
        terms: Sequence[Sequence[str]],
        statistics: Statistics,
        least: Floats,
        documents: Sequence[Sequence[str]] | None = None,
    ) -> Pairs:
        """Return the pairs that reach their query's threshold.

        Args:
            vectors: `(n, dim)` float32, of the passages.
            terms: analysed terms of each.
            statistics: of all documents, these included.
            least: `(slots,)`, score that a pair must have at the least.
            documents: terms of each passage's whole document; None where each passage is one.
        """
        whole = terms if documents is None else documents
        self._number({term for one in whole for term in one if term in self._vocabulary}, statistics)
        known: dict[int, _Counted] = {}  # by the list's identity: all passages of a document have the same one
        lists = [
            [known.get(id(one)) or known.setdefault(id(one), self._counted(one)) for one in every]
            for every in (terms, whole)
        ]
        found = [Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
        for first in range(0, len(vectors), _DOCUMENTS):
            some = slice(first, first + _DOCUMENTS)
            batch = self._batch(vectors[some], lists[0][some], lists[1][some], statistics)
            for start in range(0, len(self), _BLOCK):
                own = slice(start, min(start + _BLOCK, len(self)))
                slots, places, scores = self._reaching(own, batch, least[own])
                found.append(Pairs(slots + start, places + first, scores))
        return Pairs.of(found)

    def compact(self, kept: NDArray[np.bool_]) -> None:
        """Close up the slots that are not kept, and forget the terms that only they had."""
        sizes = np.diff(self._starts.items)
        entries = np.repeat(kept, sizes)
        self._shares = Growing.of(self._shares.items[kept])
        self._times = Growing.of(self._times.items[entries])
        self._starts = Growing.of(np.append(0, np.cumsum(sizes[kept])))
        names, (used, terms) = list(self._vocabulary), np.unique(self._terms.items[entries], return_inverse=True)
        self._terms = Growing.of(terms.astype(np.int64))
        self._vocabulary = {names[old]: new for new, old in enumerate(used.tolist())}
        self._numbering, self._numbers = None, np.empty(0, np.int64)
        for norms in self._norms:
            norms.forget()
        if self._vectors is not None and self._codes is not None:
            self._vectors = Growing.of(self._vectors.items[kept])
            self._codes.compact(kept)

    def _add_vector(self, vector: Vector | None, share: float) -> None:
        if self._vectors is None or self._codes is None:
            if vector is None:
                return
            self._vectors = Growing.of(np.zeros((len(self), len(vector)), np.float32))
            self._codes = Codes(len(self), len(vector))
        row = np.zeros(self._vectors.items.shape[1], np.float32) if vector is None else vector
        self._vectors = self._vectors.extended(row[None])
        self._codes.add(row * np.float32(share))

    def _batch(
        self,
        vectors: Vector,
        terms: Sequence[_Counted],
        documents: Sequence[_Counted],
        statistics: Statistics,
    ) -> _Batch:
        """Return some passages, weighed by what is in an index."""
        passages, whole = statistics.weights(self._numbers)
        halves = [self._half(self._norms[0], passages, terms, average_length(statistics.total, statistics.documents))]
        if statistics.owners != statistics.documents:
            average = average_length(statistics.total, statistics.owners)
            halves.append(self._half(self._norms[1], whole, documents, average))
        return _Batch(vectors, None if self._codes is None else Few.of(vectors), tuple(halves))

    def _counted(self, terms: Sequence[str]) -> _Counted:
        counted = Counter(term for term in terms if term in self._vocabulary)
        numbers = [self._vocabulary[term] for term in counted]
        return _Counted(
            numbers, np.minimum(np.fromiter(counted.values(), np.int64, len(numbers)), MOST_COUNTED), len(terms)
        )

    def _half(self, norms: _Norms, weights: Floats, lists: Sequence[_Counted], average: float) -> _Half:
        """Return what counts of some lists of terms, and have `norms` follow the weights."""
        against = spread(np.array([one.length for one in lists], np.float32), average)
        gains = np.zeros((len(weights), len(lists)), np.float32)
        for place, one in enumerate(lists):
            gains[one.terms, place] = weights[one.terms] * saturation(one.counts, against[place : place + 1])
        norms.follow(weights, self._times.items, self._terms.items, self._starts.items)
        return _Half(weights, gains, gains.max(axis=1))

    def _number(self, terms: Iterable[str], statistics: Statistics) -> None:
        """Look up the store's numbers of terms that are new here, or new there: those only come with documents."""
        if self._numbering is not statistics.numbering:
            self._numbering, self._numbers = statistics.numbering, np.empty(0, np.int64)
        names, known = self._vocabulary, len(self._numbers)
        if len(names) > known:
            late = [statistics.number_of(term) for term in islice(names, known, None)]
            self._numbers = np.concatenate((self._numbers, np.array(late, np.int64)))
        for term in terms:
            self._numbers[names[term]] = statistics.number_of(term)

    def _reaching(self, own: slice, batch: _Batch, least: Floats) -> Pairs:
        """Return the pairs of a block of queries that reach their thresholds, slots counted within the block."""
        needed = least - _SLACK
        if self._codes is None or batch.few is None:
            hopeful, near = np.flatnonzero(self._most_worded(own, batch) >= needed), np.zeros((1, 1))
        else:
            products, units, margins = self._codes.products(own, batch.few)
            missing = needed - self._most_worded(own, batch) - margins
            floors = np.clip(np.ceil(missing / units), _LOWEST, _HIGHEST).astype(np.int32)
            hits = np.flatnonzero(products >= floors[:, None]) // products.shape[1]
            hopeful = hits[np.flatnonzero(np.diff(hits, prepend=-1))]
            near = products[hopeful] * units[hopeful, None] + margins[hopeful, None]
        worded = self._worded(hopeful + own.start, batch)
        at, places = np.nonzero(near + worded >= needed[hopeful, None])
        slots, words = hopeful[at], worded[at, places]
        shares = self._shares.items[own][slots]
        scores = shares * self._cosines(slots + own.start, batch.vectors[places]) + words
        kept = (scores >= least[slots]) & ((shares > 0.0) | (words > 0.0))
        return Pairs(slots[kept], places[kept], scores[kept])

    def _most_worded(self, own: slice, batch: _Batch) -> Floats:
        """Return what words add to the score of each query of a block at the most, in any of the documents."""
        starts = self._starts.items[own.start : own.stop + 1]
        entries = slice(starts[0], starts[-1])
        times, terms = self._times.items[entries], self._terms.items[entries]
        most = np.zeros(own.stop - own.start)
        for half, norms in zip(batch.halves, self._norms, strict=False):  # the second half may be missing
            most += _sums(times * half.most[terms], starts) / norms.at_least(own)
        worth: Floats = most * (1.0 - self._shares.items[own]) / len(batch.halves)
        return worth

    def _worded(self, slots: Ints, batch: _Batch) -> Floats:
        """Return what words add to the score of some queries with each document, `(slots, documents)`."""
        worded: Floats = np.sum([self._worded_half(slots, half) for half in batch.halves], axis=0)
        return worded * ((1.0 - self._shares.items[slots]) / len(batch.halves))[:, None]

    def _worded_half(self, slots: Ints, half: _Half) -> Floats:
        """Return the BM25 scores of some queries over the lengths of their term vectors, `(slots, documents)`."""
        starts = self._starts.items[slots]
        sizes = self._starts.items[slots + 1] - starts
        gained, squares = np.zeros((len(slots), half.gains.shape[1]), np.float32), np.zeros(len(slots))
        for nth in range(sizes.max(initial=0)):
            have = np.flatnonzero(sizes > nth)
            entries = starts[have] + nth
            terms, times = self._terms.items[entries], self._times.items[entries]
            gained[have] += times[:, None] * half.gains.take(terms, axis=0)
            squares[have] += np.square(times * half.weights[terms])
        shares: Floats = gained / np.sqrt(np.where(squares > 0.0, squares, 1.0))[:, None]
        return shares

    def _cosines(self, slots: Ints, vectors: Vector) -> Floats:
        """Return the inner products of queries with a document each; 0 for those that go by words alone."""
        if self._vectors is None:
            return np.zeros(len(slots))
        near: Floats = np.vecdot(self._vectors.items[slots], vectors)
        return near.astype(np.float64)


def _sums(entries: Floats, starts: Ints) -> Floats:
    """Return the sums of what goes from one start to the next, `(starts - 1,)`."""
    sums: Floats = np.add.reduceat(np.append(entries, np.float32(0.0)), starts[:-1] - starts[0])
    sums[np.diff(starts) == 0] = 0.0
    return sums
