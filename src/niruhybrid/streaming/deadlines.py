"""When accepted items are given up: the next deadline, and all that have passed. Pure: no clock, no lock."""

import heapq
from collections.abc import Iterator
from itertools import count
from math import inf

from niruhybrid.streaming.lanes import Job

__all__ = ("Deadlines",)

_SLACK = 64  # ended items kept beyond as many as live ones


class Deadlines:
    """All items that have not ended, by their deadlines, and a bounded number of those that have.

    An item with an infinite deadline is never due.
    """

    __slots__ = ("_compact_above", "_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Job]] = []
        self._order = count()  # items with the same deadline are not compared with each other
        self._compact_above = _SLACK

    def __len__(self) -> int:
        """How many are kept, ended items included."""
        return len(self._heap)

    def add(self, job: Job) -> None:
        """Watch an item's deadline."""
        heapq.heappush(self._heap, (job.deadline, next(self._order), job))
        if len(self._heap) > self._compact_above:
            self._compact()

    def due(self, now: float) -> Iterator[Job]:
        """Hand out the live items whose deadline is now or has passed, each once."""
        while self._heap and self._heap[0][0] <= now:
            job = heapq.heappop(self._heap)[2]
            if job.state != "ended":
                yield job

    def next(self) -> float | None:
        """Return the first deadline of a live item, in monotonic seconds; None if no live item has one."""
        while self._heap and self._heap[0][2].state == "ended":
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap and self._heap[0][0] < inf else None

    def live(self) -> list[Job]:
        """Return the items that have not ended."""
        return [job for _, _, job in self._heap if job.state != "ended"]

    def _compact(self) -> None:
        """Let go of ended items before they outnumber the live ones."""
        self._heap = [entry for entry in self._heap if entry[2].state != "ended"]
        heapq.heapify(self._heap)
        self._compact_above = 2 * len(self._heap) + _SLACK
