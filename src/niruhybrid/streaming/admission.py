"""Whether an item may enter: room for it, and time enough before its deadline; and how far streams may read ahead.

Pure: no clock, no lock.
"""

from collections.abc import Mapping, Sequence
from math import ceil, exp, inf

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import DeadlineUnreachableError, NiruError, OverloadedError, QueueFullError
from niruhybrid.streaming.capacity import Capacity
from niruhybrid.streaming.lanes import Batch, Job, Lane, LaneName

__all__ = ("Admission",)

MARGIN = 1.05
"""By how much admission exceeds the predicted time: what it lets in should also arrive."""

_RISE, _FALL = 0.2, 0.01
"""How soon lateness is learnt from items that are late, and forgotten with items that are not."""

_FORGOTTEN = 10.0
"""Seconds in which lateness falls to a third when no item says anything about it."""

_MOST_LATE = 8.0  # times the prediction; beyond, something else is wrong

PLENTY = 10
"""Full batches' time before a deadline that is met without reckoning, while less than a batch waits."""

AHEAD: Mapping[LaneName, float] = {"interactive": 1.0, "bulk": 3.0}
"""Seconds of predicted encoding that may wait in a lane before streams stop handing in more."""

_LEAST_BATCHES = 1  # that may wait in a lane whatever they cost: batches are to fill


class Admission:
    """The decision at the door, as of the lanes and batches it is given a view of.

    The prediction is what the encoder alone would need. How much longer items really take, because the stage after it,
    the callers' threads or other processes want the processor too, is learnt from queries that have ended. Documents
    wait for queries as well, and slow down whoever sends them: of them nothing is learnt. Lateness is forgotten with
    time, so that a burst that has passed does not refuse what comes later.

    Args:
        config: bounds and shares.
        lanes: both lanes.
        encoding: the batches taken and not yet settled.
        capacity: what batches cost.
    """

    __slots__ = (
        "_batch_size",
        "_bulk_share",
        "_capacity",
        "_encoding",
        "_lanes",
        "_late",
        "_late_at",
        "_most_items",
        "_most_tokens",
    )

    def __init__(
        self, config: StreamingConfig, lanes: Mapping[LaneName, Lane], encoding: Sequence[Batch], capacity: Capacity
    ) -> None:
        self._batch_size = config.batch_size
        self._bulk_share = config.bulk_share
        self._most_items = config.queue_size
        self._most_tokens = config.queue_tokens
        self._lanes = lanes
        self._encoding = encoding
        self._capacity = capacity
        self._late = 1.0  # times the predicted seconds that items take, as of `_late_at`
        self._late_at = 0.0

    def took(self, job: Job, now: float) -> None:
        """Learn from an item that ends now, with its result or for its deadline, how true the prediction was."""
        if not job.predicted or job.lane == "bulk":
            return
        late = min((now - job.accepted_at) / job.predicted, _MOST_LATE)
        known = self._lateness(now)
        known += (_RISE if late > known else _FALL) * (late - known)
        self._late, self._late_at = max(known, 1.0), now

    def refusal(self, job: Job, lane: Lane, tokens: int) -> tuple[str, NiruError] | None:
        """Return why an item can't enter, as the ledger's word and the caller's error; None if it can.

        Args:
            job: the item, with its times.
            lane: its lane.
            tokens: what it adds to the lane; 0 if it needs no encode of its own: then only the room for it counts.
        """
        full = self.full(lane, tokens)
        if full is not None:
            return "queue_full", full
        if job.deadline == inf or not tokens or not (lane.works or self._encoding):
            return None  # an idle encoder always tries: a model that is wrong must be able to learn
        now, deadline, capacity = job.accepted_at, job.deadline, self._capacity
        one_batch = lane.works < self._batch_size and lane.tokens + tokens <= capacity.ceiling
        if one_batch and deadline - now > PLENTY * capacity.dearest:
            return None  # by far: no need to reckon
        job.predicted = self._predicted_seconds(lane, tokens, now)
        finish = now + job.predicted * (self._lateness(now) if job.lane == "interactive" else 1.0) * MARGIN
        if finish <= deadline:
            return None
        return "deadline", DeadlineUnreachableError(
            f"{lane.name} item would finish in {finish - now:.3f} s, its deadline is in {deadline - now:.3f} s: "
            f"try again in {finish - deadline:.3f} s or allow it more time",
            retry_after=finish - deadline,
        )

    def full(self, lane: Lane, tokens: int) -> OverloadedError | None:
        """Return why a lane has no room for an item of so many tokens, however long it may wait; None if it has."""
        held = lane.ledger.waiting + lane.ledger.in_flight
        if held >= self._most_items:
            return self._full(lane, f"{held} of {self._most_items} items", "`queue_size`")
        if lane.tokens and lane.tokens + tokens > self._most_tokens:
            return self._full(lane, f"{lane.tokens} of {self._most_tokens} tokens", "`queue_tokens`")
        return None

    def room(self, lane: Lane, now: float) -> bool:
        """Whether what waits in a lane is little enough for streams to hand in more.

        It is bounded by the seconds that encoding it should take, counting the queries' share of them where it is bulk:
        items that come later wait little longer than that, and their stream may be left or slowed down without loss.
        Until a batch of some size has been measured, the prediction is a cautious one.
        """
        batches = self._batches(lane.works, lane.tokens)
        if batches <= _LEAST_BATCHES:
            return True
        return self._waiting_seconds(lane, batches, now) < AHEAD[lane.name]

    def _waiting_seconds(self, lane: Lane, batches: int, now: float) -> float:
        seconds = batches * self._capacity.cautious(lane.tokens / batches)
        return seconds / self._capacity.left_to_bulk(now, self._bulk_share) if lane.name == "bulk" else seconds

    def _lateness(self, now: float) -> float:
        """Return how many times the predicted seconds queries take."""
        return 1.0 + (self._late - 1.0) * exp(min(0.0, self._late_at - now) / _FORGOTTEN)

    def _full(self, lane: Lane, held: str, setting: str) -> OverloadedError:
        wait = self._queue_seconds(lane, 0)
        return QueueFullError(
            f"the {lane.name} lane holds {held}: try again in {wait:.3f} s or raise {setting}", retry_after=wait
        )

    def _predicted_seconds(self, lane: Lane, tokens: int, now: float) -> float:
        seconds = self._capacity.expected
        ends = [batch.started + seconds(batch.tokens) for batch in self._encoding if batch.returned is None]
        running = max(0.0, max(ends, default=now) - now)
        queue = self._queue_seconds(lane, tokens)
        other = self._lanes["bulk" if lane.name == "interactive" else "interactive"]
        if lane.name == "bulk":
            queue = queue / self._capacity.left_to_bulk(now, self._bulk_share) + self._queue_seconds(other, 0)
        elif other.works:
            queue /= 1.0 - self._bulk_share
        return running + queue

    def _queue_seconds(self, lane: Lane, tokens: int) -> float:
        """Return how long a lane's waiting texts, and one of `tokens` more, should take to encode."""
        works, total = lane.works + (tokens > 0), lane.tokens + tokens
        if not works:
            return 0.0
        batches = self._batches(works, total)
        return batches * self._capacity.expected(total / batches)

    def _batches(self, works: int, tokens: int) -> int:
        return max(ceil(works / self._batch_size), ceil(tokens / self._capacity.ceiling))
