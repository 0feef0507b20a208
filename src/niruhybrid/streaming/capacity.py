"""What the encoder can take: how long a batch lasts, how large it may be, and whether that is still believed. Pure."""

from niruhybrid.config import StreamingConfig
from niruhybrid.streaming.cost import CostModel

__all__ = ("STALE", "Capacity")

STALE = 1.0
"""Seconds without a finished batch after which the cost model is no longer believed when it rules everything out."""

_CEILING_STEP = 1.05  # a ceiling lowered by a memory error rises by this with each batch that goes well
_LEAST_CEILING = 8.0  # padded tokens


class Capacity:
    """The cost model, and the ceiling of a batch.

    Args:
        config: the largest batch.

    Attributes:
        model: seconds by tokens.
        ceiling: padded tokens a batch may have now.
        dearest: seconds that a full batch should take; 0 before the first.
    """

    __slots__ = ("_last_learnt", "_most", "ceiling", "dearest", "model")

    def __init__(self, config: StreamingConfig) -> None:
        self.model = CostModel()
        self.ceiling = float(config.max_batch_tokens)
        self.dearest = 0.0
        self._most = float(config.max_batch_tokens)
        self._last_learnt = float("-inf")

    def learn(self, tokens: int, seconds: float, now: float) -> None:
        """Take note of a batch that went well."""
        self.model.observe(tokens, seconds)
        self.dearest = max(self.model.seconds(self.ceiling), self.model.seconds(tokens))
        self._last_learnt = now
        if self.ceiling < self._most:
            self.ceiling = min(self.ceiling * _CEILING_STEP, self._most)

    def shrink(self, tokens: int) -> None:
        """Lower the ceiling: a batch of so many tokens did not fit into memory."""
        self.ceiling = max(_LEAST_CEILING, min(self.ceiling, tokens) / 2)

    def stale(self, now: float) -> bool:
        """Whether too long ago was the last batch to rule anything out."""
        return now - self._last_learnt > STALE
