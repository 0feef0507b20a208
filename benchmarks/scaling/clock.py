"""Simulated time: things happen in the order of their moments, and none while another does."""

import heapq
from collections.abc import Callable
from itertools import count

__all__ = ("Clock",)


class Clock:
    """What is still to happen, and when.

    Attributes:
        now: simulated seconds.
    """

    __slots__ = ("_events", "_order", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()  # what is to happen at one moment happens in the order it was asked for

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Have something happen at a moment, at once if that has passed."""
        heapq.heappush(self._events, (max(when, self.now), next(self._order), act))

    def run(self, until: float) -> None:
        """Let time go on to a moment; what happens then or later is left."""
        while self._events and self._events[0][0] < until:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = max(self.now, until)
