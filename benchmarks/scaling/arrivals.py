"""When queries come, in simulated seconds: at random, or as people asked a language model of late."""

import csv
import gzip
import random
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

__all__ = ("Trace", "poisson", "read_trace")


def poisson(rate: Callable[[float], float], chance: random.Random) -> Iterator[float]:
    """Yield moments without end, at random, so many a second on the mean; the rate may change with time, in steps."""
    now = 0.0
    while True:
        now += chance.expovariate(rate(now))
        yield now


class Trace(NamedTuple):
    """What a service was asked in an hour.

    Attributes:
        moments: seconds from the first request, rising.
        generated: tokens of the text that was generated for each.
    """

    moments: list[float]
    generated: list[int]

    def at_rate(self, rate: float) -> Iterator[float]:
        """Yield the moments, so many a second on the mean: its hour made shorter or longer, its bursts with it."""
        factor = len(self.moments) / self.moments[-1] / rate
        return (moment * factor for moment in self.moments)


def read_trace(path: Path) -> Trace:
    """Return the requests of a trace in the form of the Azure LLM inference trace of 2023."""
    moments: list[float] = []
    generated: list[int] = []
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            moment = datetime.fromisoformat(row["TIMESTAMP"][:26])  # its seventh digit is one too many
            moments.append(moment.timestamp())
            generated.append(int(row["GeneratedTokens"]))
    return Trace([each - moments[0] for each in moments], generated)
