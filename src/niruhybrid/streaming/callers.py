"""Those who wait for items, in threads and on event loops, and how they are told."""

import asyncio
import copy
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from typing import NamedTuple, TypeAlias

from niruhybrid.errors import NiruError
from niruhybrid.types import Timings, Vector

__all__ = ("Done", "Ending", "Outbox", "hand_out")

_log = logging.getLogger(__name__)


class Done(NamedTuple):
    """An item's result.

    Attributes:
        vector: its embedding.
        found: what the stage after encoding returned for it; None without such a stage.
        timings: where its time went.
    """

    vector: Vector
    found: object
    timings: Timings


class Outbox:
    """What is to be told on one event loop: woken once, it hands out all that has come by then.

    Args:
        loop: the event loop.
    """

    __slots__ = ("_called", "_waiting", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[tuple[asyncio.Future[Done], Done | NiruError]] = deque()
        self._called = False

    def put(self, future: "asyncio.Future[Done]", outcome: Done | NiruError) -> None:
        """Have a future ended by its loop, soon after the next `call`; from any thread."""
        self._waiting.append((future, outcome))

    def call(self) -> None:
        """Wake the loop, unless it has been called and has not come yet; from any thread."""
        if self._called:
            return
        self._called = True
        try:
            self.loop.call_soon_threadsafe(self._empty)
        except RuntimeError:  # the loop was closed, and its callers with it
            _log.debug("event_loop_closed items=%d", len(self._waiting))
            self._waiting.clear()

    def _empty(self) -> None:
        self._called = False  # first: what comes from now on calls again
        while self._waiting:
            _set(*self._waiting.popleft())


Ending: TypeAlias = tuple["Future[Done] | asyncio.Future[Done]", Outbox | None, Done | NiruError]
"""Who is to be told what: the future that the caller waits for, where its event loop is told (None for a thread's), and
the result, or the error it ends with."""


def hand_out(ended: Sequence[Ending]) -> None:
    """Tell callers how their items ended: those of one event loop all at once."""
    called: Outbox | None = None
    for future, outbox, outcome in ended:
        if outbox is None or isinstance(future, Future):
            _set(future, outcome)
            continue
        if called is not None and called is not outbox:
            called.call()
        called = outbox
        outbox.put(future, outcome)
    if called is not None:
        called.call()


def _set(future: "Future[Done] | asyncio.Future[Done]", outcome: Done | NiruError) -> None:
    try:
        if isinstance(outcome, NiruError):
            future.set_exception(_own(outcome))
        else:
            future.set_result(outcome)
    except (InvalidStateError, asyncio.InvalidStateError):
        _log.debug("caller_gone")


def _own(error: NiruError) -> NiruError:
    """Return a copy for one caller: an error that several raise would mix up their tracebacks."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own
