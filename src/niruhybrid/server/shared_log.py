"""Answers that other servers can go on with: their events are copied, in the background, to a log that all share.

Nothing here stands between an event and its reader. A server that is asked to go on with an answer made elsewhere
follows the copy, as `mirror` has it; whoever makes an answer has a lease on it, and when that is over, the copy ends.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from niruhybrid.server.streams import Stream
from niruhybrid.types import StreamEvent

__all__ = ("Copied", "SharedLog", "Sharing", "Standing", "parsed", "wait_within")

logger = logging.getLogger(__name__)

_AT_ONCE = 256 * 1024
"""Bytes of one stream that are copied at a time."""

_GOODBYE = 2.0
"""Seconds that a server which ends takes to copy the last events."""


@dataclass(frozen=True, slots=True)
class Copied:
    """Events of one answer, as they were sent.

    Attributes:
        stream: its name.
        owner: who may read it.
        after: number of the event before the first of `frames`.
        frames: the events.
        ended: whether the last of them is the answer's last.
    """

    stream: str
    owner: str
    after: int
    frames: Sequence[bytes]
    ended: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a copy has come.

    Attributes:
        last: number of the newest event.
        ended: whether no event will follow.
    """

    last: int
    ended: bool


class SharedLog(Protocol):
    """Where servers keep copies of answers for each other. Errors of a method are `StoreError`s.

    Attributes:
        beat: seconds within which whoever makes answers must `renew` them, a third of the lease.
    """

    beat: float

    async def append(self, copies: Sequence[Copied], /) -> None:
        """Keep events; those that are there already are passed over. Each stream's lease begins anew."""
        ...

    async def renew(self, streams: Sequence[str], /) -> Collection[str]:
        """Begin the leases of streams anew, and return which of these are followed elsewhere."""
        ...

    async def forget(self, streams: Sequence[str], /) -> None:
        """Remove what was kept of streams: they were given up."""
        ...

    async def find(self, stream: str, owner: str, /) -> Standing | None:
        """Return how far the copy of an owner's stream has come; None if there is none.

        A stream of which nothing is known yet may be copied any moment: it stands at 0, for one beat.
        """
        ...

    def follow(self, stream: str, owner: str, after: int, /) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events after number `after` as they come. It ends after the last one, or where the copy does."""
        ...

    async def aclose(self) -> None:
        """Release what it holds."""
        ...


def parsed(frame: bytes) -> StreamEvent:
    """Return the event that `streams.render` made this frame of."""
    _, event, data = frame.split(b"\n", 2)
    return StreamEvent(event.removeprefix(b"event: ").decode(), orjson.loads(data.removeprefix(b"data: ")))  # type: ignore[arg-type]  # rendered from one


class Sharing:
    """Copies the answers of one server to the shared log: all that are new in one go, while the next ones gather.

    An answer that gives up events before they could be copied is shared no more. While the log can't be reached,
    answers go on for their readers here.

    Args:
        log: where to; closed with this.
    """

    def __init__(self, log: SharedLog) -> None:
        self.log = log
        self._copied: dict[Stream, int] = {}  # number of the last event copied, of each answer under way
        self._news: set[Stream] = set()
        self._followed: Collection[str] = ()
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._copying: asyncio.Task[None] | None = None

    def share(self, stream: Stream) -> None:
        """Copy a stream's events from now to its end."""
        self._copied[stream] = 0
        stream.copier = self._note
        self._wake.set()
        if self._copying is None:
            self._copying = asyncio.ensure_future(self._copy())

    def is_followed(self, stream: Stream) -> bool:
        """Whether somebody read it elsewhere when its lease was last renewed."""
        return stream.id in self._followed

    async def aclose(self) -> None:
        """Copy what is left, if that can be done soon, and close the log."""
        self._closing.set()
        self._wake.set()
        if self._copying is not None:
            await asyncio.wait({self._copying}, timeout=_GOODBYE)
            self._copying.cancel()
            await asyncio.wait({self._copying})
        await self.log.aclose()

    def _note(self, stream: Stream) -> None:
        self._news.add(stream)
        self._wake.set()

    async def _copy(self) -> None:
        """Copy what is new whenever there is anything, and renew leases with each beat while there are any."""
        clock = asyncio.get_running_loop().time
        due = clock()
        while self._news or not self._closing.is_set():
            self._wake.clear()
            try:
                await self._append()
                if self._copied and clock() >= due:
                    self._followed = await self.log.renew([stream.id for stream in self._copied])
                    due = clock() + self.log.beat
                    for stream in filter(self.is_followed, self._copied):
                        self._note(stream)  # it may wait for a reader, who is elsewhere
            except Exception as err:  # noqa: BLE001  # what fails now may succeed later, and the answers go on
                logger.warning("sharing_failed error=%s: %s", type(err).__name__, err)
                await wait_within(self._closing, self.log.beat)
            else:
                await wait_within(self._wake, max(0.0, due - clock()) if self._copied else None)

    async def _append(self) -> None:
        """Copy what streams have that is new, as far as it goes in one go."""
        streams = self._news & self._copied.keys()
        self._news = set()
        try:
            copies = {stream: copied for stream in streams if (copied := self._next(stream)) is not None}
            new = [copied for copied in copies.values() if copied.frames or copied.ended]
            if new:
                await self.log.append(new)
            lost = [stream for stream in streams if stream not in copies]
            if lost:
                await self.log.forget([stream.id for stream in lost])
        except BaseException:
            self._news |= streams
            raise
        for stream, copied in copies.items():
            self._copied[stream] = copied.after + len(copied.frames)
            if not copied.ended and self._copied[stream] < stream.log.last:
                self._note(stream)
        for stream in [*lost, *(stream for stream, copied in copies.items() if copied.ended)]:
            del self._copied[stream]

    def _next(self, stream: Stream) -> Copied | None:
        """Return what is to be copied next of a stream; None if it is to be forgotten."""
        after = self._copied[stream]
        take = stream.read if self.is_followed(stream) and not stream.readers else stream.log.peek
        frames = None if stream.given_up or stream.refusal is not None else take(after, _AT_ONCE)
        if frames is None:
            return None
        ended = stream.log.ended and after + len(frames) == stream.log.last
        return Copied(stream.id, stream.owner, after, frames, ended)


async def wait_within(event: asyncio.Event, seconds: float | None) -> None:
    """Wait for an event, or for so many seconds; None waits for the event alone."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
