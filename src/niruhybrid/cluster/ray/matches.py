"""The matches of a standing query that waits at a replica."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Self

from niruhybrid.streaming.stream_buffer import AsyncStreamBuffer
from niruhybrid.types import Match

__all__ = ("RemoteMatches",)

_CAPACITY = 256


class RemoteMatches:
    """Matches as they come over, 256 of them at the most; of more, the oldest are given up, and counted.

    They are taken over at once, since Ray would hold any number of them for a reader who is slow.

    Args:
        parts: yields how many matches were dropped at the replica, and those that have come; closed in the end.
    """

    def __init__(self, parts: AsyncGenerator[tuple[int, list[Match]], None]) -> None:
        self._buffer = AsyncStreamBuffer(buffer_size=_CAPACITY, timeout=0.0, overflow="drop_oldest")
        self._taken: deque[Match] = deque()
        self._dropped_there = 0
        self._filling = asyncio.ensure_future(self._fill(parts))

    @property
    def dropped(self) -> int:
        """Matches given up so far because they were not taken, here or at the replica."""
        return self._dropped_there + sum(self._buffer.stats().dropped.values())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Match:
        """Return the next match, however long it takes.

        Raises:
            StopAsyncIteration: the replica has ended it, and all that had come was taken.
            ReplicaLostError: the replica is gone.
        """
        if not self._taken:
            try:
                self._taken.extend(item.data for item in await anext(self._buffer))
            except StopAsyncIteration:
                await self._filling  # raises what ended it
                raise
        return self._taken.popleft()

    async def aclose(self) -> None:
        """Wait for nothing more."""
        self._filling.cancel()
        await asyncio.wait({self._filling})

    async def _fill(self, parts: AsyncGenerator[tuple[int, list[Match]], None]) -> None:
        try:
            async for dropped, matches in parts:
                self._dropped_there = dropped
                for match in matches:
                    await self._buffer.add(match.query_id, match)
        finally:
            self._buffer.close()
            await parts.aclose()
