"""Vectors as the signs of their coordinates: which of some thousands are worth an exact look. Pure.

A query is set against 1 bit a coordinate, with its own coordinates rounded to 3 bits and a sign, so that counting bits
does it all, after Gao and Long, "RaBitQ: quantizing high-dimensional vectors with a theoretical error bound for
approximate nearest neighbor search" (Proceedings of the ACM on Management of Data 2, 2024).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from niruhybrid.types import Vector

__all__ = ("FEWEST_DIMENSIONS", "Sketches", "likely", "sketched")

Sketches = NDArray[np.uint64]

FEWEST_DIMENSIONS = 256
"""Signs of fewer say too little."""

_WORD = 64
_BITS = 3
_AT_ONCE = 8192


def sketched(vectors: NDArray[Any]) -> Sketches:
    """Return the signs of vectors, `(n, dim)`, as `(n, words)`: 64 coordinates a word, the last one filled up."""
    count, dim = vectors.shape
    signs = np.zeros((count, -(-dim // _WORD) * _WORD // 8), np.uint8)
    for start in range(0, count, _AT_ONCE):
        packed = np.packbits(vectors[start : start + _AT_ONCE] > 0, axis=1)
        signs[start : start + _AT_ONCE, : packed.shape[1]] = packed
    return signs.view(np.uint64)


def likely(query: Vector, sketches: Sketches, limit: int) -> NDArray[Any]:
    """Return the positions of about the nearest of some vectors, in no order; all if there are no more than `limit`.

    Args:
        query: `(dim,)`.
        sketches: `(words, n)`, what `sketched` returned of the vectors, transposed and C-contiguous.
        limit: how many.
    """
    if sketches.shape[1] <= limit:
        return np.arange(sketches.shape[1])
    sizes = np.abs(query)
    steps = np.rint(sizes * (((1 << _BITS) - 1) / max(float(sizes.max()), 1e-30))).astype(np.uint8)
    differing = sketches ^ sketched(query[None])[0][:, None]
    far = np.zeros(sketches.shape[1], np.uint32)
    for bit in range(_BITS):
        plane = sketched(((steps >> bit) & 1)[None])[0]
        far += np.bitwise_count(differing & plane[:, None]).sum(axis=0, dtype=np.uint32) << np.uint32(bit)
    nearest: NDArray[Any] = np.argpartition(far, limit)[:limit]
    return nearest
