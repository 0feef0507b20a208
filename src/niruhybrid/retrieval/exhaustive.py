"""Every document scored by both halves, for a batch of queries: exact, and quick where there are few. Pure.

What the words of a batch add to each document is looked up once for all its queries, in one table; what is left for
each query are a few operations on arrays of all documents.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.asked import Asked, Scored
from niruhybrid.retrieval.dense import all_products
from niruhybrid.retrieval.fusion import summed
from niruhybrid.retrieval.lexical import LexicalIndex, LexicalQuery
from niruhybrid.retrieval.matching import roughly_highest
from niruhybrid.retrieval.postings import average_length, saturation, spread
from niruhybrid.retrieval.siblings import Siblings
from niruhybrid.retrieval.snapshot import Snapshot

__all__ = ("Exhaustive",)

_MOST = 4_194_304  # numbers of one table: 16 MB
_SPARE, _SPARE_AT_LEAST = 1.25, 8  # cosines are first computed many at once, which rounds them differently
_ROUNDING = 1e-5

Ints = NDArray[Any]
Floats = NDArray[np.float32]


class Exhaustive:
    """Scores all documents. The score of words is that of `candidates.Candidates`.

    Args:
        snapshot: what is searched.
        asked: the queries of a batch.
        dense_weight: share of the dense half in the scores.

    Attributes:
        least: how deep it looks at least.
    """

    least = 1

    def __init__(self, snapshot: Snapshot, asked: Sequence[Asked], dense_weight: float) -> None:
        self._snapshot = snapshot
        self._asked = asked
        self._weight = dense_weight
        self._words = dict(_words(snapshot, [one.words for one in asked]))
        near = {at: one.vector for at, one in enumerate(asked) if one.vector is not None}
        vectors = snapshot.dense.vectors.items
        products = all_products(np.ascontiguousarray(list(near.values())), vectors) if near and len(vectors) else ()
        self._cosines = dict(zip(near, products, strict=False))
        self._scores = {at: self._scored(at) for at in range(len(asked))}

    def best(self, depths: Mapping[int, int]) -> dict[int, Scored]:
        """Return what may be among the best of some queries, by their places, each so deep at least."""
        return {at: self._best(at, depth) for at, depth in depths.items()}

    def _scored(self, at: int) -> NDArray[np.float64]:
        """Return the score of every document, but for rounding; below all others where it can't be a hit."""
        cosines, words = self._cosines.get(at), self._words.get(at)
        scores = summed(cosines, words, self._weight, self._asked[at].words.norm, len(self._snapshot.rows))
        possible = self._asked[at].allowed
        if cosines is None:
            possible = possible & (words > 0.0) if words is not None else np.zeros_like(possible)
        return np.where(possible, scores, -np.inf)

    def _best(self, at: int, depth: int) -> Scored:
        scores = self._scores[at]
        most = int(depth * _SPARE) + _SPARE_AT_LEAST
        least = roughly_highest(scores, most) if len(scores) > most else -np.inf
        slots = np.flatnonzero(scores >= max(least - _ROUNDING, np.finfo(np.float64).min))
        vector, words = self._asked[at].vector, self._words.get(at)
        return Scored(
            slots,
            None if vector is None else self._snapshot.dense.products(vector, slots),
            None if words is None else words[slots],
        )


def _words(snapshot: Snapshot, queries: Sequence[LexicalQuery]) -> Iterator[tuple[int, Floats]]:
    """Yield, for each query with words, its place and the score of every document by words."""
    worded = [at for at, query in enumerate(queries) if query.size]
    while worded:
        numbers: set[int] = set()  # of the terms of as many queries as a table has room for
        count = 0
        for at in worded:
            more = set(queries[at].terms.tolist())
            if count and len(numbers | more) * len(snapshot.rows) > _MOST:
                break
            numbers |= more
            count += 1
        table = _Table.of(snapshot.lexical, np.array(sorted(numbers), np.int32))
        together = _Together.of(snapshot, table) if snapshot.passages else None
        for at in worded[:count]:
            own = table.scores(queries[at])
            yield at, own if together is None else together.mean(own, queries[at])
        worded = worded[count:]


@dataclass(frozen=True, slots=True)
class _Table:
    """What terms add to each passage.

    Attributes:
        terms: `(t,)` numbers, ascending.
        counts: `(t, slots)`, occurrences.
        shares: `(t, slots)`, BM25 of a term of weight 1.
    """

    terms: Ints
    counts: Floats
    shares: Floats

    @classmethod
    def of(cls, lexical: LexicalIndex, terms: Ints) -> Self:
        counts = lexical.occurrences(terms)
        return cls(terms, counts, saturation(counts, spread(lexical.lengths.items, lexical.average)))

    def rows(self, query: LexicalQuery) -> Ints:
        return self.terms.searchsorted(query.terms)

    def scores(self, query: LexicalQuery) -> Floats:
        return _weighed(query.weights, self.shares, self.rows(query))


@dataclass(frozen=True, slots=True)
class _Together:
    """What terms add to each document, all its passages as one; see `LexicalIndex.together`.

    Attributes:
        lexical: weighs terms.
        table: the same of passages.
        slots: `(n,)`, the passages of documents that have several.
        places: `(n,)`, the slot of the first passage of each one's document.
        shares: `(t, slots)`, BM25 of a term of weight 1: of a document, at the slot of its first passage.
    """

    lexical: LexicalIndex
    table: _Table
    slots: Ints
    places: Ints
    shares: Floats

    @classmethod
    def of(cls, snapshot: Snapshot, table: _Table) -> Self:
        owners, live = snapshot.owners.items, snapshot.live.items
        several = np.unique(owners[(snapshot.rows.items != owners) & live])
        together = Siblings.of(several, owners, live)
        slots, firsts = together.slots, together.slots[together.starts[:-1]]
        counts, lengths = table.counts.copy(), snapshot.lexical.lengths.items.copy()
        if len(slots):
            counts[:, firsts] = together.sums(counts[:, slots])
            lengths[firsts] = together.sums(lengths[slots])
        average = average_length(snapshot.lexical.total, snapshot.documents)
        places = np.repeat(firsts, np.diff(together.starts))
        return cls(snapshot.lexical, table, slots, places, saturation(counts, spread(lengths, average)))

    def mean(self, own: Floats, query: LexicalQuery) -> Floats:
        """Return the means of what passages score and of what their documents do, each as a share of its norm."""
        rows = self.table.rows(query)
        weights, norm = self.lexical.document_weights(query)
        theirs = _weighed(weights, self.shares, rows)
        theirs[self.slots] = theirs[self.places]
        theirs *= np.float32(query.norm / norm)
        means: Floats = (own + theirs) / np.float32(2.0)
        return means


def _weighed(weights: Floats, shares: Floats, rows: Ints) -> Floats:
    """Return the sum of some rows, each times its weight: term by term, the same whatever is beside a column."""
    some = shares[rows]
    some *= weights[:, None]
    scores: Floats = some.sum(axis=0)
    return scores
