"""The encoders that every contender gets, and the journal of their calls. Importable in a rival's own processes."""

import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

DIMENSION = 8
RECORD, FIELD = "\x1e", "\x1f"  # no text has these
BATCH = 32
BATCH_SECONDS = 0.020
HANG_SECONDS = 60.0  # nobody waits that long: a hang is released when its contender is stopped

_angles = np.arange(65_536, dtype=np.float64)
TABLE = np.zeros((65_536, DIMENSION), np.float32)
TABLE[:, 0], TABLE[:, 1] = np.cos(_angles), np.sin(_angles)


@dataclass(frozen=True, slots=True)
class Spec:
    """Which encoder, in words that can be sent to another process.

    Attributes:
        kind: `timed` sleeps 20 ms a call, `free` returns at once, `hybrid` is our `HybridEncoder`.
        journal: file that each call is written to; None writes none.
    """

    kind: Literal["timed", "free", "hybrid"]
    journal: str | None = None

    def dumps(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> "Spec":
        """Return what `dumps` wrote."""
        return cls(**json.loads(text))


class Call(NamedTuple):
    """One call of the encoder, in monotonic seconds, which are the same in every process of a machine."""

    began: float
    ended: float
    texts: list[str]


def note(journal: int, began: float, texts: Sequence[str]) -> None:
    """Write a call that ends now; one write, so that processes don't mix theirs up."""
    os.write(journal, FIELD.join((repr(began), repr(time.monotonic()), *texts, RECORD)).encode())


def number(text: str) -> int:
    """Return the number that a text ends with: its vector is that row of `TABLE`."""
    return int(text.rsplit(" ", 1)[1]) % len(TABLE)


class Simulated:
    """An encoder whose time is known. A text that starts with the name of a fault brings it about."""

    dimension = DIMENSION

    def __init__(self, spec: Spec) -> None:
        self._seconds = BATCH_SECONDS if spec.kind == "timed" else 0.0
        self._journal = None if spec.journal is None else os.open(spec.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._hung = False
        self.release = threading.Event()

    def encode(self, texts: Sequence[str], /) -> Any:
        """Return a unit row for each text, after the time it takes, however many they are."""
        began = time.monotonic()
        try:
            rows = TABLE[[number(text) for text in texts]]
            if self._seconds:
                time.sleep(max(0.0, began + self._seconds - time.monotonic()))  # the look-up is part of the 20 ms
            return self._faulty(texts, rows)
        finally:
            if self._journal is not None:
                note(self._journal, began, texts)

    def _faulty(self, texts: Sequence[str], rows: Any) -> Any:
        faults = {text.split(" ", 1)[0] for text in texts}
        if "raise" in faults:
            raise ValueError("a text that can't be encoded")
        if "die" in faults:
            raise SystemExit("the encoder is gone")
        if "hang" in faults and not self._hung:
            self._hung = True
            self.release.wait(HANG_SECONDS)
        return rows[:-1] if "short" in faults else rows


class Journalled:
    """`HybridEncoder`, with a journal."""

    def __init__(self, spec: Spec) -> None:
        from niruhybrid.encoding.hybrid_encoder import HybridEncoder

        self._encoder = HybridEncoder()
        self.dimension = self._encoder.dimension
        self.max_tokens = self._encoder.max_tokens
        self._journal = None if spec.journal is None else os.open(spec.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.release = threading.Event()

    def encode(self, texts: Sequence[str], /) -> Any:
        """Return a unit row for each text."""
        began = time.monotonic()
        rows = self._encoder.encode(texts)
        if self._journal is not None:
            note(self._journal, began, texts)
        return rows


def build(spec: Spec) -> "Simulated | Journalled":
    """Return the encoder that `spec` describes."""
    return Journalled(spec) if spec.kind == "hybrid" else Simulated(spec)


def calls(spec: Spec) -> list[Call]:
    """Return what the journal holds, in order of the calls' ends."""
    path = Path(spec.journal or "")
    records = path.read_text().split(FIELD + RECORD)[:-1] if path.is_file() else []
    found = []
    for record in records:
        began, ended, *texts = record.split(FIELD)
        found.append(Call(float(began), float(ended), texts))
    return found
