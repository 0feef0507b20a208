"""A stream of items read a little ahead, so that what is there can be sent together."""

import asyncio
from collections.abc import AsyncIterable, Iterable
from types import TracebackType
from typing import Self

__all__ = ("ReadAhead",)

_END = object()


class ReadAhead:
    """Reads items in a task of its own, `most` further than they are taken; the task ends with the block.

    Args:
        items: what is read; a plain iterable must not block.
        most: items that wait at the most.
    """

    def __init__(self, items: AsyncIterable[object] | Iterable[object], most: int) -> None:
        self._items = items
        self._most = most
        self._waiting: asyncio.Queue[object] = asyncio.Queue(most)
        self._ended = False

    async def __aenter__(self) -> Self:
        self._reading = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.cancel()
        await asyncio.wait({self._reading})
        if not self._reading.cancelled():
            self._reading.exception()  # it was raised by `some`, or something else ended the block before

    async def some(self) -> list[object]:
        """Return the items that are there, in order, once there is one; none at the end.

        Raises:
            Exception: what reading them raised, after all that were read before.
        """
        found: list[object] = []
        while not self._ended and len(found) < self._most and not (found and self._waiting.empty()):
            item = await self._waiting.get()
            if item is _END:
                self._ended = True
            else:
                found.append(item)
        if self._ended and not found:
            await self._reading
        return found

    async def _read(self) -> None:
        try:
            if isinstance(self._items, AsyncIterable):
                async for item in self._items:
                    await self._waiting.put(item)
            else:
                for item in self._items:
                    await self._waiting.put(item)
        except Exception:
            await self._waiting.put(_END)
            raise
        await self._waiting.put(_END)
