"""A batch of queries against one snapshot: both halves, their fusion, the best passage of each document. Pure."""

from collections.abc import Mapping, Sequence

import orjson

from niruhybrid.retrieval import fusion
from niruhybrid.retrieval.snapshot import Mask, Snapshot
from niruhybrid.types import SearchRequest

__all__ = ("GROUP_FIELD", "best_slots")

GROUP_FIELD = "document"
"""Metadata field that passages of one document share."""

_DEPTH = 100
_DEPTH_PER_HIT = 4
_DEEPER = 4

Best = list[tuple[int, float]]


def best_slots(snapshot: Snapshot, requests: Sequence[SearchRequest], dense_weight: float) -> list[Best]:
    """Return the best slots of each request with their scores, best first.

    Both halves look at least 100 deep, or four times `top_k`; deeper where the best are passages of few documents.
    """
    found: list[Best] = [[] for _ in requests]
    allowed = _allowed(snapshot, requests)
    terms = [() if request.mode == "dense" else request.terms for request in requests]
    norms = snapshot.lexical.norms(terms)
    depths = {at: max(_DEPTH, _DEPTH_PER_HIT * request.top_k) for at, request in enumerate(requests)}
    while depths:
        asked = list(depths)
        near = _dense(
            snapshot, [requests[at] for at in asked], [depths[at] for at in asked], [allowed[at] for at in asked]
        )
        worded = snapshot.lexical.search(
            [terms[at] for at in asked], [depths[at] for at in asked], [allowed[at] for at in asked]
        )
        for at, dense, lexical in zip(asked, near, worded, strict=True):
            halves = (dense if _by_meaning(requests[at]) else None), (lexical if terms[at] else None)
            best = fusion.ranked(fusion.weighted_sum(*halves, dense_weight, norms[at]).items())
            found[at] = _one_of_each_document(snapshot, best)
            depth, wanted = depths.pop(at), requests[at].top_k
            if len(found[at]) < min(wanted, len(best)) and depth <= max(len(dense), len(lexical)):
                depths[at] = depth * _DEEPER
            found[at] = found[at][:wanted]
    return found


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


def _dense(
    snapshot: Snapshot, requests: Sequence[SearchRequest], depths: Sequence[int], allowed: Sequence[Mask]
) -> list[dict[int, float]]:
    vectors = {at: request.vector for at, request in enumerate(requests) if _by_meaning(request)}
    found = snapshot.dense.search(
        [vector for vector in vectors.values() if vector is not None],
        [depths[at] for at in vectors],
        [allowed[at] for at in vectors],
    )
    by_place = dict(zip(vectors, found, strict=True))
    return [by_place.get(at, {}) for at in range(len(requests))]


def _by_meaning(request: SearchRequest) -> bool:
    return request.vector is not None and request.mode != "lexical"


def _one_of_each_document(snapshot: Snapshot, best: Best) -> Best:
    """Keep the best passage of each document, then the best of those that share the metadata field."""
    if snapshot.passages:
        slots = [slot for slot, _ in best]
        best = _one_of_each(best, dict(zip(slots, snapshot.owners.items[slots].tolist(), strict=True)))
    return _one_of_each(best, snapshot.columns.groups(GROUP_FIELD, (slot for slot, _ in best)))


def _one_of_each(best: Best, groups: Mapping[int, int]) -> Best:
    """Keep the first of each group, and those without."""
    if not groups:
        return best
    seen: set[int] = set()
    kept = []
    for slot, score in best:
        group = groups.get(slot)
        if group is not None and group in seen:
            continue
        if group is not None:
            seen.add(group)
        kept.append((slot, score))
    return kept
