"""What came of a load: counts, percentiles, the course of things. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from niruhybrid.load.drive import UNSENT, Kind, Sample

__all__ = ("PERCENTILES", "recent", "summary")

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def summary(samples: Sequence[Sample], seconds: float) -> dict[str, Any]:
    """Return the figures of each kind of request, JSON-ready; times in milliseconds, from when a request was due.

    Only whole answers have latencies. `unsent` is how many were given up because too many were under way; `late` is how
    far behind its own plan the load was when it sent, because no connection was free, or because this machine was too
    slow to send in time.
    """
    kinds: tuple[Kind, ...] = ("query", "ingest")
    return {
        "seconds": round(seconds, 3),
        **{kind: _of([each for each in samples if each.kind == kind], seconds) for kind in kinds},
    }


def recent(samples: Sequence[Sample], last: int = 1000) -> str:
    """Return in a line how many requests have ended, and how long the latest queries took.

    Args:
        samples: all so far, in the order in which they ended.
        last: how many of them count as the latest.
    """
    took = _spread([each.last - each.due for each in samples[-last:] if each.kind == "query" and each.complete])
    times = ", ".join(f"{name} {took[name]:,.1f} ms" for name in ("p50", "p90", "p99") if took)
    return f"{len(samples):,} ended" + (f"; the latest queries: {times}" if took else "")


def _of(planned: Sequence[Sample], seconds: float) -> dict[str, Any]:
    samples = [each for each in planned if each.status != UNSENT]
    whole = [each for each in samples if each.complete]
    counted = Counter("broken" if not each.status else str(each.status) for each in samples)
    return {
        "sent": len(samples),
        "unsent": len(planned) - len(samples),
        "complete": len(whole),
        "complete_per_second": round(len(whole) / seconds, 2),
        "status": dict(sorted(counted.items())),
        "incomplete": sum(each.status == 200 and not each.complete for each in samples),
        "first_byte_ms": _spread([each.first - each.due for each in whole]),
        "done_ms": _spread([each.last - each.due for each in whole]),
        "late_ms": _spread([each.sent - each.due for each in samples]),
        "course": _course(samples, seconds),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    found = np.percentile(values, PERCENTILES)
    named = {f"p{percent:g}": round(float(value) * 1e3, 3) for percent, value in zip(PERCENTILES, found, strict=True)}
    return named | {"max": round(max(values) * 1e3, 3)}


def _course(samples: Sequence[Sample], seconds: float) -> list[dict[str, float]]:
    """Return the figures of each second, by when requests were due."""
    course = []
    for second in range(int(np.ceil(seconds))):
        here = [each for each in samples if second <= each.due < second + 1]
        done = _spread([each.last - each.due for each in here if each.complete])
        course.append({"sent": len(here), "p50": done.get("p50", 0.0), "p99": done.get("p99", 0.0)})
    return course
