"""One wait, of a thread or of a task, that anybody can end: what a buffer hands its core as `wake`."""

import asyncio
import logging
import threading
from math import inf

from niruhybrid.errors import InvalidSettingError

__all__ = ("LoopWaiter", "ThreadWaiter", "checked_wait", "in_event_loop")

_LONGEST_WAIT = 86_400.0

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


def checked_wait(seconds: object) -> float:
    """Return `seconds` if one can wait that long.

    Raises:
        InvalidSettingError: it is not a number from 0 to 86,400.
    """
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0.0 <= seconds <= _LONGEST_WAIT:  # type: ignore[operator]  # `number` says it
        raise InvalidSettingError(f"`timeout` is {seconds!r}: give seconds from 0 to {_LONGEST_WAIT:g}")
    return float(seconds)  # type: ignore[arg-type]  # same


def in_event_loop() -> bool:
    """Whether the caller runs inside an event loop, which must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
