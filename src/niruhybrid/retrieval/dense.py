"""The dense index: inner products with every vector while there are few, with the likely ones when there are many.

Like all derived indexes it is a value: a change makes a new one and leaves the old as it was. Vectors are known by
slot, their place in the order of writing. From 16,384 on a `Sieve` picks the candidates among all but the newest, which
are always compared; all scores are exact. Searches that may find fewer documents than that compare each of these.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.growing import Growing
from niruhybrid.retrieval.matching import best
from niruhybrid.retrieval.sieve import Sieve, products
from niruhybrid.types import Vector

__all__ = ("DenseIndex",)

Slots = NDArray[np.int64]
Allowed = NDArray[np.bool_]

EXACT = 16_384
"""Vectors up to which every one is compared."""

_TAIL, _TAIL_SHARE = 2048, 128  # newest vectors beside the sieve: so many, or a share of all
_SPARSE = 4  # below a quarter it is cheaper to pick vectors than to pass over the others
_SPARE = 1.25  # the sieve's order is not exact


@dataclass(frozen=True, slots=True, eq=False)
class DenseIndex:
    """Vectors by slot.

    Attributes:
        vectors: `(slots, dim)` float32.
        sieve: finds candidates among the first of them; None while there are few.
    """

    vectors: Growing[np.float32]
    sieve: Sieve | None = None

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
        empty = Growing[np.float32].empty(np.float32, added.shape[1])
        return replace(self, vectors=(self.vectors if len(self.vectors) else empty).extended(added))

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
        return type(self)(Growing.of(vectors), sieve)

    def followed_by(self, before: Self, after: Self) -> Self:
        """Return the index that this one becomes by the changes that led from `before`, what it was made from."""
        late = after.vectors.items[len(before.vectors) :]
        same = len(self.vectors) == len(before.vectors)
        return replace(self, vectors=after.vectors) if same else self.changed(late)

    def search(
        self, queries: Sequence[Vector], limits: Sequence[int], allowed: Sequence[Allowed]
    ) -> list[dict[int, float]]:
        """Find the nearest vectors.

        Args:
            queries: one `(dim,)` float32 each.
            limits: slots wanted for each query, at least 1.
            allowed: for each, `(slots,)`, which may be found; False for those that are gone.

        Returns:
            For each query its `limit` best slots, or all there are, with their inner products; of equal ones the lower
            slots.
        """
        found: list[dict[int, float]] = [{} for _ in queries]
        for places, may in _alike(allowed):
            asked = [np.ascontiguousarray(queries[at]) for at in places]
            wanted = [limits[at] for at in places]
            count = int(np.count_nonzero(may))
            pick = self._likely if self.sieve and count > EXACT else self._exact
            for at, candidates in zip(places, pick(asked, wanted, may), strict=True):
                found[at] = candidates
        return found

    def _exact(self, queries: Sequence[Vector], limits: Sequence[int], allowed: Allowed) -> Iterable[dict[int, float]]:
        slots = np.flatnonzero(allowed)
        vectors = self.vectors.items
        for query, limit in zip(queries, limits, strict=True):
            if not len(slots):
                yield {}
            elif len(slots) * _SPARSE < len(vectors):
                yield _best(slots, products(query, vectors, slots), limit)
            else:
                yield _best(slots, _all_products(query, vectors)[slots], limit)

    def _likely(self, queries: Sequence[Vector], limits: Sequence[int], allowed: Allowed) -> Iterable[dict[int, float]]:
        sieve = self.sieve
        if sieve is None:
            return
        vectors, tail = self.vectors.items, np.flatnonzero(allowed[sieve.covered :])
        wanted = int(max(limits) * _SPARE)
        for query, limit, picked in zip(
            queries, limits, sieve.search(np.array(queries), wanted, allowed[: sieve.covered]), strict=True
        ):
            old = picked[picked >= 0]
            new = _all_products(query, vectors[sieve.covered :])[tail]
            scores = np.concatenate((products(query, vectors, old), new))
            yield _best(np.concatenate((old, tail + sieve.covered)), scores, limit)


def _all_products(query: Vector, vectors: Vector) -> Vector:
    """Return the inner products of a query with every vector.

    Not by a matrix product: its threads get into each other's way when searches do, and one query gains nothing.
    """
    scores: Vector = np.vecdot(vectors, query)
    return scores


def _best(slots: Slots, scores: Vector, limit: int) -> dict[int, float]:
    slots, scores = best(slots, scores, limit)
    return dict(zip(slots.tolist(), scores.tolist(), strict=True))


def _alike(allowed: Sequence[Allowed]) -> Iterable[tuple[list[int], Allowed]]:
    """Return the positions of queries that share what they may find."""
    groups: dict[int, tuple[list[int], Allowed]] = {}
    for at, may in enumerate(allowed):
        groups.setdefault(id(may), ([], may))[0].append(at)
    return groups.values()
