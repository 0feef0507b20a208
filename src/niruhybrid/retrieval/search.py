"""A batch of queries against one snapshot: both halves, their fusion, the best passage of each document. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from niruhybrid.retrieval.asked import Asked, depth_of
from niruhybrid.retrieval.candidates import Candidates
from niruhybrid.retrieval.exhaustive import Exhaustive
from niruhybrid.retrieval.fusion import ranked_weighted_sum
from niruhybrid.retrieval.snapshot import Mask, Snapshot
from niruhybrid.types import SearchRequest

__all__ = ("DEEPER", "GROUP_FIELD", "best_slots", "firsts")

GROUP_FIELD = "document"
"""Metadata field that passages of one document share."""

DEEPER = 4
"""Times deeper, where the best are passages of few documents."""

Best = list[tuple[int, float]]
Ints = NDArray[Any]


def best_slots(
    snapshot: Snapshot, requests: Sequence[SearchRequest], dense_weight: float, *, exhaustive: bool | None = None
) -> list[Best]:
    """Return the best slots of each request with their scores, best first.

    Of few documents all are scored, of many those that may be among the best: four times `top_k` at least, more where
    the best are passages of few documents. All scores are exact.

    Args:
        snapshot: what is searched.
        requests: the queries.
        dense_weight: share of the dense half.
        exhaustive: whether all documents are scored; None where there are so few that all vectors are compared anyway.
    """
    texts = [() if request.mode == "dense" else request.terms for request in requests]
    asked = list(map(Asked, requests, snapshot.lexical.weighed(texts), _allowed(snapshot, requests)))
    every = snapshot.dense.sieve is None if exhaustive is None else exhaustive
    looking = (
        Exhaustive(snapshot, asked, dense_weight) if every else Candidates(snapshot, asked, dense_weight, GROUP_FIELD)
    )
    found: list[Best] = [[] for _ in requests]
    depths = {at: depth_of(request, looking.least) for at, request in enumerate(requests)}
    while depths:
        deeper: dict[int, int] = {}
        for at, (rows, cosines, words) in looking.best(depths).items():
            wanted = requests[at].top_k
            slots, scores = ranked_weighted_sum(rows, cosines, words, dense_weight, asked[at].words.norm)
            kept = _one_of_each_document(snapshot, slots)
            best = kept[:wanted]
            found[at] = list(zip(slots[best].tolist(), scores[best].tolist(), strict=True))
            if len(kept) < min(wanted, len(slots)) and depths[at] <= len(slots):
                deeper[at] = depths[at] * DEEPER
        depths = deeper
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
