"""The best matches of one query among postings. Pure.

Rare terms are scored exactly, from their lists. Common ones, which have tables, are added only for documents that they
may lift among the best, after Turtle and Flood, "Query evaluation: strategies and optimizations" (Information
Processing & Management 31, 1995). Where some could do so by themselves, what these add is first taken from tables of
rounded numbers, for all documents at once. The scores returned are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.journal import Entries
from niruhybrid.retrieval.postings import ROUNDED, Postings, saturation, spread

__all__ = ("Collection", "best", "best_matches", "highest")

Ints = NDArray[Any]
Floats = NDArray[np.float32]

_BLOCK = 64
_RUN = 32_768
_ROOM = 0.9999  # for sums of rounded numbers
_FEW = 512  # documents that are sooner scored than chosen from
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


def best_matches(
    collection: Collection, terms: Ints, weights: Floats, recent: Entries, limit: int
) -> tuple[Ints, Floats]:
    """Return documents that have any of the terms, and their scores: at least the `limit` best, ascending.

    Args:
        collection: what is searched.
        terms: `(n,)` ascending.
        weights: `(n,)`, of each term; above 0.
        recent: entries of documents behind those of the parts; their terms are places in `terms`.
        limit: documents wanted, at least 1.
    """
    scores, there = _listed(collection, terms, weights, recent)
    slots = np.flatnonzero(there)
    found = scores[slots]
    commons = [_common(collection, part, terms, weights) for part in collection.parts]
    floor = _reached(collection, commons, slots, found, limit) * _ROOM
    kept = []
    for common in commons:
        start, end = np.searchsorted(slots, (common.part.span.start, common.part.span.stop)).tolist()
        if common.lead(floor):
            some = _lifted(collection, common, scores[common.part.span], limit, floor)
        else:
            some = slots[start:end][found[start:end] >= floor - common.rest[0]]
        kept.append(_completed(collection, common, some, scores[some], floor))
    last = collection.parts[-1].span.stop if collection.parts else 0
    newest = slots[np.searchsorted(slots, last) :]
    kept.append((newest, scores[newest]))
    return np.concatenate([some for some, _ in kept]), np.concatenate([whole for _, whole in kept])


def best(slots: Ints, scores: Floats, limit: int) -> tuple[Ints, Floats]:
    """Return the `limit` best, or all there are, by ascending slot; of equal ones the lower slots."""
    if len(slots) > limit:
        kept = np.flatnonzero(scores >= highest(scores, limit))
        slots, scores = slots[kept], scores[kept]
    if len(slots) > limit:
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
    """The terms of a query that are common in a part, those that can add most first."""

    part: Postings
    rows: Ints  # in its tables
    weights: Floats
    rest: NDArray[np.float64]  # what the terms from each on, and none, can add to a document's score at the most

    def lead(self, floor: float) -> int:
        """Return how many terms to look at before the rest of them can't reach `floor`."""
        return int(np.count_nonzero(self.rest[:-1] >= floor))


def _common(collection: Collection, part: Postings, terms: Ints, weights: Floats) -> _Common:
    found = [(part.common[term], at) for at, term in enumerate(terms.tolist()) if term in part.common]
    rows, at = np.array(found, np.intp).reshape(-1, 2).T
    heights = weights[at]
    bounds = heights * np.minimum(1.0, part.tops[rows] / ROUNDED + _wrong(collection, part))
    order = np.argsort(-bounds)
    rest = np.append(np.cumsum(bounds[order][::-1], dtype=np.float64)[::-1], 0.0)
    return _Common(part, rows[order], heights[order], rest)


def _wrong(collection: Collection, part: Postings) -> float:
    """Return by how much a rounded share of a weight may be wrong, at the most."""
    return 1.0 / ROUNDED + _STEEPEST * abs(log(collection.average / part.average))


def _listed(collection: Collection, terms: Ints, weights: Floats, recent: Entries) -> tuple[Floats, NDArray[np.bool_]]:
    """Return what lists, and recent entries, add to the score of each document, and who has any and is allowed."""
    scores, there = np.zeros(len(collection.lengths), np.float32), np.zeros(len(collection.lengths), np.bool_)
    slots, counts, sizes = [], [], []
    for part in collection.parts:
        for start, end in part.lists(terms).tolist():
            slots.append(part.slots[start:end])
            counts.append(part.counts[start:end])
            sizes.append(end - start)
    heights = np.repeat(np.tile(weights, len(collection.parts)), sizes)
    at = np.concatenate((*slots, recent.slots), dtype=np.intp)
    gained = saturation(np.concatenate((*counts, recent.counts)), spread(collection.lengths[at], collection.average))
    gained *= np.append(heights, weights[recent.terms])
    np.add.at(scores, at, gained)
    there[at] = True
    there &= collection.allowed
    return scores, there


def _reached(collection: Collection, commons: Sequence[_Common], slots: Ints, scores: Floats, limit: int) -> float:
    """Return a score that at least `limit` of the documents have, common terms included; 0 if there are fewer."""
    if len(slots) < limit:
        return 0.0
    first = np.flatnonzero(scores >= _roughly_highest(scores, limit))
    slots, whole = slots[first], scores[first]
    for common in commons:
        start, end = np.searchsorted(slots, (common.part.span.start, common.part.span.stop)).tolist()
        whole[start:end] = _completed(collection, common, slots[start:end], whole[start:end])[1]
    return highest(whole, limit)


def _completed(
    collection: Collection, common: _Common, slots: Ints, scores: Floats, floor: float = 0.0
) -> tuple[Ints, Floats]:
    """Return documents of the part that reach `floor`, and their scores with what common terms add; or a few more."""
    part, against = common.part, spread(collection.lengths[slots], collection.average)
    for row, weight, rest in zip(common.rows.tolist(), common.weights, common.rest[1:].tolist(), strict=True):
        gained = saturation(part.table[row].take(slots - part.span.start), against)
        gained *= weight
        scores = scores + gained
        if len(slots) > _FEW and floor:
            kept = np.flatnonzero(scores >= floor - rest)
            slots, scores, against = slots[kept], scores[kept], against[kept]
    return slots, scores


def _lifted(collection: Collection, common: _Common, scores: Floats, limit: int, floor: float) -> Ints:
    """Return the documents of the part that may be among the best.

    Args:
        collection: what is searched.
        common: terms, of which those behind the lead can't lift a document to `floor` by themselves.
        scores: what lists add, by slot in the part.
        limit: documents wanted.
        floor: a score that this many have.
    """
    lead = common.lead(floor)
    rough, span = scores.copy(), common.part.span
    _add_rough(rough, common.part.rough, common.rows[:lead], common.weights[:lead])
    rough *= collection.allowed[span]
    slack = float(common.weights[:lead].sum()) * _wrong(collection, common.part)
    least = max(floor, _roughly_highest(rough, limit) * _ROOM - slack) - slack - common.rest[lead]
    lifted: Ints = np.flatnonzero((rough > 0.0) & (rough >= least)) + span.start
    return lifted


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


def _roughly_highest(scores: Floats, limit: int) -> float:
    """Return a score that at least `limit` documents have, not far below the highest such; 0 if there are fewer."""
    blocks = len(scores) // _BLOCK
    if blocks < 2 * limit:
        return highest(scores, limit)
    return highest(scores[: blocks * _BLOCK].reshape(_BLOCK, blocks).max(axis=0), limit)  # any division will do
