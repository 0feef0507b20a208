"""Which lane is next, and how long its batch may be: queries first, bulk texts their share of encoder time. Pure."""

from niruhybrid.config import StreamingConfig
from niruhybrid.streaming.capacity import Capacity
from niruhybrid.streaming.lanes import Lane

__all__ = ("ATTENTION", "Turns")

ATTENTION = 1.0
"""Seconds after a query during which bulk batches are kept short, so that the next query waits less."""

_SAVED = 2.0  # bulk batches that can be earned ahead: what is left over after one counts towards the next


class Turns:
    """Takes turns between the lanes; bulk earns encoder time with every batch of queries that goes before it.

    Args:
        config: the share of bulk, how long its batches may be, how far the stage after encoding may fall behind.
        interactive: the lane of queries.
        bulk: the lane of generated data.
        capacity: what a batch costs.

    Attributes:
        last_query: monotonic seconds at which a query was last offered.
    """

    __slots__ = (
        "_batch_size",
        "_behind",
        "_bulk",
        "_bulk_seconds",
        "_bulk_was_last",
        "_capacity",
        "_credit",
        "_earned_each",
        "_interactive",
        "last_query",
    )

    def __init__(self, config: StreamingConfig, interactive: Lane, bulk: Lane, capacity: Capacity) -> None:
        self._interactive = interactive
        self._bulk = bulk
        self._capacity = capacity
        self._batch_size = config.batch_size
        self._behind = 4 * config.batch_size  # a lane whose stage has more to finish pauses
        self._earned_each = config.bulk_share / (1.0 - config.bulk_share)  # seconds, by second of queries
        self._bulk_seconds = config.bulk_batch_time
        self._credit = 0.0
        self._bulk_was_last = False
        self.last_query = float("-inf")

    def next(self, now: float) -> Lane | None:
        """Return the lane to cut a batch from, or None if none has a text that may be encoded now.

        Args:
            now: monotonic seconds.
        """
        interactive, bulk = self._interactive, self._bulk
        asked = interactive.works > 0 and interactive.finishing < self._behind
        fed = bulk.works > 0 and bulk.finishing < self._behind
        if not (asked and fed):
            self._credit = 0.0
            return interactive if asked else bulk if fed else None
        price = self._price(bulk, now)
        if self._credit >= price and not self._bulk_was_last:
            self._credit -= price
            return bulk
        self._credit = min(self._credit + self._price(interactive, now) * self._earned_each, _SAVED * price)
        return interactive

    def budget(self, lane: Lane, now: float) -> tuple[int, bool]:
        """Return the padded tokens a lane's next batch may have, and whether that is short for the queries' sake."""
        most = int(self._capacity.ceiling)
        if lane is self._interactive or now - self.last_query > ATTENTION:
            return most, False
        short = self._capacity.model.tokens_within(self._bulk_seconds, most)
        return short, short < most

    def took(self, lane: Lane) -> None:
        """Take note that a batch was cut from a lane: bulk is never next twice while queries wait."""
        self._bulk_was_last = lane is self._bulk

    def _price(self, lane: Lane, now: float) -> float:
        """Return the seconds that a lane's next batch should take: as many texts of the mean length as it may have."""
        most, _ = self.budget(lane, now)
        mean = lane.tokens / lane.works
        texts = max(1, min(lane.works, self._batch_size, int(most / mean)))
        return max(self._capacity.model.seconds(texts * mean), 1e-6)
