"""What may be among the best of many documents: each half names its own, and scores those of the other. Pure."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.asked import LEAST, Asked, Scored
from niruhybrid.retrieval.fusion import words_needed
from niruhybrid.retrieval.matching import Enough
from niruhybrid.retrieval.siblings import Siblings
from niruhybrid.retrieval.snapshot import Snapshot
from niruhybrid.types import Vector

__all__ = ("Candidates",)

Depths = Mapping[int, int]
Ints = NDArray[Any]
Half = tuple[Ints, NDArray[np.float32]]
"""Slots, ascending, and their scores."""

_NOTHING: Half = np.empty(0, np.intp), np.empty(0, np.float32)


class Candidates:
    """Looks for the best by each half, and scores exactly what either finds.

    Where no document has several passages, words are looked at only of what they could still lift among the best. The
    score of a passage's words is the mean of its own and its document's, each as a share of its query's length:
    `fusion.term_norm`.

    Args:
        snapshot: what is searched.
        asked: the queries of a batch.
        dense_weight: share of the dense half in the scores.
        group_field: metadata field that passages of one document share.

    Attributes:
        least: how deep it looks at least.
    """

    least = LEAST

    def __init__(self, snapshot: Snapshot, asked: Sequence[Asked], dense_weight: float, group_field: str) -> None:
        self._snapshot = snapshot
        self._asked = asked
        self._weight = dense_weight
        self._apart = not snapshot.passages and group_field not in snapshot.columns.fields

    def best(self, depths: Depths) -> dict[int, Scored]:
        """Return what may be among the best of some queries, by their places, each so deep."""
        near = self._near(depths)
        worded = self._worded(depths, near)
        whole = self._with_documents(worded) if self._snapshot.passages else worded
        found = {}
        for at in depths:
            slots = (whole.get(at) or near.get(at) or _NOTHING)[0]
            cosines = None if at not in near else self._cosines(self._asked[at].vector, slots, near[at])
            found[at] = Scored(slots, cosines, whole[at][1] if at in whole else None)
        return found

    def _near(self, depths: Depths) -> dict[int, Half]:
        """Return what is near each query that goes by meaning."""
        near = {at: vector for at in depths if (vector := self._asked[at].vector) is not None}
        found = self._snapshot.dense.search(
            list(near.values()), [depths[at] for at in near], [self._asked[at].allowed for at in near]
        )
        return dict(zip(near, found, strict=True))

    def _cosines(self, query: Vector | None, slots: Ints, near: Half) -> NDArray[np.float32]:
        """Return the cosine of each of the slots, ascending, which are those that are `near` and more."""
        cosines = np.empty(len(slots), np.float32)
        known = np.zeros(len(slots), np.bool_)
        known[slots.searchsorted(near[0])] = True
        cosines[known] = near[1]
        if len(near[0]) < len(slots) and query is not None:
            cosines[~known] = self._snapshot.dense.products(query, slots[~known])
        return cosines

    def _worded(self, depths: Depths, near: Mapping[int, Half]) -> dict[int, Half]:
        """Return what has words of each query that has any, and what is near it, scored by words."""
        worded = [at for at in depths if self._asked[at].words.size]
        found = self._snapshot.lexical.search(
            [self._asked[at].words for at in worded],
            [depths[at] for at in worded],
            [self._asked[at].allowed for at in worded],
            [near.get(at, _NOTHING)[0] for at in worded],
            [self._enough(self._asked[at], near[at]) if at in near and self._apart else None for at in worded],
        )
        return dict(zip(worded, found, strict=True))

    def _enough(self, asked: Asked, near: Half) -> Enough:
        """Return what tells which words a slot needs that is not near; no hit may stand for another."""
        return partial(words_needed, near[1], wanted=asked.request.top_k, weight=self._weight, norm=asked.words.norm)

    def _with_documents(self, worded: Mapping[int, Half]) -> dict[int, Half]:
        """Return scores of words that are the means of the passages' own and of their documents'."""
        snapshot = self._snapshot
        owners = {at: snapshot.owners.items[slots] for at, (slots, _) in worded.items()}
        wanted = np.unique(np.concatenate((*owners.values(), np.empty(0, np.int64))))
        known = Siblings.of(wanted, snapshot.owners.items, snapshot.live.items)
        whole = {}
        for at, (slots, scores) in worded.items():
            words = self._asked[at].words
            documents, places = np.unique(owners[at], return_inverse=True)
            theirs = snapshot.lexical.together(words, known.some(documents))
            theirs *= np.float32(words.norm)
            whole[at] = slots, (scores + theirs[places]) / np.float32(2.0)
        return whole
