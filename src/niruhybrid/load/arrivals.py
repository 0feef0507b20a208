"""When requests are due, in seconds from the start. Pure."""

import csv
import random
from collections.abc import Iterable, Iterator
from datetime import datetime

from niruhybrid.errors import InvalidSettingError

__all__ = ("poisson", "read_trace", "replayed")


def poisson(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Yield arrivals of people who don't know of each other: `rate` a second on average, until `seconds`."""
    chance = random.Random(seed)  # noqa: S311  # load, not secrets
    at = chance.expovariate(rate)
    while at < seconds:
        yield at
        at += chance.expovariate(rate)


def read_trace(lines: Iterable[str]) -> list[float]:
    """Return the arrivals that a trace's first column has, ascending, in seconds from the first.

    Args:
        lines: CSV with a header; the column holds seconds, or times such as `2023-11-16 18:17:03.9799600`.

    Raises:
        InvalidSettingError: a line has neither, or there are none.
    """
    times = []
    rows = csv.reader(lines)
    next(rows, None)
    for number, row in enumerate(rows, 2):
        if row:
            times.append(_seconds(row[0], number))
    if not times:
        raise InvalidSettingError("the trace has no arrivals: give CSV with a header, times in its first column")
    times.sort()
    return [time - times[0] for time in times]


def replayed(times: Iterable[float], seconds: float, speed: float) -> Iterator[float]:
    """Yield a trace's arrivals `speed` times as fast, until `seconds` of it have been replayed."""
    for time in times:
        if time / speed >= seconds:
            return
        yield time / speed


def _seconds(text: str, number: int) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    whole, _, part = text.strip().removesuffix("Z").partition(".")
    try:
        return datetime.fromisoformat(whole).timestamp() + float(f"0.{part.partition('+')[0] or 0}")
    except ValueError as err:
        raise InvalidSettingError(f"line {number} of the trace is no time ({text!r}): give seconds or dates") from err
