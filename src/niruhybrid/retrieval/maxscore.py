"""The best matches of one query among postings, without reading all of them. Pure.

The MaxScore rule of Turtle and Flood, "Query evaluation: strategies and optimizations" (Information Processing &
Management 31, 1995), over arrays. Lists of rare words are read whole. Common words add little, so once those left can't
lift a new document among the best, they are only looked up for the documents found so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.postings import Postings, saturation, spread

__all__ = ("Collection", "best", "best_matches", "highest")

Ints = NDArray[Any]
Floats = NDArray[np.float32]

_SAFETY = np.float32(1.0001)  # bounds are sums of rounded numbers


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


@dataclass(frozen=True, slots=True, eq=False)
class _Common:
    """A word that many documents have: how often each has it, part by part."""

    counts: list[tuple[slice, Ints]]
    weight: np.float32
    bound: float


def best_matches(collection: Collection, terms: Ints, weights: Floats, limit: int, floor: float) -> tuple[Ints, Floats]:
    """Return the documents that have any of the terms, and their scores: at least the `limit` best, in any order.

    Args:
        collection: what is searched.
        terms: `(n,)` ascending.
        weights: `(n,)`, of each term; above 0.
        limit: documents wanted, at least 1.
        floor: documents that can't reach this score may be left out.
    """
    scores = _read_rare(collection, terms, weights)
    commons = _commons(collection, terms, weights)
    rest = (np.cumsum([0.0, *(one.bound for one in reversed(commons))])[::-1] * _SAFETY).tolist()
    found = _found(scores, collection.allowed)
    floor = max(floor, _floor(collection, commons, found, scores, limit))
    at = 0
    while at < len(commons) and rest[at] >= floor:
        _read(collection, commons[at], scores)
        at += 1
    if at:
        found = _found(scores, collection.allowed)
        floor = max(floor, highest(scores[found], limit))
    return _completed(collection, commons[at:], rest[at:], (found, scores[found]), floor)


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


def _commons(collection: Collection, terms: Ints, weights: Floats) -> list[_Common]:
    """Return those of the terms that are common somewhere, the highest bound first."""
    found = []
    for term, weight in zip(terms.tolist(), weights, strict=True):
        places = [(part, part.common[term]) for part in collection.parts if term in part.common]
        if places:
            peak = max(part.peak(row, collection.average) for part, row in places)
            counts = [(part.span, part.table[row]) for part, row in places]
            found.append(_Common(counts, weight, float(weight) * peak))
    return sorted(found, key=lambda one: -one.bound)


def _found(scores: Floats, allowed: NDArray[np.bool_]) -> Ints:
    return np.flatnonzero((scores > 0.0) & allowed)


def _floor(collection: Collection, commons: list[_Common], found: Ints, scores: Floats, limit: int) -> float:
    """Return a score that `limit` documents have for certain: those that are best so far, completed."""
    if len(found) < limit:
        return 0.0
    so_far = scores[found]
    ahead = np.sort(found[np.argpartition(so_far, len(found) - limit)[-limit:]])
    complete = _completed(collection, commons, [0.0] * (len(commons) + 1), (ahead, scores[ahead]), 0.0)[1]
    return float(complete.min())


def _read(collection: Collection, one: _Common, scores: Floats) -> None:
    """Add a term to the scores of all documents."""
    for span, counts in one.counts:
        scores[span] += saturation(counts, spread(collection.lengths[span], collection.average)) * one.weight


def _completed(
    collection: Collection, commons: list[_Common], rest: list[float], found: tuple[Ints, Floats], floor: float
) -> tuple[Ints, Floats]:
    """Complete the scores of ascending documents, dropping those that can't reach `floor` any more."""
    slots, scores = found
    kept = scores + rest[0] >= floor
    slots, scores = slots[kept], scores[kept]
    lengthy = spread(collection.lengths[slots], collection.average)
    for at, one in enumerate(commons, start=1):
        for span, counts in one.counts:
            start, end = np.searchsorted(slots, (span.start, span.stop))
            here = counts[slots[start:end] - span.start]
            scores[start:end] += saturation(here, lengthy[start:end]) * one.weight
        kept = scores + rest[at] >= floor
        slots, scores, lengthy = slots[kept], scores[kept], lengthy[kept]
    return slots, scores
