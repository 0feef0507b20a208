"""Arrays of NumPy on their way to PostgreSQL and back, in its binary form: no number becomes a text in between.

A parameter has to say what it is in the statement: `%s::bigint[]`, `%s::vector[]`.
"""

from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

from niruhybrid.types import Vector

__all__ = ("Array", "integers", "register", "vector_of", "vectors")

_INTEGER = 20
"""PostgreSQL's own number of the type `bigint`."""

_VECTOR_HEAD = 4  # bytes before the numbers of a vector


class Array:
    """An array as PostgreSQL reads it."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Array) -> Buffer:
        return obj.data


def register(connection: psycopg.Connection[Any]) -> None:
    """Have a connection take an `Array` as a parameter."""
    connection.adapters.register_dumper(Array, _ArrayDumper)


def integers(values: Any) -> Array:
    """Return whole numbers, a sequence or an array, as a `bigint[]`."""
    numbers = np.asarray(values, np.int64)
    made = np.empty(len(numbers), [("size", ">i4"), ("value", ">i8")])
    made["size"], made["value"] = 8, numbers
    return _array(_INTEGER, made)


def vectors(rows: Vector, kind: int) -> Array:
    """Return vectors, `(n, dim)` float32, as a `vector[]`; `kind` is the type's number in this database."""
    count, dim = rows.shape
    made = np.empty(count, [("size", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("values", ">f4", (dim,))])
    made["size"], made["dim"], made["unused"], made["values"] = _VECTOR_HEAD + 4 * dim, dim, 0, rows
    return _array(kind, made)


def vector_of(data: bytes) -> Vector:
    """Return the vector that PostgreSQL has sent, `(dim,)` float32."""
    return np.frombuffer(data, ">f4", offset=_VECTOR_HEAD).astype(np.float32)


def _array(kind: int, items: NDArray[Any]) -> Array:
    head = np.array([1 if len(items) else 0, 0, kind, len(items), 1], ">i4")
    return Array((head if len(items) else head[:3]).tobytes() + items.tobytes())
