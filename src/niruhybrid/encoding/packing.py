"""Which texts are encoded together, and where each lies: pure decisions over token counts.

A run is a rectangle of token slots. Short texts lie end to end in rows of about 60 slots, longer ones have a row each,
and rows of like length share a run, so that few slots are padding. A width is a multiple of what the processor works
on at once: fewer slots would take it as long, and there are fewer shapes, each of which the graph is prepared for when
it differs from the last one's.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from niruhybrid.encoding.model_config import Pooling

__all__ = ("Feed", "Row", "Run", "lay_out", "plan")

_SHORT = 32  # tokens; a text up to it shares a row
_SHARED = 60  # tokens wanted in a shared row; attention inside wider ones costs more than fewer rows save
_RUN_COST = 32  # what starting one more run costs, in tokens' worth of time
_MOST_SLOTS = 2048  # of a run; above it nothing is gained and caches are lost


@dataclass(frozen=True, slots=True)
class Run:
    """Texts that go through the model at once.

    Attributes:
        rows: for each row, the positions of its texts in the caller's list, in the order in which they lie.
        width: token slots of each row.
    """

    rows: tuple[tuple[int, ...], ...]
    width: int

    @property
    def texts(self) -> list[int]:
        """Positions of all texts, row by row: the order of the run's vectors."""
        return [text for row in self.rows for text in row]


@dataclass(frozen=True, slots=True)
class Feed:
    """What the graph reads.

    Attributes:
        ids: `(rows, width)` int32, token ids; 0 in an empty slot.
        positions: `(rows, width)` int32, each token's place in its text.
        segments: `(rows, width)` int32; tokens of one row attend to each other where these are equal; -1 when empty.
        pool: `(texts, rows * width)` float32, the weight of each slot in each text's vector, up to a factor.
    """

    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    segments: NDArray[np.int32]
    pool: NDArray[np.float32]


def plan(lengths: Sequence[int], tile: int = 1) -> list[Run]:
    """Split texts into the runs that take little time together.

    Args:
        lengths: tokens of each text, at least 1.
        tile: rows of a matrix that the processor multiplies at once; 1 where it has no such unit.

    Returns:
        Runs that hold each position once; none has more than 2048 slots, unless one text alone does.
    """
    rows = _shared_rows([text for text, length in enumerate(lengths) if length <= _SHORT], lengths)
    rows += [(text,) for text, length in enumerate(lengths) if length > _SHORT]
    widths = {row: _width(sum(lengths[text] for text in row), tile) for row in rows}
    rows.sort(key=widths.__getitem__)
    cuts = _cheapest_cuts([widths[row] for row in rows])
    return [Run(tuple(rows[start:end]), widths[rows[end - 1]]) for start, end in zip([0, *cuts], cuts, strict=False)]


class Row(NamedTuple):
    """One text, as the model reads it.

    Attributes:
        ids: its tokens, with the marks of beginning and end.
        pooled: where those tokens begin and end whose mean is its vector, the marks aside: they always count.
    """

    ids: Sequence[int]
    pooled: tuple[int, int]

    def weights(self) -> NDArray[np.float32]:
        """Return `(tokens,)` float32, the weight of each token in the mean."""
        weights = np.zeros(len(self.ids), np.float32)
        weights[slice(*self.pooled)] = 1.0
        weights[[0, -1]] = 1.0
        return weights


def lay_out(run: Run, tokens: Sequence[Row], pooling: Pooling) -> Feed:
    """Put the tokens of a run's texts where the plan says.

    Args:
        run: one of `plan`'s.
        tokens: every text of the caller's list.
        pooling: how token vectors become one.
    """
    shape = (len(run.rows), run.width)
    ids, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    segments = np.full(shape, -1, np.int32)
    pool = np.zeros((len(run.texts), ids.size), np.float32)
    text = 0
    for place, row in enumerate(run.rows):
        start = 0
        for name in row:
            end = start + len(tokens[name].ids)
            ids[place, start:end] = tokens[name].ids
            positions[place, start:end] = np.arange(end - start)
            segments[place, start:end] = text
            first = place * run.width + start
            if pooling == "mean":
                pool[text, first : first + end - start] = tokens[name].weights()
            else:
                pool[text, first] = 1.0
            start, text = end, text + 1
    return Feed(ids, positions, segments, pool)


def _shared_rows(texts: list[int], lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """Deal texts, the longest first, each to the row that has the fewest tokens so far."""
    count = -(-sum(lengths[text] for text in texts) // _SHARED)
    filling: list[tuple[int, int]] = [(0, row) for row in range(count)]  # tokens so far, row
    rows: list[list[int]] = [[] for _ in range(count)]
    for text in sorted(texts, key=lengths.__getitem__, reverse=True):
        filled, row = filling[0]
        rows[row].append(text)
        heapq.heapreplace(filling, (filled + lengths[text], row))
    return [tuple(row) for row in rows if row]


def _width(tokens: int, tile: int) -> int:
    """Round up, so that there are few shapes."""
    step = max(tile, 4 if tokens <= 2 * _SHORT else 8)
    return -(-tokens // step) * step


def _cheapest_cuts(widths: list[int]) -> list[int]:
    """Return where each run ends, for rows of ascending widths; a run costs its start and its slots."""
    cost, begin = [0], [0]  # of the best split of the first `end` rows, and where its last run begins
    for end in range(1, len(widths) + 1):
        width = widths[end - 1]
        first = end - max(1, min(end, _MOST_SLOTS // width))
        cheapest = min((cost[start] + (end - start) * width, start) for start in range(first, end))
        cost.append(cheapest[0] + _RUN_COST)
        begin.append(cheapest[1])
    cuts = []
    end = len(widths)
    while end:
        cuts.append(end)
        end = begin[end]
    return cuts[::-1]
