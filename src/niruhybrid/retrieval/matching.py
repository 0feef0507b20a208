"""The best matches of one query among postings. Pure.

Rare terms are scored exactly, from their lists. Common ones, which have tables, are added only for documents that they
may lift among the best, after Turtle and Flood, "Query evaluation: strategies and optimizations" (Information
Processing & Management 31, 1995). Where some could do so by themselves, what these add is first taken from tables of
rounded numbers, for all documents at once. The scores returned are exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.journal import Entries
from niruhybrid.retrieval.postings import ROUNDED, Postings, saturation, spread

__all__ = (
    "Collection",
    "Enough",
    "Weighed",
    "best",
    "best_matches",
    "entries",
    "having",
    "highest",
    "occurrences",
    "roughly_highest",
)

Ints = NDArray[Any]
Floats = NDArray[np.float32]
Found = tuple[Ints, Floats]
Enough = Callable[[Floats], float]
"""What score a document needs to be wanted at all, by the scores that were wanted anyway."""

_BLOCK, _BLOCKS_PER_WANTED = 64, 4
_RUN = 32_768
_ROOM = 0.9999  # for sums of rounded numbers
_FEW = 512  # documents that are sooner scored than chosen from
_STEEPEST = 0.25  # of saturation, against the logarithm of the average length
_ABOVE_NOTHING = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """What a query is matched against.

    Attributes:
        parts: postings of separate documents, ascending.
        lengths: terms of each document, by slot.
        average: mean of the lengths.
        allowed: `(slots,)` bool, whether a document may be found; None where all may.
    """

    parts: Sequence[Postings]
    lengths: Floats
    average: float
    allowed: NDArray[np.bool_] | None


class Weighed(NamedTuple):
    """The terms of a query.

    Attributes:
        terms: `(n,)` ascending.
        weights: `(n,)` float32, of each term; above 0.
        recent: entries of documents behind those of the parts; their terms are places in `terms`.
    """

    terms: Ints
    weights: Floats
    recent: Entries


def best_matches(
    collection: Collection, query: Weighed, limit: int, also: Ints, enough: Enough | None = None
) -> tuple[Found, Floats]:
    """Return documents that have any of the terms, and their scores: at least the `limit` best.

    Args:
        collection: what is searched.
        query: its terms.
        limit: documents wanted, at least 1.
        also: slots, ascending, whose scores are wanted whatever these are.
        enough: given the scores of `also`, returns one below which no other document is wanted, however few are left;
            0 or less where that can't be said.

    Returns:
        Slots, ascending, with their scores, and the scores of `also`, 0 without any of the terms.
    """
    scores = _listed(collection, query)
    commons = [_common(collection, part, query) for part in collection.parts]
    wanted, kept = scores[also], []
    for common in commons:
        here = slice(*also.searchsorted((common.part.span.start, common.part.span.stop)).tolist())
        wanted[here] = _completed(collection, common, also[here], wanted[here])
    floor = 0.0 if enough is None else max(0.0, enough(wanted))
    for common in commons:
        some = _likely(collection, common, scores[common.part.span], limit, floor)
        whole = _completed(collection, common, some, scores[some])
        kept.append((some, whole))
        floor = max(floor, highest(whole, limit))
    last = collection.parts[-1].span.stop if collection.parts else 0
    newest = np.flatnonzero(scores[last:] >= max(floor, _ABOVE_NOTHING)) + last
    kept.append((newest, scores[newest]))
    return (np.concatenate([some for some, _ in kept]), np.concatenate([whole for _, whole in kept])), wanted


def occurrences(collection: Collection, query: Weighed, slots: Ints) -> Floats:
    """Return how often some passages have each of a query's terms, `(terms, n)`.

    Args:
        collection: what is searched.
        query: its terms.
        slots: the passages, `(n,)` in any order.
    """
    size = len(query.terms)
    at, listed, terms = entries(collection, query, np.arange(size))
    places = np.full(len(collection.lengths), -1, np.intp)
    places[slots] = np.arange(len(slots))
    column = places[at]
    here = np.flatnonzero(column >= 0)
    counts = np.zeros((size, len(slots)), np.float32)
    counts[terms[here], column[here]] = listed[here]
    for part in collection.parts:
        inside = np.flatnonzero((slots >= part.span.start) & (slots < part.span.stop))
        for place, term in enumerate(query.terms.tolist()):
            if (row := part.common.get(term)) is not None:
                counts[place, inside] = part.table[row].take(slots[inside] - part.span.start)
    return counts


def having(collection: Collection, query: Weighed, slots: Ints) -> tuple[Ints, Ints]:
    """Return which of some passages have which of a query's terms: pairs of a slot and a place in `query.terms`.

    Args:
        collection: what is searched.
        query: its terms.
        slots: the passages, `(n,)` ascending.
    """
    at, _, terms = entries(collection, query, np.arange(len(query.terms)))
    wanted = np.zeros(len(collection.lengths), np.bool_)
    wanted[slots] = True
    here = np.flatnonzero(wanted[at])
    found = [(at[here], terms[here])]
    for part in collection.parts:
        inside = slots[(slots >= part.span.start) & (slots < part.span.stop)]
        if not len(inside):
            continue
        for place, term in enumerate(query.terms.tolist()):
            if (row := part.common.get(term)) is not None:
                some = inside[part.table[row].take(inside - part.span.start) > 0]
                found.append((some, np.full(len(some), place)))
    return np.concatenate([some for some, _ in found]), np.concatenate([places for _, places in found])


def best(slots: Ints, scores: Floats, limit: int) -> Found:
    """Return the `limit` best, or all there are, by ascending slot; of equal ones the lower slots."""
    if len(slots) > limit:
        kept = np.flatnonzero(scores >= highest(scores, limit))
        slots, scores = slots[kept], scores[kept]
    if len(slots) > limit:
        kept = np.lexsort((slots, -scores))[:limit]
        slots, scores = slots[kept], scores[kept]
    order = np.argsort(slots)
    return slots[order], scores[order]


def highest(scores: NDArray[Any], limit: int) -> float:
    """Return the `limit`-th best of scores; 0 if there are fewer."""
    if len(scores) < limit:
        return 0.0
    return float(np.partition(scores, len(scores) - limit)[len(scores) - limit])


class _Common(NamedTuple):
    """The terms of a query that are common in a part, those that can add most first."""

    part: Postings
    rows: Ints  # in its tables
    weights: Floats
    rest: Ints  # what the terms from each on, and none, can add to a document's score at the most
    slack: float  # by how much what they add by the rounded table may be wrong, at the most

    def lead(self, floor: float) -> int:
        """Return how many terms to look at before the rest of them can't reach `floor`."""
        return int(np.count_nonzero(self.rest[:-1] >= floor))


def _common(collection: Collection, part: Postings, query: Weighed) -> _Common:
    at = np.array([place for place, term in enumerate(query.terms.tolist()) if term in part.common], np.intp)
    rows = np.array([part.common[term] for term in query.terms[at].tolist()], np.intp)
    weights, wrong = query.weights[at], _wrong(collection, part)
    bounds = weights * np.minimum(1.0, part.tops[rows] / ROUNDED + wrong)
    order = np.argsort(-bounds)
    rest = np.append(bounds[order][::-1].cumsum()[::-1], 0.0)
    return _Common(part, rows[order], weights[order], rest, float(weights.sum()) * wrong)


def _wrong(collection: Collection, part: Postings) -> float:
    """Return by how much a rounded share of a weight may be wrong, at the most."""
    return 1.0 / ROUNDED + _STEEPEST * abs(log(collection.average / part.average))


def entries(collection: Collection, query: Weighed, values: NDArray[Any]) -> tuple[Ints, Ints, NDArray[Any]]:
    """Return recent entries and those of lists: slots, occurrences, and the value of the term, given for each."""
    recent = query.recent
    lists = [(part, *one) for part in collection.parts for one in part.lists(query.terms)]
    slots = np.concatenate((recent.slots, *(part.slots[start:end] for part, _, start, end in lists)), dtype=np.intp)
    counts = np.concatenate((recent.counts, *(part.counts[start:end] for part, _, start, end in lists)))
    listed = np.repeat(values[[place for _, place, _, _ in lists]], [end - start for _, _, start, end in lists])
    return slots, counts, np.concatenate((values[recent.terms], listed))


def _listed(collection: Collection, query: Weighed) -> Floats:
    """Return what lists, and recent entries, add to the score of each document that is allowed."""
    at, counts, heights = entries(collection, query, query.weights)
    if collection.allowed is not None:
        may = np.flatnonzero(collection.allowed[at])
        at, counts, heights = at[may], counts[may], heights[may]
    gained = saturation(counts, spread(collection.lengths.take(at), collection.average))
    gained *= heights
    scores = np.zeros(len(collection.lengths), np.float32)
    np.add.at(scores, at, gained)
    return scores


def _likely(collection: Collection, common: _Common, scores: Floats, limit: int, floor: float) -> Ints:
    """Return the documents of the part that may be among the best, ascending.

    Args:
        collection: what is searched.
        common: terms that are still to be added.
        scores: what lists add, by slot in the part.
        limit: documents wanted.
        floor: a score that this many documents of other parts have, or that is needed; 0 if there is none.
    """
    start = common.part.span.start
    if not floor:
        first = np.flatnonzero(scores >= max(roughly_highest(scores, limit), _ABOVE_NOTHING))
        floor = highest(_completed(collection, common, first + start, scores[first]), limit) * _ROOM
    lead = common.lead(floor)
    if lead:
        rough = scores.copy()
        _add_rough(rough, common, lead)
        if collection.allowed is not None:
            rough *= collection.allowed[common.part.span]
        floor = max(floor, roughly_highest(rough, limit) * _ROOM - common.slack)
        some = np.flatnonzero(rough >= max(floor - common.slack - common.rest[lead], _ABOVE_NOTHING))
    else:
        rough, some = scores, np.flatnonzero(scores >= max(floor - common.rest[0], _ABOVE_NOTHING))
    rough = rough[some]
    for term in range(lead, len(common.rows)):
        if len(some) <= _FEW:
            break
        rough += common.part.rough[common.rows[term]].take(some) * (common.weights[term] / np.float32(ROUNDED))
        floor = max(floor, roughly_highest(rough, limit) * _ROOM - common.slack)
        kept = np.flatnonzero(rough >= floor - common.slack - common.rest[term + 1])
        some, rough = some[kept], rough[kept]
    likely: Ints = some + start
    return likely


def _completed(collection: Collection, common: _Common, slots: Ints, scores: Floats) -> Floats:
    """Return the scores of documents of the part with what common terms add."""
    if not len(slots) or not len(common.rows):
        return scores
    part, against = common.part, spread(collection.lengths[slots], collection.average)
    gained = saturation(part.table[common.rows[:, None], slots - part.span.start], against)
    gained *= common.weights[:, None]
    whole: Floats = scores + gained.sum(axis=0)
    return whole


def _add_rough(scores: Floats, common: _Common, terms: int) -> None:
    """Add what the first terms roughly add, in runs of documents that stay in the processor's cache."""
    gained = np.empty(_RUN, np.float32)
    rows, shares = common.rows[:terms].tolist(), common.weights[:terms] / np.float32(ROUNDED)
    for start in range(0, len(scores), _RUN):
        here = scores[start : start + _RUN]
        some = gained[: len(here)]
        for row, share in zip(rows, shares, strict=True):
            np.multiply(common.part.rough[row, start : start + _RUN], share, out=some)
            here += some


def roughly_highest(scores: NDArray[Any], limit: int) -> float:
    """Return a score that at least `limit` documents have, not far below the highest such; 0 if there are fewer."""
    if len(scores) < _BLOCKS_PER_WANTED * limit * 2:
        return highest(scores, limit)
    blocks = max(len(scores) // _BLOCK, _BLOCKS_PER_WANTED * limit)
    size = len(scores) // blocks
    return highest(scores[: size * blocks].reshape(size, blocks).max(axis=0), limit)  # any division will do
