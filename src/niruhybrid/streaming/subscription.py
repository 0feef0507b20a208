"""The matches of a standing query as an async iterator, however fast they come and however slowly they are taken."""

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Self

from niruhybrid.errors import ClosedError
from niruhybrid.ports import Store
from niruhybrid.streaming.stream_buffer import AsyncStreamBuffer
from niruhybrid.types import Match, StandingQuery

__all__ = ("Subscription",)

_CAPACITY = 256


class Subscription:
    """Matches in the order of the writes that brought them. It must be closed; it ends when the pipeline does.

    At most 256 wait to be taken; of more, the oldest are given up, and counted.

    Args:
        store: told what is waited for; asked nothing more.
        query: what is waited for.
        on_close: called once, when it is closed.
    """

    def __init__(self, store: Store, query: StandingQuery, on_close: Callable[["Subscription"], None]) -> None:
        self.query = query
        self._on_close = on_close
        self._taken: deque[Match] = deque()
        self._buffer = AsyncStreamBuffer(buffer_size=_CAPACITY, timeout=0.0, overflow="drop_oldest")
        self._end = store.subscribe(query, self._deliver)

    @property
    def dropped(self) -> int:
        """Matches given up so far because they were not taken."""
        return sum(self._buffer.stats().dropped.values())

    def _deliver(self, match: Match) -> None:
        """Keep a match; called in the thread that writes."""
        with contextlib.suppress(ClosedError):
            self._buffer.add_from_thread(match.query_id, match)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Match:
        """Return the next match, however long it takes.

        Raises:
            StopAsyncIteration: it is closed, and all that had come was taken.
        """
        if not self._taken:
            self._taken.extend(item.data for item in await anext(self._buffer))
        return self._taken.popleft()

    def close(self) -> None:
        """Wait for nothing more; a second call does nothing."""
        if not self._buffer.closed:
            self._end()
            self._buffer.close()
            self._on_close(self)

    async def aclose(self) -> None:
        """Wait for nothing more, as `close`; for `contextlib.aclosing`."""
        self.close()
