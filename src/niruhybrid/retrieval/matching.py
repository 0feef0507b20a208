"""The best matches of one query among postings. Pure.

Rare terms are scored exactly, from their lists. What common terms add is first taken from tables of rounded numbers,
for all documents at once; then those that may be among the best, whatever the rounding, are scored exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.postings import ROUNDED, Postings, saturation, spread

__all__ = ("Collection", "best", "best_matches", "highest")

Ints = NDArray[Any]
Floats = NDArray[np.float32]

_BLOCK = 64
_RUN = 32_768
_STEEPEST = 0.25  # of saturation, against the logarithm of the average length


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """What a query is matched against.

    Attributes:
        parts: postings of separate documents, ascending.
        lengths: terms of each document, by slot.
        average: mean of the lengths.
        allowed: `(slots,)` bool, whether a document may be found.
    """

    parts: Sequence[Postings]
    lengths: Floats
    average: float
    allowed: NDArray[np.bool_]


def best_matches(collection: Collection, terms: Ints, weights: Floats, limit: int, floor: float) -> tuple[Ints, Floats]:
    """Return documents that have any of the terms, and their scores: at least the `limit` best, ascending.

    Args:
        collection: what is searched.
        terms: `(n,)` ascending.
        weights: `(n,)`, of each term; above 0.
        limit: documents wanted, at least 1.
        floor: documents that can't reach this score may be left out.
    """
    scores = _read_rare(collection, terms, weights)
    commons = [_common(part, terms, weights) for part in collection.parts]
    rough, slack = scores.copy(), 0.0
    for part, (rows, heights) in zip(collection.parts, commons, strict=True):
        _add_rough(rough[part.span], part.rough, rows, heights)
        drift = _STEEPEST * abs(log(collection.average / part.average))
        slack = max(slack, float(heights.sum()) * (1.0 / ROUNDED + drift))
    rough *= collection.allowed
    least = max(floor, _reached(rough, limit)) * 0.9999 - 2.0 * slack  # sums of rounded numbers
    slots = np.flatnonzero((rough > 0.0) & (rough >= least))
    scores = scores[slots]
    for part, common in zip(collection.parts, commons, strict=True):
        _complete(collection, part, common, slots, scores)
    return slots, scores


def best(slots: Ints, scores: Floats, limit: int) -> tuple[Ints, Floats]:
    """Return the `limit` best, or all there are, by ascending slot; of equal ones the lower slots."""
    if len(slots) > limit:
        kept = np.flatnonzero(scores >= highest(scores, limit))
        slots, scores = slots[kept], scores[kept]
        kept = np.lexsort((slots, -scores))[:limit]
        slots, scores = slots[kept], scores[kept]
    order = np.argsort(slots)
    return slots[order], scores[order]


def highest(scores: Floats, limit: int) -> float:
    """Return the `limit`-th best of scores; 0 if there are fewer."""
    if len(scores) < limit:
        return 0.0
    return float(np.partition(scores, len(scores) - limit)[len(scores) - limit])


def _add_rough(scores: Floats, table: Ints, rows: Ints, weights: Floats) -> None:
    """Add what common terms roughly add, in runs of documents that stay in the processor's cache."""
    gained = np.empty(_RUN, np.float32)
    shares = weights / np.float32(ROUNDED)
    for start in range(0, len(scores), _RUN):
        here = scores[start : start + _RUN]
        some = gained[: len(here)]
        for row, share in zip(rows.tolist(), shares, strict=True):
            np.multiply(table[row, start : start + _RUN], share, out=some)
            here += some


def _reached(scores: Floats, limit: int) -> float:
    """Return a score that at least `limit` documents have, not far below the highest such; 0 if there are fewer."""
    blocks = len(scores) // _BLOCK
    if blocks < 2 * limit:
        return highest(scores, limit)
    return highest(scores[: blocks * _BLOCK].reshape(_BLOCK, blocks).max(axis=0), limit)  # any division will do


def _read_rare(collection: Collection, terms: Ints, weights: Floats) -> Floats:
    """Return what the terms add to the score of each document, where they are rare."""
    scores = np.zeros(len(collection.lengths), np.float32)
    slots, counts, sizes = [], [], []
    for part in collection.parts:
        for start, end in part.lists(terms).tolist():
            slots.append(part.slots[start:end])
            counts.append(part.counts[start:end])
            sizes.append(end - start)
    if any(sizes):
        at = np.concatenate(slots)
        gained = saturation(np.concatenate(counts), spread(collection.lengths[at], collection.average))
        gained *= np.repeat(np.tile(weights, len(collection.parts)), sizes)
        np.add.at(scores, at, gained)
    return scores


def _common(part: Postings, terms: Ints, weights: Floats) -> tuple[Ints, Floats]:
    """Return the table rows of those terms that are common in a part, and their weights."""
    found = [(part.common[term], at) for at, term in enumerate(terms.tolist()) if term in part.common]
    rows = np.array([row for row, _ in found], np.int64)
    return rows, weights[[at for _, at in found]]


def _complete(collection: Collection, part: Postings, common: tuple[Ints, Floats], slots: Ints, scores: Floats) -> None:
    """Add what the common terms of a part add to the exact scores of ascending documents."""
    rows, weights = common
    start, end = np.searchsorted(slots, (part.span.start, part.span.stop))
    if not len(rows) or start == end:
        return
    here = slots[start:end]
    counts = part.table[rows[:, None], here - part.span.start]
    gained = saturation(counts, spread(collection.lengths[here], collection.average))
    scores[start:end] += (gained * weights[:, None]).sum(axis=0)
