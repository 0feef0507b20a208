"""Counters that add up, and the frozen snapshots made of them."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ("BatchStats", "Histogram", "LaneLedger", "LaneStats", "SchedulerStats")

BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often durations fell between bounds.

    Attributes:
        bounds: upper bounds in seconds, inclusive, rising; one more bucket lies above the last.
        counts: durations in each bucket, `len(bounds) + 1` of them.
        sum: seconds in all.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many durations there were."""
        return sum(self.counts)


class _Durations:
    """A histogram being filled."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def snapshot(self) -> Histogram:
        return Histogram(BOUNDS, tuple(self.counts), self.sum)


@dataclass(frozen=True, slots=True)
class BatchStats:
    """What a lane's batches were like.

    Attributes:
        batches: batches given to the encoder, parts of split batches included.
        items: texts in them.
        tokens: estimated tokens in them.
        padded_tokens: the same with each text as long as the longest of its batch.
        released: why each batch was cut where it was: `count`, `tokens`, `time` (short for the queries' sake),
            `drained` (there was no more) or `split` (part of a batch that failed).
        encode: seconds each batch took.
    """

    batches: int
    items: int
    tokens: int
    padded_tokens: int
    released: Mapping[str, int]
    encode: Histogram

    @property
    def padding_waste(self) -> float:
        """Share of the padded tokens that was padding, 0 to 1."""
        return 1.0 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0


@dataclass(frozen=True, slots=True)
class LaneStats:
    """A lane's counters at one instant.

    Always: offered = delivered + failed + rejected + dropped + cancelled + waiting + in_flight.

    Attributes:
        offered: items handed in, whatever became of them.
        delivered: items that ended with a result.
        failed: items that ended with an error of their own, by reason.
        rejected: items refused at the door, by reason.
        dropped: items accepted and then given up, by reason (`deadline`, `superseded`, `closed`).
        cancelled: items whose caller went away.
        waiting: items accepted and not yet taken.
        in_flight: items being encoded, searched or written.
        waiting_tokens: estimated tokens that wait to be encoded in this lane.
        oldest_age: seconds the oldest waiting item has waited; 0 when none waits.
        shared: items that needed no encode of their own: their text was in flight, or its vector in the cache.
        wait: seconds from acceptance until the item was first taken.
        batch: what the lane's batches were like.
    """

    offered: int
    delivered: int
    failed: Mapping[str, int]
    rejected: Mapping[str, int]
    dropped: Mapping[str, int]
    cancelled: int
    waiting: int
    in_flight: int
    waiting_tokens: int
    oldest_age: float
    shared: int
    wait: Histogram
    batch: BatchStats

    @property
    def balanced(self) -> bool:
        """Whether the counters add up."""
        lost = sum(self.failed.values()) + sum(self.rejected.values()) + sum(self.dropped.values())
        return self.offered == self.delivered + lost + self.cancelled + self.waiting + self.in_flight

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        values = asdict(self)
        values["batch"]["padding_waste"] = self.batch.padding_waste
        return values


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """The scheduler's counters at one instant.

    Attributes:
        interactive: the lane of queries.
        bulk: the lane of generated data.
        token_ceiling: padded tokens a batch may have now; below `max_batch_tokens` after a memory error.
        encoding: batches in the encoder now.
        hung: encodes given up because they did not return in time.
    """

    interactive: LaneStats
    bulk: LaneStats
    token_ceiling: int
    encoding: int
    hung: int

    @property
    def balanced(self) -> bool:
        """Whether every counter of both lanes adds up."""
        return self.interactive.balanced and self.bulk.balanced

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "interactive": self.interactive.to_dict(),
            "bulk": self.bulk.to_dict(),
            "token_ceiling": self.token_ceiling,
            "encoding": self.encoding,
            "hung": self.hung,
        }


class LaneLedger:
    """A lane's counters, as the scheduler keeps them."""

    __slots__ = (
        "_batches",
        "_encode",
        "_items",
        "_padded",
        "_released",
        "_tokens",
        "_wait",
        "cancelled",
        "delivered",
        "dropped",
        "failed",
        "in_flight",
        "offered",
        "rejected",
        "shared",
        "waiting",
    )

    def __init__(self) -> None:
        self.offered = self.delivered = self.cancelled = self.waiting = self.in_flight = self.shared = 0
        self.failed: dict[str, int] = {}
        self.rejected: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self._released: dict[str, int] = {}
        self._batches = self._items = self._tokens = self._padded = 0
        self._wait = _Durations()
        self._encode = _Durations()

    def took(self) -> None:
        """Count an item's way from waiting to in flight."""
        self.waiting -= 1
        self.in_flight += 1

    def waited(self, seconds: float) -> None:
        """Count how long an item waited; once for each item, however often its text is encoded."""
        self._wait.counts[bisect_left(BOUNDS, seconds)] += 1
        self._wait.sum += seconds

    def dispatched(self, items: int, tokens: int, longest: int, reason: str) -> None:
        """Count a batch given to the encoder."""
        self._batches += 1
        self._items += items
        self._tokens += tokens
        self._padded += items * longest
        count(self._released, reason)

    def encoded(self, seconds: float) -> None:
        """Count a batch that came back from the encoder."""
        self._encode.add(seconds)

    def snapshot(self, waiting_tokens: int, oldest_age: float) -> LaneStats:
        """Return the counters as they stand."""
        return LaneStats(
            offered=self.offered,
            delivered=self.delivered,
            failed=dict(self.failed),
            rejected=dict(self.rejected),
            dropped=dict(self.dropped),
            cancelled=self.cancelled,
            waiting=self.waiting,
            in_flight=self.in_flight,
            waiting_tokens=waiting_tokens,
            oldest_age=oldest_age,
            shared=self.shared,
            wait=self._wait.snapshot(),
            batch=BatchStats(
                batches=self._batches,
                items=self._items,
                tokens=self._tokens,
                padded_tokens=self._padded,
                released=dict(self._released),
                encode=self._encode.snapshot(),
            ),
        )


def count(counts: dict[str, int], reason: str) -> None:
    """Add one to a reason's count."""
    counts[reason] = counts.get(reason, 0) + 1
