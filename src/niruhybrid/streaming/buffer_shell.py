"""What both buffers share besides waiting: settings, a lock around `BufferCore`, counters, closing, adding threads."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from time import monotonic
from typing import Any, TypeVar

from niruhybrid.config import Overflow, StreamingConfig
from niruhybrid.errors import ClosedError, InvalidSettingError, QueueFullError
from niruhybrid.streaming.core import Adder, BufferCore, Entry, size_of
from niruhybrid.streaming.waiting import LoopWaiter, ThreadWaiter, checked_wait
from niruhybrid.types import BufferStats, StreamItem
from niruhybrid.types.checks import NO_METADATA

__all__ = ("Buffer", "OnDrop")

OnDrop = Callable[[StreamItem, str], None]
"""Called with each dropped item and the reason."""

_W = TypeVar("_W", ThreadWaiter, LoopWaiter)
_log = logging.getLogger(__name__)


class Buffer:
    """What both buffers share: settings, the lock, counters, closing, and adding from a thread."""

    def __init__(
        self,
        buffer_size: int | None = None,
        timeout: float | None = None,
        batch_size: int | None = None,
        *,
        overflow: Overflow | None = None,
        max_bytes: int | None = None,
        on_drop: OnDrop | None = None,
        config: StreamingConfig | None = None,
    ) -> None:
        given = {
            "buffer_size": buffer_size,
            "buffer_timeout": timeout,
            "batch_size": batch_size,
            "overflow": overflow,
            "buffer_bytes": max_bytes,
        }
        explicit: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        settings = replace(config or StreamingConfig(), **explicit)
        self._timeout = settings.buffer_timeout
        self._batch_size = settings.batch_size
        self._on_drop = on_drop
        self._core = BufferCore(settings.buffer_size, settings.buffer_bytes, settings.overflow)
        self._entries = self._core.entries
        self._lock = threading.Lock()
        self._acquire, self._release = self._lock.acquire, self._lock.release  # half the price of `with`, once an item

    def __len__(self) -> int:
        return len(self._core)

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._core.closed

    def close(self) -> None:
        """Accept nothing more; what is inside is still delivered, without waiting. May be called again."""
        with self._lock:
            self._core.close()

    def stats(self) -> BufferStats:
        """Return all counters of one instant."""
        with self._lock:
            return self._core.stats(monotonic())

    def _batch_terms(self, max_items: int | None, timeout: float | None) -> tuple[int, float]:
        if max_items is None:
            max_items = self._batch_size
        elif isinstance(max_items, bool) or not isinstance(max_items, int) or max_items < 1:
            raise InvalidSettingError(f"`max_items` is {max_items!r}: give a whole number from 1")
        return max_items, self._timeout if timeout is None else checked_wait(timeout)

    def _append(self, pairs: Sequence[tuple[str, Any]]) -> int:
        """Add as many of the first items as there is plainly room for; return how many."""
        with self._lock:
            now = monotonic()
            count = min(max(0, self._core.plain_below - len(self._entries)), len(pairs))
            self._entries.extend([(item_id, data, NO_METADATA, now) for item_id, data in pairs[:count]])
        return count

    def _add_blocking(self, entry: Entry, timeout: float | None) -> None:
        """Add an item for which there may be no room; wait, if need be, in this thread."""
        longest = inf if timeout is None else checked_wait(timeout)
        parked = self._offer(entry, self._size(entry), ThreadWaiter)
        if parked is None:
            return
        adder, waiter = parked
        try:
            waiter.wait(longest)
        except BaseException:
            with self._lock:
                self._core.retract(adder, monotonic())
            raise
        self._settle(adder, timeout)

    def _size(self, entry: Entry) -> int:
        return 0 if self._core.max_bytes is None else size_of(entry[1], entry[2])

    def _offer(self, entry: Entry, size: int, waiter_type: type[_W]) -> tuple[Adder, _W] | None:
        """Have the core decide; return what to wait with, if the item has to wait for room."""
        with self._lock:
            dropped = self._core.offer(entry, size)
            if dropped is None:
                waiter = waiter_type()
                return self._core.park(entry, size, waiter.wake), waiter
        self._report(dropped)
        return None

    def _settle(self, adder: Adder, timeout: float | None) -> None:
        """End an add that has waited: return if its item is in, raise if it isn't."""
        with self._lock:
            if self._core.withdraw(adder, "full", monotonic()):
                raise QueueFullError(f"no room within {timeout} s, {self._core.full()}")
        if adder.state == "closed":
            raise ClosedError("buffer was closed while `add` waited for room: the item was not added")

    def _report(self, dropped: Sequence[StreamItem]) -> None:
        """Tell `on_drop`. What it raises is logged and goes no further: the buffer has done its part."""
        if self._on_drop is None:
            return
        for item in dropped:
            try:
                self._on_drop(item, self._core.overflow)
            except Exception:  # noqa: BLE001  # a callback may raise anything
                _log.exception("on_drop_failed reason=%s", self._core.overflow)
