"""The best matches of one query among postings. Pure.

Rare terms are scored exactly, from their lists. Where all common terms together can't lift a document without a rare
one among the best, which is nearly always, they are added for those alone that they may lift: the idea of Turtle and
Flood, "Query evaluation: strategies and optimizations" (Information Processing & Management 31, 1995). Otherwise what
they add is first taken from tables of rounded numbers, for all documents at once; then those that may be among the
best, whatever the rounding, are scored exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.postings import ROUNDED, Postings, saturation, spread

__all__ = ("Collection", "best", "best_matches", "highest")

Ints = NDArray[Any]
Floats = NDArray[np.float32]

_BLOCK = 64
_RUN = 32_768
_ROOM = 0.9999  # for sums of rounded numbers
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
    commons = [_common(collection, part, terms, weights) for part in collection.parts]
    scores, with_rare = _read_rare(collection, terms, weights)
    slots = np.flatnonzero(with_rare)
    found = scores[slots]
    floor = max(floor, _reached(commons, collection, slots, found, limit)) * _ROOM
    most = max((common.most for common in commons), default=0.0)
    if most and most >= floor:
        slots = _likely(collection, commons, scores, limit, floor)
    else:
        slots = slots[found >= floor - most]
    found = scores[slots]
    for common in commons:
        _complete(collection, common, slots, found)
    return slots, found


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


class _Common(NamedTuple):
    """The terms of a query that are common in a part."""

    part: Postings
    rows: Ints  # in its tables
    weights: Floats
    most: float  # that they can add to a document's score
    slack: float  # by which the rough table may be wrong


def _common(collection: Collection, part: Postings, terms: Ints, weights: Floats) -> _Common:
    found = [(part.common[term], at) for at, term in enumerate(terms.tolist()) if term in part.common]
    rows = np.array([row for row, _ in found], np.intp)
    heights = weights[[at for _, at in found]]
    total = float(heights.sum())
    slack = total * (1.0 / ROUNDED + _STEEPEST * abs(log(collection.average / part.average)))
    return _Common(part, rows, heights, min(total, float(heights @ part.tops[rows]) / ROUNDED + slack), slack)


def _read_rare(collection: Collection, terms: Ints, weights: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return what the terms add to the score of each document where they are rare, and who has any and is allowed."""
    scores, there = np.zeros(len(collection.lengths), np.float32), np.zeros(len(collection.lengths), np.bool_)
    slots, counts, sizes = [], [], []
    for part in collection.parts:
        for start, end in part.lists(terms).tolist():
            slots.append(part.slots[start:end])
            counts.append(part.counts[start:end])
            sizes.append(end - start)
    if any(sizes):
        at = np.concatenate(slots, dtype=np.intp)
        gained = saturation(np.concatenate(counts), spread(collection.lengths[at], collection.average))
        gained *= np.repeat(np.tile(weights, len(collection.parts)), sizes)
        np.add.at(scores, at, gained)
        there[at] = True
        there &= collection.allowed
    return scores, there


def _reached(commons: Sequence[_Common], collection: Collection, slots: Ints, scores: Floats, limit: int) -> float:
    """Return a score that at least `limit` of the documents have, common terms included; 0 if there are fewer."""
    if len(slots) < limit:
        return 0.0
    first = np.sort(np.argpartition(scores, len(scores) - limit)[len(scores) - limit :])
    slots, whole = slots[first], scores[first]
    for common in commons:
        _complete(collection, common, slots, whole)
    return float(whole.min())


def _complete(collection: Collection, common: _Common, slots: Ints, scores: Floats) -> None:
    """Add what common terms add to the exact scores of ascending documents."""
    part, rows = common.part, common.rows
    start, end = np.searchsorted(slots, (part.span.start, part.span.stop))
    if not len(rows) or start == end:
        return
    here = slots[start:end]
    counts = part.table[rows[:, None], here - part.span.start]
    gained = saturation(counts, spread(collection.lengths[here], collection.average))
    scores[start:end] += (gained * common.weights[:, None]).sum(axis=0)


def _likely(collection: Collection, commons: Sequence[_Common], scores: Floats, limit: int, floor: float) -> Ints:
    """Return documents that may be among the best, by the exact scores of rare terms and the rough ones of common."""
    rough = scores.copy()
    for common in commons:
        _add_rough(rough[common.part.span], common)
    rough *= collection.allowed
    slack = 2.0 * max(common.slack for common in commons)
    least = max(floor, _roughly_reached(rough, limit) * _ROOM) - slack
    return np.flatnonzero((rough > 0.0) & (rough >= least))


def _add_rough(scores: Floats, common: _Common) -> None:
    """Add what common terms roughly add, in runs of documents that stay in the processor's cache."""
    gained = np.empty(_RUN, np.float32)
    shares = common.weights / np.float32(ROUNDED)
    for start in range(0, len(scores), _RUN):
        here = scores[start : start + _RUN]
        some = gained[: len(here)]
        for row, share in zip(common.rows.tolist(), shares, strict=True):
            np.multiply(common.part.rough[row, start : start + _RUN], share, out=some)
            here += some


def _roughly_reached(scores: Floats, limit: int) -> float:
    """Return a score that at least `limit` documents have, not far below the highest such; 0 if there are fewer."""
    blocks = len(scores) // _BLOCK
    if blocks < 2 * limit:
        return highest(scores, limit)
    return highest(scores[: blocks * _BLOCK].reshape(_BLOCK, blocks).max(axis=0), limit)  # any division will do
