"""How many replicas there ought to be, by the schedulers' own figures. Pure: time is an argument."""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ("Meter", "policy", "wanted")

BUSY = 0.7
"""The share of its time that an encoder works, at which it has enough to do."""

QUERY_SECONDS = 0.1
"""Seconds of queries that may wait for each replica."""

DATA_SECONDS = 10.0
"""Seconds of generated data that may wait for each replica: nobody waits for it, but it is to be found soon."""


class Meter:
    """Turns a scheduler's counters into load: seconds of work that wait in each lane, and how busy the encoder is.

    Args:
        now: monotonic seconds at which the counters began.
    """

    def __init__(self, now: float) -> None:
        self._read_at = now
        self._encoded = 0.0

    def read(self, processor: Mapping[str, Any], now: float) -> dict[str, float]:
        """Return the load since the last reading.

        Args:
            processor: the counters, as `PipelineStats.processor` has them.
            now: monotonic seconds.

        Returns:
            `busy`, a share of the time, 0 to 1; `query_seconds` and `data_seconds`, what waits, as the encoder has
            worked so far. Before its first batch nothing is known of its speed, and nothing is said to wait.
        """
        lanes = {"query_seconds": processor["interactive"], "data_seconds": processor["bulk"]}
        encoded = sum(lane["batch"]["encode"]["sum"] for lane in lanes.values())
        tokens = sum(lane["batch"]["tokens"] for lane in lanes.values())
        elapsed, worked = now - self._read_at, encoded - self._encoded
        self._read_at, self._encoded = now, encoded
        pace = encoded / tokens if tokens else 0.0  # seconds for each token
        waiting = {name: lane["waiting_tokens"] * pace for name, lane in lanes.items()}
        return {"busy": min(1.0, worked / elapsed) if elapsed > 0 else 0.0, **waiting}


def wanted(busy: float, query_seconds: float, data_seconds: float) -> int:
    """Return how many replicas a load asks for; 0 for none.

    Args:
        busy: shares of the time that encoders work, summed over the replicas.
        query_seconds: seconds of queries that wait, summed likewise.
        data_seconds: seconds of generated data that wait, summed likewise.
    """
    return max(math.ceil(busy / BUSY), math.ceil(query_seconds / QUERY_SECONDS), math.ceil(data_seconds / DATA_SECONDS))


def policy(context: Any) -> tuple[int, dict[str, Any]]:
    """Decide for Ray Serve, from what `Replica.record_autoscaling_stats` of each replica has told it.

    Ray Serve keeps the number within its bounds, and waits before it changes anything.
    """
    told = context.aggregated_metrics or {}
    busy, queries, data = (sum(told.get(name, {}).values()) for name in ("busy", "query_seconds", "data_seconds"))
    return wanted(busy, queries, data), {}
