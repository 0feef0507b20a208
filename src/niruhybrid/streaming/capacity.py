"""What the encoder can take: how long a batch lasts, how large it may be, and whether that is still believed. Pure."""

from math import exp

from niruhybrid.config import StreamingConfig
from niruhybrid.streaming.cost import CostModel

__all__ = ("STALE", "Capacity")

STALE = 1.0
"""Seconds without a finished batch after which the cost model is no longer believed when it rules everything out."""

_CEILING_STEP = 1.05  # a ceiling lowered by a memory error rises by this with each batch that goes well
_LEAST_CEILING = 8.0  # padded tokens

_ASSUMED = 0.0005
"""Seconds that a padded token is assumed to cost until batches have been measured; a slow processor needs less."""

_MEASURED = 0.25  # of the ceiling: a batch of at least so many tokens must have been measured before speeds are trusted
_MEMORY = 5.0  # seconds over which the encoder time that queries take is averaged


class Capacity:
    """The cost model, and the ceiling of a batch.

    Args:
        config: the largest batch.

    Attributes:
        model: seconds by tokens.
        ceiling: padded tokens a batch may have now.
        dearest: seconds that a full batch should take; 0 before the first.
    """

    __slots__ = ("_largest", "_last_learnt", "_most", "_queries", "_queries_at", "ceiling", "dearest", "model")

    def __init__(self, config: StreamingConfig) -> None:
        self.model = CostModel()
        self.ceiling = float(config.max_batch_tokens)
        self.dearest = 0.0
        self._most = float(config.max_batch_tokens)
        self._last_learnt = float("-inf")
        self._largest = 0  # padded tokens of the largest batch so far
        self._queries = 0.0  # share of the recent time in which queries were encoded, as of `_queries_at`
        self._queries_at = 0.0

    def learn(self, tokens: int, seconds: float, now: float) -> None:
        """Take note of a batch that went well."""
        self.model.observe(tokens, seconds)
        self.dearest = max(self.model.seconds(self.ceiling), self.model.seconds(tokens))
        self._last_learnt = now
        self._largest = max(self._largest, tokens)
        if self.ceiling < self._most:
            self.ceiling = min(self.ceiling * _CEILING_STEP, self._most)

    def shrink(self, tokens: int) -> None:
        """Lower the ceiling: a batch of so many tokens did not fit into memory."""
        self.ceiling = max(_LEAST_CEILING, min(self.ceiling, tokens) / 2)

    def stale(self, now: float) -> bool:
        """Whether too long ago was the last batch to rule anything out."""
        return now - self._last_learnt > STALE

    def expected(self, tokens: float) -> float:
        """Return the seconds to reckon with for a batch of `tokens` padded tokens; an assumption before the first."""
        return self.model.seconds(tokens) if self._largest else _ASSUMED * tokens

    def cautious(self, tokens: float) -> float:
        """Return the same, but no less than the assumption as long as only small batches have been measured."""
        expected = self.expected(tokens)
        return expected if self._largest >= _MEASURED * self.ceiling else max(expected, _ASSUMED * tokens)

    def queries_took(self, seconds: float, now: float) -> None:
        """Take note of encoder time that a batch of queries took."""
        self._queries = self._recent(now) + seconds / _MEMORY
        self._queries_at = now

    def left_to_bulk(self, now: float, least: float) -> float:
        """Return the share of encoder time, `least` to 1, that queries have lately left to generated data."""
        return max(least, 1.0 - self._recent(now))

    def _recent(self, now: float) -> float:
        return self._queries * exp((self._queries_at - now) / _MEMORY)
