"""How much of what matches a standing query is passed on. Pure; the time is an argument.

A query with a cap is to have the best of each minute, and each at once, before the minute is over. So its threshold is
the price of an auction that never ends: it falls by 1 a minute, and rises by 1/cap with each match that reaches it. It
begins at `min_score`, or without one at .5. After a quiet minute it is down at the floor and takes what comes; in a
stream of matches it settles where `cap` of them a minute reach it, which are the best. Besides, no sixty seconds ever
have more than `cap`: what reaches the threshold beyond that only raises it.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.growing import Growing

__all__ = ("FLOOR", "Quotas")

FLOOR = 0.0
"""Least score without a `min_score`: what an unrelated document has."""

_MINUTE = 60.0
_FALL = 1.0  # a minute; about the range of scores
_FIRST = 0.5  # threshold at first without a `min_score`: not just anything is to use up the first minute


class Quotas:
    """The thresholds of many queries, by slot. Not thread-safe."""

    def __init__(self) -> None:
        self._floors: Growing[np.float64] = Growing.empty(np.float64)
        self._levels: Growing[np.float64] = Growing.empty(np.float64)  # thresholds at `_since`; -inf without a cap
        self._since: Growing[np.float64] = Growing.empty(np.float64)
        self._caps: dict[int, int] = {}
        self._passed: dict[int, deque[float]] = {}

    def add(self, min_score: float | None, cap: int | None, now: float) -> None:
        """Add the next slot; `cap` is of matches in a minute."""
        floor, first = (FLOOR, _FIRST) if min_score is None else (min_score, min_score)
        slot = len(self._floors)
        self._floors = self._floors.extended([floor])
        self._levels = self._levels.extended([-np.inf if cap is None else first])
        self._since = self._since.extended([now])
        if cap is not None:
            self._caps[slot], self._passed[slot] = cap, deque(maxlen=cap)

    def least(self, now: float) -> NDArray[np.float64]:
        """Return the score that a match of each slot must have, `(slots,)`."""
        fallen = self._levels.items - (now - self._since.items) * (_FALL / _MINUTE)
        least: NDArray[np.float64] = np.maximum(self._floors.items, fallen)
        return least

    def admit(self, slot: int, score: float, now: float) -> bool:
        """Return whether a match is to be passed on; it then counts as passed on.

        Args:
            slot: of the query.
            score: of the match. Of matches that come at once the best is to be asked for first.
            now: seconds, never less than before.
        """
        floor, cap = float(self._floors.items[slot]), self._caps.get(slot)
        if cap is None:
            return score >= floor
        fallen = float(self._levels.items[slot]) - (now - float(self._since.items[slot])) * (_FALL / _MINUTE)
        level = max(floor, fallen)
        if score < level:
            return False
        self._levels.items[slot], self._since.items[slot] = level + _FALL / cap, now
        passed = self._passed[slot]
        if len(passed) == cap and now - passed[0] < _MINUTE:
            return False
        passed.append(now)
        return True

    def compact(self, kept: NDArray[np.bool_]) -> None:
        """Close up the slots that are not kept."""
        places = np.cumsum(kept) - 1
        self._floors, self._levels, self._since = (
            Growing.of(one.items[kept]) for one in (self._floors, self._levels, self._since)
        )
        for table in (self._caps, self._passed):
            moved = {int(places[slot]): value for slot, value in table.items() if kept[slot]}
            table.clear()
            table.update(moved)  # type: ignore[arg-type]  # each keeps its own values
