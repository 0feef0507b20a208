"""One wait, of a thread or of a task, that anybody can end: what a buffer hands its core as `wake`."""

import asyncio
import logging
import threading
from math import inf

__all__ = ("LoopWaiter", "ThreadWaiter")

_log = logging.getLogger(__name__)


class ThreadWaiter:
    """One wait of one thread."""

    __slots__ = ("_gate", "wake")

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self.wake = self._gate.release

    def wait(self, seconds: float) -> bool:
        """Wait to be woken; return whether that was in time."""
        return self._gate.acquire(timeout=-1 if seconds == inf else max(0.0, seconds))


class LoopWaiter:
    """One wait of one task."""

    __slots__ = ("_future", "_loop", "_thread")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> None:
        """End the wait, from any thread."""
        try:
            if threading.get_ident() == self._thread:
                self._end()
            else:
                self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            _log.debug("waiter_gone its event loop is closed")

    async def wait(self, seconds: float) -> None:
        """Suspend until woken, or for `seconds`."""
        timer = self._loop.call_later(max(0.0, seconds), self._end) if seconds < inf else None
        try:
            await self._future
        finally:
            if timer is not None:
                timer.cancel()

    def _end(self) -> None:
        if not self._future.done():
            self._future.set_result(None)
