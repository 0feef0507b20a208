"""Fakes and a controllable clock, for tests here and in code built on this library; no module imports it."""

import hashlib
from collections.abc import Sequence

import numpy as np

from niruhybrid import analysis
from niruhybrid.types import Vector

__all__ = ("HashEncoder", "ManualClock")


class ManualClock:
    """A monotonic clock that stands still until it is told to move.

    Attributes:
        now: the current time, in seconds.
    """

    def __init__(self, start: float = 0.0) -> None:
        self.now = start

    def __call__(self) -> float:
        """Return the current time, in seconds."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Move on by `seconds` and return the new time.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"`seconds` is {seconds}: a monotonic clock never goes back")
        self.now += seconds
        return self.now


class HashEncoder:
    """An encoder without a model: each term is a fixed pseudo-random direction, a text is their sum.

    Texts that share terms are near each other, the same text always gets the same vector, and nothing is loaded.

    Attributes:
        dimension: length of the vectors.
        calls: the batches it was given, in order.
    """

    def __init__(self, dimension: int = 64) -> None:
        self.dimension = dimension
        self.calls: list[tuple[str, ...]] = []
        self._directions: dict[str, Vector] = {}

    def encode(self, texts: Sequence[str], /) -> Vector:
        """Return `(n, dimension)` float32 unit vectors, in the texts' order."""
        self.calls.append(tuple(texts))
        rows = [np.sum([self._direction(term) for term in self.terms(text) or ["\0"]], axis=0) for text in texts]
        matrix = np.array(rows, np.float32).reshape(len(texts), self.dimension)
        unit: Vector = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        return unit

    def terms(self, text: str, /) -> list[str]:
        """Return the text's lexical terms."""
        return analysis.terms(text)

    def _direction(self, term: str) -> Vector:
        if term not in self._directions:
            seed = int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "little")
            self._directions[term] = np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)
        return self._directions[term]
