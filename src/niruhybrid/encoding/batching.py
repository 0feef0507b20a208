"""Which texts are encoded together, and how wide: pure decisions over token counts."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ("Batch", "plan")

_STEP = 8  # widths are multiples of it: few enough shapes to be prepared once and met again
_RUN_COST = 32  # what starting one more run costs, in tokens' worth of time
_MOST_TOKENS = 2048  # padded tokens in a run; above it, nothing is gained and caches are lost
_MOST_TEXTS = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts that are encoded in one run.

    Attributes:
        rows: their positions in the caller's list.
        width: tokens each is padded to.
    """

    rows: tuple[int, ...]
    width: int


def plan(lengths: Sequence[int], *, widest: int) -> list[Batch]:
    """Split texts into the runs that take the least time together.

    Texts of like length go together. One more run is worth its start when it saves more than that in padding.

    Args:
        lengths: tokens of each text, at least 1.
        widest: the model's window; no text has more tokens.

    Returns:
        Batches that hold each position once, the shortest texts first.
    """
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)
    widths = [min(-(-lengths[row] // _STEP) * _STEP, widest) for row in rows]
    cuts = _cheapest_cuts(widths)
    return [Batch(tuple(rows[start:end]), widths[end - 1]) for start, end in zip([0, *cuts], cuts, strict=False)]


def _cheapest_cuts(widths: list[int]) -> list[int]:
    """Return where each batch ends, for ascending widths; a batch costs its start and its padded tokens."""
    cost, begin = [0], [0]  # of the best split of the first `end` texts, and where its last batch begins
    for end in range(1, len(widths) + 1):
        width = widths[end - 1]
        first = max(0, end - _MOST_TEXTS, end - max(1, _MOST_TOKENS // width))
        best = min(range(first, end), key=lambda start: cost[start] + (end - start) * width)  # used at once
        cost.append(cost[best] + (end - best) * width + _RUN_COST)
        begin.append(best)
    cuts = []
    end = len(widths)
    while end:
        cuts.append(end)
        end = begin[end]
    return cuts[::-1]
