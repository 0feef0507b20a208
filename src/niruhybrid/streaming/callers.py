"""Those who wait for items, in threads and on event loops, and how they are told."""

import asyncio
import copy
import logging
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from niruhybrid.errors import NiruError
from niruhybrid.types import Timings, Vector

__all__ = ("Caller", "Done", "Ending", "hand_out")

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


@dataclass(slots=True, eq=False)
class Caller:
    """Who waits for an item, and what for.

    Attributes:
        payload: the query or document.
        future: ends with the item.
        loop: the event loop that the future belongs to; None for a thread's.
    """

    payload: object
    future: "Future[Done] | asyncio.Future[Done]"
    loop: asyncio.AbstractEventLoop | None


Ending: TypeAlias = tuple[Caller, Done | NiruError]
"""Who is to be told what."""


def hand_out(ended: Sequence[Ending]) -> None:
    """Tell callers how their items ended: those of one event loop all at once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Ending]] = {}
    for caller, outcome in ended:
        if caller.loop is None:
            _set(caller.future, outcome)
        else:
            by_loop.setdefault(caller.loop, []).append((caller, outcome))
    for loop, group in by_loop.items():
        try:
            loop.call_soon_threadsafe(_set_all, group)
        except RuntimeError:  # the loop was closed, and its callers with it
            _log.debug("event_loop_closed items=%d", len(group))


def _set_all(group: Sequence[Ending]) -> None:
    for caller, outcome in group:
        _set(caller.future, outcome)


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
