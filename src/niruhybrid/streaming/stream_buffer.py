"""Bounded buffers that hand items over in batches: `StreamBuffer` for threads, `AsyncStreamBuffer` for asyncio.

Every decision is `BufferCore`'s; what is here keeps its calls apart with a lock, reads the clock and waits. A waiting
caller sleeps until something it waits for has happened or its time is up: nothing polls, and nothing runs when idle.

When the buffer is full, `overflow` decides about one item more:

    drop_oldest     the oldest items make room (the default); counted, and reported to `on_drop`
    drop_newest     the item itself is dropped; counted, and reported to `on_drop`
    block           `add` waits for room, in turn, `timeout` seconds at the most
    error           `add` raises QueueFullError
"""

import asyncio
from collections.abc import Iterable
from itertools import islice
from math import inf
from time import monotonic
from typing import Any, Self

from niruhybrid.streaming.buffer_shell import Buffer
from niruhybrid.streaming.core import Entry
from niruhybrid.streaming.waiting import LoopWaiter, ThreadWaiter, checked_wait, in_event_loop
from niruhybrid.types import Metadata, StreamItem
from niruhybrid.types.checks import NO_METADATA, checked_id

__all__ = ("AsyncStreamBuffer", "StreamBuffer")


class StreamBuffer(Buffer):
    """A bounded buffer between threads that hands items over in batches; safe with any number of them.

    Items leave in the order they entered, each once. An argument left out takes its value from `config`.

    Args:
        buffer_size: items it holds at the most; 1000 by default.
        timeout: seconds the oldest item waits at the most for its batch to fill; 0.1 by default.
        batch_size: items in a batch at the most; 32 by default.
        overflow: what becomes of one item too many, see the module; `drop_oldest` by default.
        max_bytes: bytes it holds at the most, as estimated from texts and arrays in data and metadata.
        on_drop: called with each item that `overflow` drops and the name of the policy, in the adding thread.
        config: settings to start from.

    Raises:
        InvalidSettingError: a value is out of its range.
    """

    def add(self, item_id: str, data: Any, metadata: Metadata | None = None, *, timeout: float | None = None) -> None:
        """Add an item at the end.

        Args:
            item_id: the caller's name for it; need not be unique.
            data: anything.
            metadata: handed on beside it; None gives an empty mapping.
            timeout: seconds to wait for room, with `overflow="block"`; None waits as long as it takes.

        Raises:
            QueueFullError: there is no room and `overflow` is `error`, or none came in time.
            ClosedError: the buffer is closed, or was while waiting.
            InvalidInputError: the item alone exceeds `max_bytes`, or `item_id` is not a string.
        """
        if item_id.__class__ is not str:
            checked_id(item_id)
        self._acquire()
        try:
            entry = (item_id, data, NO_METADATA if metadata is None else metadata, monotonic())
            if len(self._entries) < self._core.plain_below:
                self._entries.append(entry)
                return
        finally:
            self._release()
        self._add_blocking(entry, timeout)

    def add_many(self, items: Iterable[tuple[str, Any]]) -> None:
        """Add pairs of id and data in order, at a fraction of the price of as many calls of `add`.

        It ends where an `add` would raise: the items before that one are in, it and those after it are not.

        Raises:
            QueueFullError: there is no room and `overflow` is `error`.
            ClosedError: the buffer is closed, or was while waiting.
            InvalidInputError: an item alone exceeds `max_bytes`.
        """
        source = iter(items)
        while chunk := list(islice(source, self._batch_size)):
            for item_id, data in chunk[self._append(chunk) :]:
                self.add(item_id, data)

    def get_batch(self, max_items: int | None = None, timeout: float | None = None) -> list[StreamItem]:
        """Return the oldest items, in order: as soon as the batch is full or the oldest has waited `timeout`.

        Args:
            max_items: items at the most; None takes `batch_size`.
            timeout: seconds, counted from the oldest item's arrival or, while the buffer is empty, from this call;
                None takes the buffer's own, 0 never waits.

        Returns:
            At least one item; none if the buffer stayed empty for `timeout`, or is closed and drained.

        Raises:
            InvalidSettingError: an argument is out of its range.
        """
        want, patience = self._batch_terms(max_items, timeout)
        return self._get(want, patience, monotonic() + patience)

    def _get(self, want: int, patience: float, give_up: float) -> list[StreamItem]:
        core, taker = self._core, None
        while True:
            with self._lock:
                now = monotonic()
                due = core.due(want, patience, give_up)
                batch = core.take(want, now) if due <= now else None
                if taker is not None:
                    core.leave(taker)
                if batch is not None:
                    return batch
                waiter = ThreadWaiter()
                taker = core.wait(want if due < inf else 1, waiter.wake)
            try:
                waiter.wait(due - now)
            except BaseException:
                with self._lock:
                    core.leave(taker)
                raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[StreamItem]:
        """Return the next batch, which is never empty; wait for it as long as it takes.

        Raises:
            StopIteration: the buffer is closed and drained.
        """
        batch = self._get(self._batch_size, self._timeout, inf)
        if not batch:
            raise StopIteration
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStreamBuffer(Buffer):
    """A bounded buffer within an event loop, or from threads into one, that hands items over in batches.

    Items leave in the order they entered, each once; a cancelled `get_batch` takes none. It belongs to no loop: one
    buffer can serve successive loops, and be closed and read (`stats`) from any thread.

    Arguments and errors are those of `StreamBuffer`; `on_drop` is called where `add` is, and must
    not block.
    """

    async def add(
        self,
        item_id: str,
        data: Any,
        metadata: Metadata | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # a bound on the wait for room, not on the call
    ) -> None:
        """Add an item at the end; suspend only if there is no room.

        A buffer about to drop first lets other tasks run once, so that one that takes has its chance. Cancelled while
        it waits, the item is not added; only if it was let in and taken at that very moment, it was.

        Arguments and errors are those of `StreamBuffer.add`.
        """
        if item_id.__class__ is not str:
            checked_id(item_id)
        self._acquire()
        try:
            entry = (item_id, data, NO_METADATA if metadata is None else metadata, monotonic())
            if len(self._entries) < self._core.plain_below:
                self._entries.append(entry)
                return
        finally:
            self._release()
        await self._add_waiting(entry, timeout)

    async def add_many(self, items: Iterable[tuple[str, Any]]) -> None:
        """Add pairs of id and data in order, at a fraction of the price of as many calls of `add`.

        It ends where an `add` would raise: the items before that one are in, it and those after it are not.

        Errors are those of `StreamBuffer.add_many`.
        """
        source = iter(items)
        while chunk := list(islice(source, self._batch_size)):
            for item_id, data in chunk[self._append(chunk) :]:
                await self.add(item_id, data)

    async def _add_waiting(self, entry: Entry, limit: float | None) -> None:
        longest = inf if limit is None else checked_wait(limit)
        size = self._size(entry)
        if self._core.would_drop(size):
            await asyncio.sleep(0)
        parked = self._offer((*entry[:3], monotonic()), size, LoopWaiter)
        if parked is None:
            return
        adder, waiter = parked
        try:
            await waiter.wait(longest)
        except BaseException:
            with self._lock:
                self._core.retract(adder, monotonic())
            raise
        self._settle(adder, limit)

    def add_from_thread(
        self, item_id: str, data: Any, metadata: Metadata | None = None, *, timeout: float | None = None
    ) -> None:
        """Add an item at the end, from any thread; the loop that takes is woken once a batch.

        As `add`, but waits for room in the calling thread. Within a running event loop, from a callback say, it never
        waits: where it would have to, it raises QueueFullError at once.

        Raises:
            QueueFullError: there is no room and `overflow` is `error`, or none came in time.
            ClosedError: the buffer is closed, or was while waiting.
            InvalidInputError: the item alone exceeds `max_bytes`, or `item_id` is not a string.
        """
        if item_id.__class__ is not str:
            checked_id(item_id)
        self._acquire()
        try:
            entry = (item_id, data, NO_METADATA if metadata is None else metadata, monotonic())
            if len(self._entries) < self._core.plain_below:
                self._entries.append(entry)
                return
        finally:
            self._release()
        self._add_blocking(entry, 0.0 if in_event_loop() else timeout)

    async def get_batch(
        self,
        max_items: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # it ends the wait with a batch, not with an error
    ) -> list[StreamItem]:
        """Return the oldest items, in order: as soon as the batch is full or the oldest has waited `timeout`.

        Cancelled, it takes nothing. Arguments and errors are those of `StreamBuffer.get_batch`.
        """
        want, patience = self._batch_terms(max_items, timeout)
        return await self._get(want, patience, monotonic() + patience)

    async def _get(self, want: int, patience: float, give_up: float) -> list[StreamItem]:
        core, taker = self._core, None
        while True:
            with self._lock:
                now = monotonic()
                due = core.due(want, patience, give_up)
                batch = core.take(want, now) if due <= now else None
                if taker is not None:
                    core.leave(taker)
                if batch is not None:
                    return batch
                waiter = LoopWaiter()
                taker = core.wait(want if due < inf else 1, waiter.wake)
            try:
                await waiter.wait(due - now)
            except BaseException:
                with self._lock:
                    core.leave(taker)
                raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[StreamItem]:
        """Return the next batch, which is never empty; wait for it as long as it takes.

        Raises:
            StopAsyncIteration: the buffer is closed and drained.
        """
        batch = await self._get(self._batch_size, self._timeout, inf)
        if not batch:
            raise StopAsyncIteration
        return batch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
