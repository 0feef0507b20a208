"""The bounded buffer as pure decisions: no lock, no clock, no thread, no task.

Items enter by `offer` and leave by `take`, in the order they entered. Entering is nearly always a matter of course, and
then the caller may spare itself the call: see `plain_below`.
Whoever has to wait leaves a `Taker` or an `Adder` behind; its `wake` is called once, when it has reason to come back.
Times are monotonic seconds and arrive as arguments. The caller makes the calls one at a time.
"""

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from itertools import repeat
from math import inf
from types import MappingProxyType
from typing import Any, TypeAlias

from niruhybrid.config import Overflow
from niruhybrid.errors import ClosedError, InvalidInputError, QueueFullError
from niruhybrid.types import BufferStats, Metadata, StreamItem

__all__ = ("Adder", "BufferCore", "Entry", "Taker", "size_of")

Entry: TypeAlias = tuple[str, Any, Metadata, float]
"""An item inside the buffer: the fields of a `StreamItem`, which is made of it on the way out."""


@dataclass(slots=True, eq=False)
class Taker:
    """Somebody who waits for items.

    Attributes:
        want: items that make the batch full.
        wake: called once; must only signal.
        called: whether it has been.
    """

    want: int
    wake: Callable[[], None]
    called: bool = False


@dataclass(slots=True, eq=False)
class Adder:
    """Somebody who waits for room.

    Attributes:
        entry: the item; its time is that of its admission.
        size: bytes it is estimated at.
        wake: called once, when the item is in or never will be; must only signal.
        state: `waiting`, then for good `in`, `closed` or `withdrawn`.
    """

    entry: Entry
    size: int
    wake: Callable[[], None]
    state: str = "waiting"


class BufferCore:
    """A bounded first-in, first-out buffer that takes every decision and waits for nothing.

    Args:
        capacity: items it holds at the most; at least 1.
        max_bytes: bytes it holds at the most, as `size_of` estimates them; None for no such bound.
        overflow: what becomes of an item for which there is no room.

    Attributes:
        entries: what is inside, oldest first.
        plain_below: while `entries` is shorter than this, to append to it is all that `offer` would do: there is room,
            nobody waits for any, and nobody's batch gets full.
        closed: whether `close` has been called.
    """

    def __init__(self, capacity: int, max_bytes: int | None = None, overflow: Overflow = "drop_oldest") -> None:
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.overflow = overflow
        self.closed = False
        self.entries: deque[Entry] = deque()
        self.plain_below = 0
        self._oldest = iter(self.entries.popleft, None)  # its `next` removes and returns the oldest
        self._sizes: deque[int] = deque()  # of the entries; used only with a byte bound
        self._bytes = 0
        self._tight = False  # the bytes ran out before the items did: no batch can get any fuller
        self._adders: deque[Adder] = deque()
        self._takers: list[Taker] = []
        self._promised = 0  # items that takers already called have come to fetch
        self._call_at = sys.maxsize  # at this many items a waiting taker's batch is full
        self._delivered = self._batches = self._displaced = self._peak = 0
        self._dropped: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._watch()

    def __len__(self) -> int:
        return len(self.entries)

    def offer(self, entry: Entry, size: int) -> Sequence[StreamItem] | None:
        """Decide about an item of `size` bytes.

        Returns:
            What the overflow policy dropped for it (`drop_newest`: the item itself); empty if there was room.
            None if it has to wait: see `park`.

        Raises:
            ClosedError: the buffer is closed.
            InvalidInputError: the item alone is larger than the byte bound.
            QueueFullError: there is no room and the policy is `error`.
        """
        if self.closed:
            self._rejected["closed"] += 1
            raise ClosedError("buffer is closed: add to it before closing it")
        if self.max_bytes is not None and size > self.max_bytes:
            self._rejected["too_large"] += 1
            raise InvalidInputError(f"item has {size} bytes of {self.max_bytes}: split it or raise `max_bytes`")
        if not self._adders and self._has_room(size):
            self._enter(entry, size)
            return ()
        return self._overflow(entry, size)

    def would_drop(self, size: int) -> bool:
        """Whether `offer` would drop something for an item of `size` bytes."""
        return self.overflow.startswith("drop") and not self.closed and not self._has_room(size)

    def park(self, entry: Entry, size: int, wake: Callable[[], None]) -> Adder:
        """Let an item that `offer` had no room for wait its turn."""
        adder = Adder(entry, size, wake)
        self._adders.append(adder)
        return adder

    def withdraw(self, adder: Adder, reason: str, now: float) -> bool:
        """Give up waiting for room; return False if the item is in, or the buffer closed, already."""
        if adder.state != "waiting":
            return False
        self._adders.remove(adder)
        adder.state = "withdrawn"
        self._rejected[reason] += 1
        self._let_in(now)
        return True

    def retract(self, adder: Adder, now: float) -> bool:
        """Undo an add that was cancelled: withdraw it or, if it is in but not yet taken, take it out again."""
        if self.withdraw(adder, "cancelled", now):
            return True
        place = next((i for i, entry in enumerate(self.entries) if entry is adder.entry), None)
        if adder.state != "in" or place is None:
            return False
        self._peak = max(self._peak, len(self.entries))
        del self.entries[place]
        if self.max_bytes is not None:
            del self._sizes[place]
            self._bytes -= adder.size
        adder.state = "withdrawn"
        self._rejected["cancelled"] += 1
        self._let_in(now)
        return True

    def due(self, want: int, timeout: float, give_up: float) -> float:
        """Say from when on a batch may be taken: -inf for at once, inf for not before something happens.

        Args:
            want: items that make the batch full.
            timeout: seconds the oldest item may wait for that.
            give_up: when to go without any item.
        """
        if len(self.entries) >= min(want, self.capacity) or self.closed or self._tight:
            return -inf
        return self.entries[0][3] + timeout if self.entries else give_up

    def take(self, want: int, now: float) -> list[StreamItem]:
        """Return the oldest items, at most `want`, and let in who waited for their room."""
        count = min(want, len(self.entries))
        if count == 0:
            return []
        self._peak = max(self._peak, len(self.entries))
        self._delivered += count
        self._batches += 1
        batch = list(map(tuple.__new__, repeat(StreamItem, count), self._oldest))
        self._free(count)
        if self._adders:
            self._let_in(now)
        return batch

    def wait(self, want: int, wake: Callable[[], None]) -> Taker:
        """Enlist somebody to be woken when `want` items are there, or no more can come."""
        taker = Taker(min(want, self.capacity), wake)
        self._takers.append(taker)
        self._watch()
        return taker

    def leave(self, taker: Taker) -> None:
        """Strike a taker off, woken or not; what it was woken for goes to the next unless it is taken first."""
        if taker.called:
            self._promised -= taker.want
        else:
            self._takers.remove(taker)
        self._call_takers()

    def close(self) -> None:
        """Accept nothing more and wake everybody; what is inside can still be taken."""
        self.closed = True
        for adder in self._adders:
            adder.state = "closed"
            self._rejected["closed"] += 1
            adder.wake()
        self._adders.clear()
        self._call_takers()

    def stats(self, now: float) -> BufferStats:
        """Return the counters as they are at `now`."""
        size = len(self.entries)
        accepted = self._delivered + size + self._displaced
        refused = self._rejected.total() + self._dropped.total() - self._displaced
        return BufferStats(
            size=size,
            size_bytes=self._bytes,
            capacity=self.capacity,
            capacity_bytes=self.max_bytes,
            offered=accepted + refused,
            accepted=accepted,
            delivered=self._delivered,
            dropped=MappingProxyType(dict(self._dropped)),
            rejected=MappingProxyType(dict(self._rejected)),
            batches=self._batches,
            peak=max(self._peak, size),
            oldest_age=max(0.0, now - self.entries[0][3]) if size else 0.0,
        )

    def _has_room(self, size: int) -> bool:
        if len(self.entries) >= self.capacity:
            return False
        return self.max_bytes is None or self._bytes + size <= self.max_bytes

    def _enter(self, entry: Entry, size: int) -> None:
        self.entries.append(entry)
        if self.max_bytes is not None:
            self._sizes.append(size)
            self._bytes += size
        if len(self.entries) >= self._call_at:
            self._call_takers()

    def _overflow(self, entry: Entry, size: int) -> Sequence[StreamItem] | None:
        self._tighten()
        if self.overflow == "block":
            return None
        if self.overflow == "error":
            self._rejected["full"] += 1
            raise QueueFullError(self.full())
        if self.overflow == "drop_newest":
            self._dropped["drop_newest"] += 1
            return (StreamItem(*entry),)
        return self._displace_for(entry, size)

    def _displace_for(self, entry: Entry, size: int) -> Sequence[StreamItem]:
        self._peak = max(self._peak, len(self.entries))
        dropped = []
        while not self._has_room(size):
            dropped.append(StreamItem(*self.entries.popleft()))
            self._free(1)
        self._displaced += len(dropped)
        self._dropped["drop_oldest"] += len(dropped)
        self._enter(entry, size)
        self._tighten()
        return dropped

    def _tighten(self) -> None:
        """Note that there is no more room, if not for want of items, and have a taker come at once."""
        if len(self.entries) < self.capacity:
            self._tight = True
            self._call_takers()

    def full(self) -> str:
        """Say, for an error, how full the buffer is and what to do about it."""
        of_bytes = "" if self.max_bytes is None else f" and {self._bytes} of {self.max_bytes} bytes"
        setting = "`buffer_size`" if self.max_bytes is None else "`buffer_size` or `max_bytes`"
        return f"buffer holds {len(self.entries)} of {self.capacity} items{of_bytes}: retry later or raise {setting}"

    def _free(self, count: int) -> None:
        """Give back the bytes of the `count` oldest items, which have left."""
        self._tight = False
        if self.max_bytes is not None:
            for _ in range(count):
                self._bytes -= self._sizes.popleft()

    def _let_in(self, now: float) -> None:
        """Admit those who wait, in turn, as far as there is room."""
        adders = self._adders
        while adders and self._has_room(adders[0].size):
            adder = adders.popleft()
            item_id, data, metadata, _ = adder.entry
            adder.entry = (item_id, data, metadata, now)
            adder.state = "in"
            self._enter(adder.entry, adder.size)
            adder.wake()
        self._tight = bool(adders) and len(self.entries) < self.capacity
        self._watch()

    def _call_takers(self) -> None:
        """Wake, in turn, those takers whose batch is full, or who wait in vain."""
        size = len(self.entries)
        for taker in tuple(self._takers):
            if self.closed or self._promised + taker.want <= size or (self._tight and not self._promised):
                self._takers.remove(taker)
                taker.called = True
                self._promised += taker.want
                taker.wake()
        self._watch()

    def _watch(self) -> None:
        """Note from how many items on the next one takes more than to append it."""
        self._call_at = min((self._promised + taker.want for taker in self._takers), default=sys.maxsize)
        plain = self.max_bytes is None and not self.closed
        self.plain_below = min(self.capacity, self._call_at - 1) if plain else 0


def size_of(*values: object) -> int:
    """Estimate bytes: of texts in UTF-8, of binary data and arrays, also inside mappings, sequences and dataclasses.

    Everything else counts nothing, and so does a container met a second time.
    """
    total = 0
    seen: set[int] = set()
    todo = list(values)
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            total += len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        elif isinstance(value, bytes | bytearray):
            total += len(value)
        elif isinstance(nbytes := getattr(value, "nbytes", None), int):
            total += nbytes
        elif id(value) not in seen and (parts := _parts(value)) is not None:
            seen.add(id(value))
            todo.extend(parts)
    return total


def _parts(value: object) -> Iterable[object] | None:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if is_dataclass(value):
        return [getattr(value, name) for name in value.__dataclass_fields__ if hasattr(value, name)]
    return None
