"""The dense index: exact inner products over one growing matrix.

An index is a value: a change makes a new one and leaves the old as it was, so whoever searches keeps one state without
a lock. Old and new share the matrix: new rows go behind those the old one knows. Therefore changes must start from the
newest index, one at a time; a change that is abandoned is simply overwritten by the next.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from niruhybrid.types import Vector

__all__ = ("DenseIndex",)

Slots = NDArray[np.int64]

_FEWEST_SLOTS = 64
_QUERIES_AT_ONCE = 32  # bounds the score matrix: 128 bytes a document
_DEAD_SHARE = 4  # a quarter of dead slots is worth copying the rest


@dataclass(frozen=True, slots=True, eq=False)
class DenseIndex:
    """Vectors by row number, as of one watermark.

    Attributes:
        watermark: the state of the log that it shows.
    """

    watermark: int
    _matrix: Vector  # (capacity, dim); the first `_size` rows are known to this index
    _rows: Slots  # (capacity,), ascending
    _size: int
    _dead: Slots  # known slots whose row is gone, ascending

    @classmethod
    def of(cls, watermark: int, rows: Slots, matrix: Vector) -> Self:
        """Return an index of given vectors, `(n, dim)` float32, under ascending row numbers, `(n,)`."""
        return cls(watermark, matrix, rows, len(rows), np.empty(0, np.int64))

    def __len__(self) -> int:
        return self._size - len(self._dead)

    def changed(self, watermark: int, *, remove: Iterable[int] = (), rows: Sequence[int] = (), vectors: Vector) -> Self:
        """Return the index after a change.

        Args:
            watermark: the state of the log after it.
            remove: rows to forget; each must be there.
            rows: new row numbers, ascending, above all there were.
            vectors: `(len(rows), dim)` float32, C-contiguous.
        """
        gone = np.searchsorted(self._rows[: self._size], np.fromiter(remove, np.int64))
        dead = np.union1d(self._dead, gone)
        matrix, numbers, size = self._matrix, self._rows, self._size
        if len(dead) * _DEAD_SHARE > max(size, _FEWEST_SLOTS):
            matrix, numbers = np.delete(matrix[:size], dead, axis=0), np.delete(numbers[:size], dead)
            size, dead = len(numbers), dead[:0]
        end = size + len(rows)
        if end > len(numbers):
            matrix, numbers = _grown(matrix[:size], numbers[:size], end, vectors.shape[1])
        if end > size:
            matrix[size:end], numbers[size:end] = vectors, rows
        return type(self)(watermark, matrix, numbers, end, dead)

    def search(self, queries: Vector, limits: Sequence[int]) -> list[dict[int, float]]:
        """Find the nearest vectors.

        Args:
            queries: `(m, dim)` float32.
            limits: rows wanted for each query, at least 1.

        Returns:
            For each query its `limit` best rows, or all there are, with their inner products; of equal ones the lower
            rows.
        """
        if not len(self):
            return [{} for _ in limits]
        known, rows = self._matrix[: self._size], self._rows[: self._size]
        found: list[dict[int, float]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            scores = queries[start : start + _QUERIES_AT_ONCE] @ known.T
            scores[:, self._dead] = -np.inf
            asked = limits[start : start + _QUERIES_AT_ONCE]
            found += [_best(line, rows, min(limit, len(self))) for line, limit in zip(scores, asked, strict=True)]
        return found


def _grown(matrix: Vector, rows: Slots, end: int, dim: int) -> tuple[Vector, Slots]:
    """Return copies with room for `end` rows and as many again."""
    capacity = max(_FEWEST_SLOTS, 2 * end)
    wider, longer = np.empty((capacity, dim), np.float32), np.empty(capacity, np.int64)
    wider[: len(rows)], longer[: len(rows)] = matrix if len(rows) else 0.0, rows
    return wider, longer


def _best(scores: Vector, rows: Slots, limit: int) -> dict[int, float]:
    """Return the `limit` best rows and their scores."""
    cut = np.partition(scores, len(scores) - limit)[len(scores) - limit]
    slots = np.flatnonzero(scores >= cut)
    if len(slots) > limit:  # ties at the cut: slots ascend with rows
        slots = np.sort(slots[np.argsort(-scores[slots], kind="stable")[:limit]])
    return dict(zip(rows[slots].tolist(), scores[slots].tolist(), strict=True))
