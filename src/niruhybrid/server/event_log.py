"""The events of one answer, kept so that it can be read again: bounded, numbered from 1. Pure: no clock, no task.

A reader has a cursor, the number of the last event it has. The fastest reader sets the pace: what it has not taken is
never dropped, so whoever makes the answer waits until there is room. What it has taken makes room when room is needed;
a slower reader that still wanted it can't go on, and is told so. While nothing needs the room, everything is kept.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

__all__ = ("EventLog", "Shelf", "Window", "position")

_DIGITS = 12


def position(last_event_id: str) -> tuple[str, int] | None:
    """Return stream and number of an event id, `<stream>:<n>`; None if it isn't one."""
    stream, colon, number = last_event_id.rpartition(":")
    if not (colon and stream and number.isascii() and number.isdigit() and len(number) <= _DIGITS):
        return None
    return stream, int(number)


@dataclass(frozen=True, slots=True)
class Window:
    """What one log keeps.

    Attributes:
        events: events at the most, from 1.
        size: bytes; the event that exceeds them is still let in.
    """

    events: int
    size: int


class EventLog:
    """The frames of one answer, the oldest given up when room is needed and they were read.

    Args:
        window: what is kept.
        last: number of the event after which it begins.

    Attributes:
        last: number of the newest event; 0 before the first.
        ended: whether no event will follow.
        size: bytes kept.
    """

    __slots__ = ("_frames", "_furthest", "_window", "ended", "last", "size")

    def __init__(self, window: Window, last: int = 0) -> None:
        self._window = window
        self._frames: deque[bytes] = deque()
        self._furthest = last
        self.last = last
        self.ended = False
        self.size = 0

    @property
    def first(self) -> int:
        """Number of the oldest event kept; one more than `last` when there is none."""
        return self.last - len(self._frames) + 1

    def has_room(self) -> bool:
        """Give up what was read, as far as room is needed, and return whether one more event fits."""
        while self._full() and self.first <= self._furthest:
            self.size -= len(self._frames.popleft())
        return not self._full()

    def append(self, frame: bytes, *, ends: bool = False) -> None:
        """Keep the next event. One that `ends` the answer is always kept; ask `has_room` before any other."""
        self._frames.append(frame)
        self.size += len(frame)
        self.last += 1
        self.ended = ends

    def read(self, after: int, most: int) -> list[bytes] | None:
        """Return events as `peek` does, and count them as taken."""
        frames = self.peek(after, most)
        if frames is not None:
            self._furthest = max(self._furthest, after + len(frames))
        return frames

    def peek(self, after: int, most: int) -> list[bytes] | None:
        """Return events that follow number `after`, in order.

        Args:
            after: number of the last event the reader has; 0 for none.
            most: bytes; the event that exceeds them is still returned.

        Returns:
            At least one event if there is one, or None if the next one is not here and never will be.
        """
        if after > self.last or after + 1 < self.first:
            return None
        frames: list[bytes] = []
        total, start = 0, after + 1 - self.first
        for at in range(start, len(self._frames)):
            frames.append(self._frames[at])
            total += len(self._frames[at])
            if total >= most:
                break
        return frames

    def _full(self) -> bool:
        return len(self._frames) >= self._window.events or self.size >= self._window.size


class Shelf:
    """Which ended answers are kept: each for so long, so many, so large together; the oldest goes first.

    Args:
        seconds: how long each is kept.
        most: answers.
        size: bytes of all.
    """

    def __init__(self, seconds: float, most: int, size: int) -> None:
        self._seconds = seconds
        self._most = most
        self._allowed = size
        self._kept: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._size = 0

    def put(self, name: str, size: int, now: float) -> list[str]:
        """Keep an answer of `size` bytes from `now` on; return the names of those that are to go, perhaps its own."""
        self._kept[name] = (now + self._seconds, size)
        self._size += size
        gone = self.expire(now)
        while self._kept and (len(self._kept) > self._most or self._size > self._allowed):
            gone.append(self._pop())
        return gone

    def expire(self, now: float) -> list[str]:
        """Return the names of those whose time is up, and forget them."""
        gone = []
        while (due := self.due()) is not None and due <= now:
            gone.append(self._pop())
        return gone

    def due(self) -> float | None:
        """Return when the next one's time is up; None when nothing is kept."""
        return next(iter(self._kept.values()))[0] if self._kept else None

    def _pop(self) -> str:
        name, (_, size) = self._kept.popitem(last=False)
        self._size -= size
        return name
