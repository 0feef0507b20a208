"""Whether an item may enter: room for it, and time enough before its deadline. Pure: no clock, no lock."""

from collections.abc import Mapping, Sequence
from math import ceil

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import DeadlineUnreachableError, NiruError, OverloadedError, QueueFullError
from niruhybrid.streaming.capacity import Capacity
from niruhybrid.streaming.lanes import Batch, Job, Lane, LaneName

__all__ = ("Admission",)

MARGIN = 1.05
"""By how much admission exceeds the predicted time: what it lets in should also arrive."""

_RISE, _FALL = 0.2, 0.01
"""How soon lateness is learnt, and how soon forgotten: near the most of the last hundred items."""

_MOST_LATE = 8.0  # times the prediction; beyond, something else is wrong

PLENTY = 10
"""Full batches' time before a deadline that is met without reckoning, while less than a batch waits."""


class Admission:
    """The decision at the door, as of the lanes and batches it is given a view of.

    The prediction is what the encoder alone would need. How much longer items really take, because the stage after it,
    the callers' threads or other processes want the processor too, is learnt from queries that have ended. Documents
    wait for queries as well, and slow down whoever sends them: of them nothing is learnt.

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
        self._late = 1.0  # times the predicted seconds that items take

    def took(self, job: Job, now: float) -> None:
        """Learn from an item that ends now, with its result or for its deadline, how true the prediction was."""
        if not job.predicted or job.lane == "bulk":
            return
        late = min((now - job.accepted_at) / job.predicted, _MOST_LATE)
        self._late += (_RISE if late > self._late else _FALL) * (late - self._late)
        self._late = max(self._late, 1.0)

    def refusal(self, job: Job, lane: Lane, tokens: int) -> tuple[str, NiruError] | None:
        """Return why an item can't enter, as the ledger's word and the caller's error; None if it can.

        Args:
            job: the item, with its times.
            lane: its lane.
            tokens: what it adds to the lane; 0 if it needs no encode of its own: then only the room for it counts.
        """
        held = lane.ledger.waiting + lane.ledger.in_flight
        if held >= self._most_items:
            return "queue_full", self._full(lane, f"{held} of {self._most_items} items", "`queue_size`")
        if lane.tokens and lane.tokens + tokens > self._most_tokens:
            return "queue_full", self._full(lane, f"{lane.tokens} of {self._most_tokens} tokens", "`queue_tokens`")
        if not tokens or not (lane.works or self._encoding):
            return None  # an idle encoder always tries: a model that is wrong must be able to learn
        now, deadline, capacity = job.accepted_at, job.deadline, self._capacity
        one_batch = lane.works < self._batch_size and lane.tokens + tokens <= capacity.ceiling
        if one_batch and deadline - now > PLENTY * capacity.dearest:
            return None  # by far: no need to reckon
        job.predicted = self._predicted_seconds(lane, tokens, now)
        finish = now + job.predicted * (self._late if job.lane == "interactive" else 1.0) * MARGIN
        if finish <= deadline:
            return None
        return "deadline", DeadlineUnreachableError(
            f"{lane.name} item would finish in {finish - now:.3f} s, its deadline is in {deadline - now:.3f} s: "
            f"try again in {finish - deadline:.3f} s or allow it more time",
            retry_after=finish - deadline,
        )

    def _full(self, lane: Lane, held: str, setting: str) -> OverloadedError:
        wait = self._queue_seconds(lane, 0)
        return QueueFullError(
            f"the {lane.name} lane holds {held}: try again in {wait:.3f} s or raise {setting}", retry_after=wait
        )

    def _predicted_seconds(self, lane: Lane, tokens: int, now: float) -> float:
        seconds = self._capacity.model.seconds
        ends = [batch.started + seconds(batch.tokens) for batch in self._encoding if batch.returned is None]
        running = max(0.0, max(ends, default=now) - now)
        queue = self._queue_seconds(lane, tokens)
        other = self._lanes["bulk" if lane.name == "interactive" else "interactive"]
        if lane.name == "bulk":
            queue += self._queue_seconds(other, 0)
        elif other.works:
            queue /= 1.0 - self._bulk_share
        return running + queue

    def _queue_seconds(self, lane: Lane, tokens: int) -> float:
        """Return how long a lane's waiting texts, and one of `tokens` more, should take to encode."""
        works, total = lane.works + (tokens > 0), lane.tokens + tokens
        if not works:
            return 0.0
        batches = max(ceil(works / self._batch_size), ceil(total / self._capacity.ceiling))
        return batches * self._capacity.model.seconds(total / batches)
