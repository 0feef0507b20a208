"""A batch of queries against one snapshot: both halves, their fusion, the best passage of each document. Pure."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from niruhybrid.retrieval.fusion import ranked_weighted_sum, words_needed
from niruhybrid.retrieval.lexical import LexicalQuery
from niruhybrid.retrieval.matching import Enough
from niruhybrid.retrieval.siblings import Siblings
from niruhybrid.retrieval.snapshot import Mask, Snapshot
from niruhybrid.types import SearchRequest

__all__ = ("DEEPER", "GROUP_FIELD", "best_slots", "depth_of", "firsts")

GROUP_FIELD = "document"
"""Metadata field that passages of one document share."""

_DEPTH = 100
_DEPTH_PER_HIT = 4
DEEPER = 4
"""Times deeper, where the best are passages of few documents."""

Best = list[tuple[int, float]]
Depths = Mapping[int, int]
Ints = NDArray[Any]
Half = tuple[Ints, NDArray[np.float32]]
"""Slots, ascending, and their scores."""

_NOTHING: Half = np.empty(0, np.intp), np.empty(0, np.float32)


class _Asked(NamedTuple):
    """A request, its words as the index weighs them, and what it may find."""

    request: SearchRequest
    words: LexicalQuery
    allowed: Mask


def best_slots(snapshot: Snapshot, requests: Sequence[SearchRequest], dense_weight: float) -> list[Best]:
    """Return the best slots of each request with their scores, best first.

    Both halves look at least 100 deep, or four times `top_k`; deeper where the best are passages of few documents. What
    either finds is scored exactly by both. Where no document has several passages, words are looked at only of what
    they could still lift among the best. The score of a passage's words is the mean of its own and its
    document's, each as a share of its query's length: `fusion.term_norm`.
    """
    found: list[Best] = [[] for _ in requests]
    weighed = [snapshot.lexical.weighed(() if request.mode == "dense" else request.terms) for request in requests]
    asked = list(map(_Asked, requests, weighed, _allowed(snapshot, requests)))
    depths = {at: depth_of(request) for at, request in enumerate(requests)}
    while depths:
        near = _dense(snapshot, asked, depths)
        worded = _lexical(snapshot, asked, depths, near, dense_weight)
        whole = _with_documents(snapshot, asked, worded) if snapshot.passages else worded
        deeper: dict[int, int] = {}
        for at, depth in depths.items():
            request, wanted = requests[at], requests[at].top_k
            rows = (whole.get(at) or near.get(at) or _NOTHING)[0]
            cosines = _cosines(snapshot, request, rows, near[at]) if at in near else None
            words = whole[at][1] if at in whole else None
            slots, scores = ranked_weighted_sum(rows, cosines, words, dense_weight, weighed[at].norm)
            kept = _one_of_each_document(snapshot, slots)
            best = kept[:wanted]
            found[at] = list(zip(slots[best].tolist(), scores[best].tolist(), strict=True))
            if len(kept) < min(wanted, len(slots)) and depth <= len(slots):
                deeper[at] = depth * DEEPER
        depths = deeper
    return found


def depth_of(request: SearchRequest) -> int:
    """Return how deep both halves look at first."""
    return max(_DEPTH, _DEPTH_PER_HIT * request.top_k)


def _allowed(snapshot: Snapshot, requests: Sequence[SearchRequest]) -> list[Mask]:
    """Return what each request may find; those with the same filter share it."""
    masks: dict[bytes, Mask] = {}
    allowed = []
    for request in requests:
        key = b"" if request.filter is None else orjson.dumps(request.filter)
        if key not in masks:
            masks[key] = snapshot.passing(request.filter)
        allowed.append(masks[key])
    return allowed


def _dense(snapshot: Snapshot, asked: Sequence[_Asked], depths: Depths) -> dict[int, Half]:
    """Return what is near each request that goes by meaning."""
    vectors = {at: asked[at].request.vector for at in depths if asked[at].request.mode != "lexical"}
    near = {at: vector for at, vector in vectors.items() if vector is not None}
    found = snapshot.dense.search(list(near.values()), [depths[at] for at in near], [asked[at].allowed for at in near])
    return dict(zip(near, found, strict=True))


def _cosines(snapshot: Snapshot, request: SearchRequest, slots: Ints, near: Half) -> NDArray[np.float32]:
    """Return the cosine of each of the slots, ascending, which are those that are `near` and more."""
    cosines = np.empty(len(slots), np.float32)
    known = np.zeros(len(slots), np.bool_)
    known[slots.searchsorted(near[0])] = True
    cosines[known] = near[1]
    if len(near[0]) < len(slots) and request.vector is not None:
        cosines[~known] = snapshot.dense.products(request.vector, slots[~known])
    return cosines


def _lexical(
    snapshot: Snapshot, asked: Sequence[_Asked], depths: Depths, near: Mapping[int, Half], dense_weight: float
) -> dict[int, Half]:
    """Return what has words of each request that has any, and what is near it, scored by words."""
    worded = [at for at in depths if asked[at].words.size]
    apart = not snapshot.passages and GROUP_FIELD not in snapshot.columns.fields  # no hit stands for another
    found = snapshot.lexical.search(
        [asked[at].words for at in worded],
        [depths[at] for at in worded],
        [asked[at].allowed for at in worded],
        [near.get(at, _NOTHING)[0] for at in worded],
        [_enough(asked[at], near[at], dense_weight) if at in near and apart else None for at in worded],
    )
    return dict(zip(worded, found, strict=True))


def _enough(asked: _Asked, near: Half, dense_weight: float) -> Enough:
    """Return what tells which words a slot needs that is not near."""
    return partial(words_needed, near[1], wanted=asked.request.top_k, weight=dense_weight, norm=asked.words.norm)


def _with_documents(snapshot: Snapshot, asked: Sequence[_Asked], worded: Mapping[int, Half]) -> dict[int, Half]:
    """Return scores of words that are the means of the passages' own and of their documents'."""
    owners = {at: snapshot.owners.items[slots] for at, (slots, _) in worded.items()}
    wanted = np.unique(np.concatenate((*owners.values(), np.empty(0, np.int64))))
    known = Siblings.of(wanted, snapshot.owners.items, snapshot.live.items)
    lexical, count = snapshot.lexical, snapshot.documents
    whole = {}
    for at, (slots, scores) in worded.items():
        words = asked[at].words
        documents, places = np.unique(owners[at], return_inverse=True)
        theirs = lexical.together(words, known.some(documents), snapshot.owners.items, count)
        theirs *= np.float32(words.norm)
        whole[at] = slots, (scores + theirs[places]) / np.float32(2.0)
    return whole


def _one_of_each_document(snapshot: Snapshot, slots: Ints) -> Ints:
    """Return the positions of the best passage of each document, then of those that share the metadata field."""
    kept: Ints = np.arange(len(slots))
    if snapshot.passages:
        kept = firsts(snapshot.owners.items[slots])
    if GROUP_FIELD in snapshot.columns.fields:
        kept = kept[firsts(snapshot.columns.groups(GROUP_FIELD, slots[kept]))]
    return kept


def firsts(groups: Ints) -> Ints:
    """Return the position of the first of each group, ascending; below 0 is none."""
    alone = groups < 0
    firsts: Ints = np.sort(np.unique(np.where(alone, -1 - np.arange(len(groups)), groups), return_index=True)[1])
    return firsts
