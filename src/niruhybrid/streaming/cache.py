"""A least-recently-used cache of vectors, bounded by bytes. Not thread-safe: its owner locks."""

import sys
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any

from niruhybrid.types import Vector

__all__ = ("CacheStats", "VectorCache")

_ENTRY_BYTES = 200  # what the dictionary and the array headers take besides text and numbers


@dataclass(frozen=True, slots=True)
class CacheStats:
    """A cache's counters at one instant.

    Attributes:
        entries: vectors held.
        bytes: what they take, keys included, as estimated.
        max_bytes: what they may take.
        hits: look-ups that found a vector.
        misses: look-ups that did not.
    """

    entries: int
    bytes: int
    max_bytes: int
    hits: int
    misses: int

    @property
    def hit_rate(self) -> float:
        """Share of the look-ups that found a vector, 0 to 1; 0 before the first."""
        looked = self.hits + self.misses
        return self.hits / looked if looked else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, with `hit_rate`."""
        return {**asdict(self), "hit_rate": self.hit_rate}


class VectorCache:
    """Vectors by text; the least recently used go when the bytes run out.

    Args:
        max_bytes: bytes held at the most; 0 holds nothing.
    """

    __slots__ = ("_bytes", "_entries", "_hits", "_max_bytes", "_misses")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, Vector] = OrderedDict()
        self._bytes = 0
        self._hits = 0
        self._misses = 0

    def get(self, text: str) -> Vector | None:
        """Return the vector of this very text, or None."""
        vector = self._entries.get(text)
        if vector is None:
            self._misses += 1
            return None
        self._hits += 1
        self._entries.move_to_end(text)
        return vector

    def put(self, text: str, vector: Vector) -> None:
        """Keep a vector; one larger than the whole cache is not kept."""
        size = _size(text, vector)
        if size > self._max_bytes or text in self._entries:
            return
        self._entries[text] = vector
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._entries.popitem(last=False))

    def stats(self) -> CacheStats:
        """Return the counters as they stand."""
        return CacheStats(len(self._entries), self._bytes, self._max_bytes, self._hits, self._misses)


def _size(text: str, vector: Vector) -> int:
    return sys.getsizeof(text) + vector.nbytes + _ENTRY_BYTES
