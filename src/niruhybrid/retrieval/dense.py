"""The dense index: inner products with every vector while there are few, with the likely ones when there are many.

Like all derived indexes it is a value: a change makes a new one and leaves the old as it was. Vectors are known by
slot, their place in the order of writing. From 16,384 on a `Sieve` picks the candidates among all but the newest, which
are always compared; all scores are exact. The more documents a search wants, the more the sieve looks at; where that
would be half of all, every vector is compared instead. Searches that may find fewer documents than 16,384 look at the
signs of each, and compare the likely ones.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.growing import Growing
from niruhybrid.retrieval.matching import best
from niruhybrid.retrieval.sieve import Sieve, products
from niruhybrid.retrieval.sketches import FEWEST_DIMENSIONS, likely, sketched
from niruhybrid.types import Vector

__all__ = ("DenseIndex", "all_products")

Slots = NDArray[np.int64]
Allowed = NDArray[np.bool_]

EXACT = 16_384
"""Vectors up to which every one is compared."""

_TAIL, _TAIL_SHARE = 1024, 128  # newest vectors beside the sieve: so many, or a share of all
_SPARSE = 4  # below a quarter it is cheaper to pick vectors than to pass over the others
_SPARE, _SPARE_AT_LEAST = 1.25, 8  # candidates are found by rounded numbers
_LIKELY, _LIKELY_SHARE = 1024, 8  # compared of those whose signs were looked at: so many, or times what is wanted
_QUERIES = 32
_ONE_THREAD = 200_000  # OpenBLAS uses one thread for up to 262,144 multiplications


@dataclass(frozen=True, slots=True, eq=False)
class DenseIndex:
    """Vectors by slot.

    Attributes:
        vectors: `(slots, dim)` float32.
        sketches: `(slots, words)` uint64, their signs.
        sieve: finds candidates among the first of them; None while there are few.
    """

    vectors: Growing[np.float32]
    sketches: Growing[np.uint64]
    sieve: Sieve | None = None

    @classmethod
    def of(cls, vectors: Growing[np.float32], sieve: Sieve | None = None) -> Self:
        """Return an index of given vectors."""
        return cls(vectors, Growing.of(sketched(vectors.items)), sieve)

    @property
    def unsieved(self) -> int:
        """Vectors that every search has to compare beside those it finds."""
        return len(self.vectors) - (self.sieve.covered if self.sieve else 0)

    @property
    def outgrown(self) -> bool:
        """Whether searches would be faster after `sieved`."""
        known = len(self.vectors)
        return known > EXACT and self.unsieved > max(_TAIL, known // _TAIL_SHARE)

    def changed(self, added: Vector) -> Self:
        """Return the index with `added`, `(n, dim)` float32, in the slots that follow."""
        if not len(added):
            return self
        signs = sketched(added)
        known = self if len(self.vectors) else self.of(Growing.empty(np.float32, added.shape[1]))
        return replace(self, vectors=known.vectors.extended(added), sketches=known.sketches.extended(signs))

    def sieved(self, live: Allowed, stopped: Callable[[], bool]) -> Self:
        """Return the same index with a sieve for all its vectors, or itself when `stopped`."""
        vectors = self.vectors.items
        if self.sieve is None:
            sieve = Sieve.of(vectors, np.flatnonzero(live), stopped)
        else:
            sieve = self.sieve.extended(vectors, stopped)
        return self if sieve is None else replace(self, sieve=sieve)

    def compacted(self, live: Allowed, stopped: Callable[[], bool]) -> Self:
        """Return the index without the vectors of documents that are gone."""
        vectors = self.vectors.items[live]
        sieve = None if self.sieve is None or len(vectors) <= EXACT else self.sieve.again(vectors, stopped)
        return type(self)(Growing.of(vectors), Growing.of(self.sketches.items[live]), sieve)

    def followed_by(self, before: Self, after: Self) -> Self:
        """Return the index that this one becomes by the changes that led from `before`, what it was made from."""
        late = after.vectors.items[len(before.vectors) :]
        same = len(self.vectors) == len(before.vectors)
        return replace(self, vectors=after.vectors, sketches=after.sketches) if same else self.changed(late)

    def search(
        self, queries: Sequence[Vector], limits: Sequence[int], allowed: Sequence[Allowed]
    ) -> list[tuple[Slots, Vector]]:
        """Find the nearest vectors.

        Args:
            queries: one `(dim,)` float32 each.
            limits: slots wanted for each query, at least 1.
            allowed: for each, `(slots,)`, which may be found; False for those that are gone. Queries that share one
                should share the array.

        Returns:
            For each query its `limit` best slots, ascending, or all there are, and their inner products; of equal ones
            the lower slots.
        """
        found: dict[int, tuple[Slots, Vector]] = {}
        for places, may in _alike(allowed):
            asked = np.ascontiguousarray([queries[at] for at in places])
            wanted = int(max(limits[at] for at in places) * _SPARE) + _SPARE_AT_LEAST
            for at, query, near in zip(places, asked, self._candidates(asked, wanted, may), strict=True):
                found[at] = best(near, products(query, self.vectors.items, near), limits[at])
        return [found[at] for at in range(len(queries))]

    def products(self, query: Vector, slots: Slots) -> Vector:
        """Return the inner products of a query, `(dim,)`, with the vectors of some slots, `(n,)`."""
        return products(np.ascontiguousarray(query), self.vectors.items, slots)

    def _candidates(self, queries: Vector, wanted: int, allowed: Allowed) -> list[Slots]:
        """Return slots for each query, `(m, dim)`, among which its `wanted` best are, or nearly so."""
        sieve = self.sieve
        if sieve is None:
            return self._compared(queries, wanted, allowed)
        if np.count_nonzero(allowed) <= EXACT:
            return self._likely(queries, wanted, np.flatnonzero(allowed))
        if not sieve.worthwhile(wanted):
            return self._compared(queries, wanted, allowed)
        found = sieve.search(queries, wanted, allowed[: sieve.covered])
        if not self.unsieved:
            return [slots[slots >= 0] for slots in found]
        newest = self._compared(queries, wanted, allowed, sieve.covered)
        return [np.concatenate((old[old >= 0], new)) for old, new in zip(found, newest, strict=True)]

    def _likely(self, queries: Vector, wanted: int, slots: Slots) -> list[Slots]:
        """Return candidates of each query among some slots, ascending, by their signs; all where these say little."""
        most = max(_LIKELY, _LIKELY_SHARE * wanted)
        if len(slots) <= most or queries.shape[1] < FEWEST_DIMENSIONS:
            return [slots] * len(queries)
        signs = np.ascontiguousarray(self.sketches.items.take(slots, axis=0).T)
        return [slots[np.sort(likely(query, signs, most))] for query in queries]

    def _compared(self, queries: Vector, wanted: int, allowed: Allowed, first: int = 0) -> list[Slots]:
        """Return the slots of the `wanted` best vectors of those from `first` on, or of all."""
        slots = np.flatnonzero(allowed[first:])
        if len(slots) <= wanted:
            return [slots + first] * len(queries)
        vectors = self.vectors.items[first:]
        if len(slots) * _SPARSE < len(vectors):
            scores = np.array([products(query, vectors, slots) for query in queries])
        else:
            scores = all_products(queries, vectors)
            scores = scores if len(slots) == len(vectors) else scores[:, slots]
        return [best(slots, row, wanted)[0] + first for row in scores]


def all_products(queries: Vector, vectors: Vector) -> Vector:
    """Return the inner products of queries, `(m, dim)`, with every vector, `(n, dim)`, as `(m, n)`.

    In matrix products so small that the library behind them keeps to the caller's thread: its threads would get into
    each other's way when searches do.
    """
    if len(queries) == 1:
        alone: Vector = np.vecdot(vectors, queries[0])[None]
        return alone
    scores = np.empty((len(queries), len(vectors)), np.float32)
    for start in range(0, len(queries), _QUERIES):
        some = np.ascontiguousarray(queries[start : start + _QUERIES].T)
        rows = max(1, _ONE_THREAD // some.size)
        whole = len(vectors) // rows * rows
        blocks = vectors[:whole].reshape(-1, rows, vectors.shape[1]) @ some
        scores[start : start + _QUERIES, :whole] = blocks.reshape(whole, some.shape[1]).T
        scores[start : start + _QUERIES, whole:] = (vectors[whole:] @ some).T
    return scores


def _alike(allowed: Sequence[Allowed]) -> Iterable[tuple[list[int], Allowed]]:
    """Return the positions of queries that share what they may find."""
    groups: dict[int, tuple[list[int], Allowed]] = {}
    for at, may in enumerate(allowed):
        groups.setdefault(id(may), ([], may))[0].append(at)
    return groups.values()
