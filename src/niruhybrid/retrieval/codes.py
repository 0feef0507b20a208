"""Vectors in eight bits a coordinate: inner products of very many with a few, at the most, at a third of the price.

A vector is its code times a unit, and an error whose length is known; so the product of two codes is as far from the
product of their vectors as Cauchy and Schwarz allow these errors, which is a hundredth for unit vectors.
"""

from typing import Any, NamedTuple, Self

import numkong
import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.growing import Growing
from niruhybrid.types import Vector

__all__ = ("Codes", "Few", "Products")

Floats = NDArray[Any]

_MOST = 127  # of a code


class Few(NamedTuple):
    """A few vectors, ready to be multiplied with many.

    Attributes:
        packed: their codes.
        unit: of all their codes.
        error: length of the longest error.
        length: of the longest vector.
    """

    packed: numkong.PackedMatrix
    unit: float
    error: float
    length: float

    @classmethod
    def of(cls, vectors: Vector) -> Self:
        """Return some vectors, `(m, dim)` with m at least 1, ready."""
        unit = float(_units(np.abs(vectors).max()))
        codes, errors = _coded(vectors, unit)
        lengths = np.linalg.norm(vectors, axis=1)
        return cls(numkong.dots_pack(codes), unit, float(errors.max()), float(lengths.max()))


class Products(NamedTuple):
    """Inner products of many vectors with a few: each is `units * products` at the most, but for `margins`.

    Attributes:
        products: of the codes, `(n, m)` int32.
        units: `(n,)` float64, above 0.
        margins: `(n,)` float64, what they may be wrong by.
    """

    products: NDArray[np.int32]
    units: Floats
    margins: Floats


class Codes:
    """Coded vectors, in the order of `add`. Not thread-safe.

    Args:
        size: so many vectors are there at first, all zeros.
        dimension: of each vector.
    """

    def __init__(self, size: int, dimension: int) -> None:
        self._codes = Growing.of(np.zeros((size, dimension), np.int8))
        self._measures = Growing.of(np.tile([1.0, 0.0, 0.0], (size, 1)))  # unit, length of the error, length

    def add(self, vector: Vector) -> None:
        """Add a vector, `(dim,)`."""
        unit = float(_units(np.abs(vector).max()))
        codes, errors = _coded(vector[None], unit)
        self._codes = self._codes.extended(codes)
        self._measures = self._measures.extended([(unit, errors[0], np.linalg.norm(vector))])

    def compact(self, kept: NDArray[np.bool_]) -> None:
        """Close up the places of vectors that are not kept."""
        self._codes, self._measures = (Growing.of(one.items[kept]) for one in (self._codes, self._measures))

    def products(self, own: slice, few: Few) -> Products:
        """Return the products of some vectors with a few."""
        units, errors, lengths = self._measures.items[own].T
        products = np.asarray(numkong.dots_packed(self._codes.items[own], few.packed))
        return Products(products, units * few.unit, errors * few.length + (lengths + errors) * few.error)


def _units(peaks: Floats) -> Floats:
    """Return what one step of a code stands for, where no coordinate is above the peak.

    It is 1 for a peak so small that a step would round to zero: all codes are zero then, and the error is the length.
    """
    return np.where(peaks > _MOST * np.finfo(np.float32).tiny, peaks / _MOST, 1.0)


def _coded(vectors: Vector, unit: float) -> tuple[NDArray[np.int8], Floats]:
    """Return the codes of vectors, and the lengths of their errors."""
    codes = np.rint(vectors / unit)
    errors = np.linalg.norm(vectors - codes * unit, axis=1)
    return codes.astype(np.int8), errors
