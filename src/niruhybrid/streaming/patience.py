"""Many short waits of one owner, each with its own limit, and one timer for all of them."""

import asyncio
from math import inf
from types import TracebackType
from typing import Self

__all__ = ("Patience",)


class Patience:
    """Bounds waits that follow one another, as `asyncio.timeout` bounds one.

    A timer that is begun and taken back for each token and each write costs more than most of them take. Here there is
    one: it is left running when a wait ends, and looks, when it fires, how long the wait has that is on by then.

    Made on a running event loop; to be closed. Waits don't nest, and each may be of another task.

    Example:
        with patience.within(5.0):
            await send(message)
    """

    __slots__ = ("_cancelling", "_due", "_expired", "_fires", "_loop", "_seconds", "_task", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._fires = inf  # when the timer does; not all event loops tell
        self._task: asyncio.Task[object] | None = None
        self._seconds = inf
        self._due = inf  # of the wait that is on
        self._cancelling = 0  # requests to cancel the task, when its wait began
        self._expired = False

    @property
    def expired(self) -> bool:
        """Whether the last wait was ended for its limit; else a `TimeoutError` in it was its own."""
        return self._expired

    def within(self, seconds: float) -> Self:
        """Return the context of a wait that may take so long.

        When it takes longer, its task is cancelled inside, and the context raises `TimeoutError`.
        """
        self._seconds = seconds
        return self

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a wait is bounded in a task only: make one")
        self._cancelling = self._task.cancelling()
        self._expired = False
        self._due = self._loop.time() + self._seconds
        if self._fires > self._due:
            self._set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._due = inf
        task, self._task = self._task, None
        if not self._expired or task is None:
            return
        if task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._fires = None, inf

    def _set(self) -> None:
        self.close()
        self._timer, self._fires = self._loop.call_at(self._due, self._look), self._due

    def _look(self) -> None:
        self._timer, self._fires = None, inf
        if self._task is None:
            return  # the next wait sets it again
        if self._loop.time() < self._due:
            self._set()
        else:
            self._expired = True
            self._task.cancel()
