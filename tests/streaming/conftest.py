"""Encoders and stores that do as a test tells them."""

import re
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from niruhybrid.testing import HashEncoder
from niruhybrid.types import Vector
from niruhybrid.windows import Tokens, Window

WAIT = 30.0  # seconds a test waits for what should come at once


class GatedEncoder(HashEncoder):
    """Encodes only while its gate is open; `entered` tells when a call has begun."""

    def __init__(self) -> None:
        super().__init__(8)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def encode(self, texts: Sequence[str], /) -> Vector:
        self.entered.release()
        assert self.gate.wait(WAIT)
        return super().encode(texts)

    def hold(self) -> None:
        """Let the next call begin and wait."""
        self.gate.clear()

    def await_call(self) -> None:
        """Wait until a call has begun."""
        assert self.entered.acquire(timeout=WAIT)


class FaultyEncoder(HashEncoder):
    """Raises for texts with `poison`, gives NaN for `nan`, zeros for `zero`, a row short for batches with `short`."""

    def encode(self, texts: Sequence[str], /) -> Vector:
        rows = super().encode(texts)
        if any("poison" in text for text in texts):
            raise RuntimeError("the model met a text it can't bear")
        for row, text in zip(rows, texts, strict=True):
            row[:] = np.nan if "nan" in text else 0.0 if "zero" in text else row
        return rows[:-1] if any("short" in text for text in texts) else rows


@pytest.fixture
def gated() -> GatedEncoder:
    return GatedEncoder()


@pytest.fixture
def faulty() -> FaultyEncoder:
    return FaultyEncoder(8)


class WindowedEncoder(HashEncoder):
    """Tells of its tokens, words and marks, and reads 34 at a time."""

    max_tokens = 34

    def tokenize(self, text: str, /) -> Tokens:
        found = list(re.finditer(r"\w+|[^\w\s]", text))
        ids = [int.from_bytes(each.group().encode()[:3], "little") for each in found]
        return Tokens(ids, [each.start() for each in found], list(range(len(found))))

    def encode(self, texts: Sequence[str | Window], /) -> Vector:
        return super().encode([text if isinstance(text, str) else str(text.ids) for text in texts])

    def count_tokens(self, texts: list[str], /) -> list[int]:
        return [len(self.tokenize(text).ids) + 2 for text in texts]
