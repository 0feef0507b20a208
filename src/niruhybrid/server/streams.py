"""Answers under way and answers kept: each made by a task of its own into a log that any number of readers follow."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from niruhybrid.config import ServerConfig
from niruhybrid.errors import OverloadedError
from niruhybrid.server import problems
from niruhybrid.server.event_log import EventLog, Shelf, Window
from niruhybrid.server.pulse import Pulse
from niruhybrid.server.sending import json_bytes
from niruhybrid.types import StreamEvent

if TYPE_CHECKING:
    from niruhybrid.server.shared_log import Sharing

__all__ = ("Mirror", "Stream", "Streams", "new_stream_id", "render")

logger = logging.getLogger(__name__)

_TERMINAL = frozenset({"done", "error"})


def new_stream_id() -> str:
    """Return a name for a stream that can't be guessed: 16 characters, 96 random bits."""
    return secrets.token_urlsafe(12)


def render(stream_id: str, number: int, event: str, data: Mapping[str, Any]) -> bytes:
    """Return one event as bytes. The data is one line of JSON, in which no text can forge a field.

    Raises:
        TypeError: `data` is not JSON.
    """
    return b"id: %b:%d\nevent: %b\ndata: %b\n\n" % (stream_id.encode(), number, event.encode(), json_bytes(data))


class Stream:
    """One answer: its log, the task that makes it, and whoever reads it.

    Every event that the answer yields is kept, and the last is `done` or `error`, whatever happens. While readers are
    behind by a whole log, the answer waits.

    Attributes:
        id: its name, in the id of each event.
        owner: who may read it.
        log: its events.
        refusal: what it ended with before its first event, or None.
        given_up: whether it was stopped, and has no last event.
        copier: told when there is something new, for readers elsewhere; None without such.
    """

    def __init__(self, stream_id: str, owner: str, window: Window, after: int = 0) -> None:
        self.id = stream_id
        self.owner = owner
        self.log = EventLog(window, after)
        self.copier: Callable[[Stream], None] | None = None
        self.refusal: BaseException | None = None
        self._readers: set[Callable[[], None]] = set()
        self._room: asyncio.Event | None = None  # while the answer waits: something was read, or the stream stopped
        self._query_id: object = None  # as the first event has it
        self._partial = False  # part of the answer was given
        self.given_up = False
        self.task: asyncio.Task[None] | None = None
        self.leaving: asyncio.TimerHandle | None = None

    @property
    def readers(self) -> int:
        """How many read it now."""
        return len(self._readers)

    @property
    def ended(self) -> bool:
        """Whether no event will follow."""
        return self.log.ended or self.refusal is not None

    def attach(self, news: Callable[[], None]) -> None:
        """Call `news` whenever there is something to read."""
        self._readers.add(news)

    def detach(self, news: Callable[[], None]) -> None:
        """Call `news` no more."""
        self._readers.discard(news)

    def read(self, after: int, most: int) -> list[bytes] | None:
        """Return events that follow number `after`, or None if it can't be gone on from there; see `EventLog.read`."""
        frames = self.log.read(after, most)
        self._wake()
        return frames

    def end(self, error: BaseException) -> None:
        """End it with `error` as its last event, or as its refusal if there has been none; once."""
        if self.ended:
            return
        self._wake()
        if self.log.last == 0:
            self.refusal = error
            self._tell()
            return
        problem = problems.details(error)
        if problem["code"] == "internal":
            logger.error("stream_failed", exc_info=error)
        self._add(StreamEvent("error", {"query_id": self._query_id, **problem, "partial": self._partial}))

    def give_up(self) -> None:
        """Stop the answer: nobody is there to be told."""
        self.given_up = True
        self._tell()
        if self.task is not None:
            self.task.cancel()

    async def produce(self, events: AsyncGenerator[StreamEvent, None]) -> None:
        """Take the answer's events into the log until its end; the answer is closed in every case."""
        try:
            async for event in events:
                if not self.ended:  # else it was ended from outside
                    self._add(event)
                while not (self.ended or self.log.has_room()):
                    self._room = asyncio.Event()
                    await self._room.wait()
                if self.ended:
                    return
        except Exception as err:  # noqa: BLE001  # whatever it is, the readers are told the truth
            self.end(err)
        finally:
            if not self.given_up:
                self.end(RuntimeError("the answer ended without `done` or `error`"))
            await events.aclose()

    def _add(self, event: StreamEvent) -> None:
        data = problems.wire_error(event.data) if event.event == "error" else event.data
        frame = render(self.id, self.log.last + 1, event.event, data)
        self.log.append(frame, ends=event.event in _TERMINAL)
        self._query_id = self._query_id or data.get("query_id")
        self._partial = self._partial or event.event == "token"
        self._tell()

    def _wake(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    def _tell(self) -> None:
        for news in self._readers:
            news()
        if self.copier is not None:
            self.copier(self)


class Mirror(Stream):
    """An answer that is made elsewhere, from an event on. Where its events end before the last one, it is stale."""

    _cut = False

    @property
    def ended(self) -> bool:
        """Whether no event will follow."""
        return self._cut or super().ended

    def read(self, after: int, most: int) -> list[bytes] | None:
        """Return events that follow number `after`, or None if none of them will be known here."""
        return None if self._cut and after == self.log.last else super().read(after, most)

    def end(self, error: BaseException) -> None:  # noqa: ARG002  # whoever makes the answer says how it ends
        """Give up to know its end: whatever happened here, the answer itself may go on."""
        if not self.ended:
            self._cut = True
            self._wake()
            self._tell()


class Streams:
    """All streams of a server: how many there may be, how long they are kept, when they are given up.

    Args:
        config: the bounds.
        most: streams open at once; None takes `max_streams`.
        beside: returns how many streams of other kinds are open, which are counted with these.

    Attributes:
        pulse: the timer of the silent ones.
        sharing: copies answers for other servers; None where there are none.
    """

    def __init__(self, config: ServerConfig, most: int | None = None, *, beside: Callable[[], int] = lambda: 0) -> None:
        self._window = Window(config.log_events, config.log_bytes)
        self._most = config.max_streams if most is None else most
        self._beside = beside
        self._grace = config.grace
        self._streams: dict[str, Stream] = {}
        self._making: set[Stream] = set()
        self._unread: set[Stream] = set()  # of those that are being made
        self._readers = 0
        self._shelf = Shelf(config.log_seconds, config.kept_answers, config.kept_bytes)
        self._expiry: asyncio.TimerHandle | None = None
        self.pulse = Pulse(config.keep_alive)
        self.sharing: Sharing | None = None

    @property
    def open(self) -> int:
        """Streams that are being served, or made for a reader who may come back."""
        return self._readers + len(self._unread)

    @property
    def open_in_all(self) -> int:
        """Streams that are open, those of other kinds included."""
        return self.open + self._beside()

    @property
    def kept(self) -> int:
        """Answers that can be read, those that have ended included."""
        return len(self._streams)

    def start(self, events: AsyncGenerator[StreamEvent, None], owner: str, stream_id: str | None = None) -> Stream:
        """Begin to take an answer's events, and return the stream.

        Raises:
            OverloadedError: too many streams are open; `events` was not begun.
        """
        self.refuse_when_full()
        stream = Stream(stream_id or new_stream_id(), owner, self._window)
        self._streams[stream.id] = stream
        if self.sharing is not None:
            self.sharing.share(stream)
        return self._begin(stream, events)

    def mirror(self, stream_id: str, owner: str, events: AsyncGenerator[StreamEvent, None], after: int) -> Stream:
        """Begin to take the events after number `after` of an answer that is made elsewhere, and return the stream.

        Raises:
            OverloadedError: too many streams are open; `events` was not begun.
        """
        self.refuse_when_full()
        return self._begin(Mirror(stream_id, owner, self._window, after), events)

    def _begin(self, stream: Stream, events: AsyncGenerator[StreamEvent, None]) -> Stream:
        self._making.add(stream)
        self._unread.add(stream)
        stream.task = asyncio.ensure_future(stream.produce(events))
        stream.task.add_done_callback(lambda _: self._made(stream))
        return stream

    def refuse_when_full(self) -> None:
        """Raise if there is no room for one more stream.

        Raises:
            OverloadedError: too many streams are open.
        """
        if (count := self.open_in_all) >= self._most:
            raise OverloadedError(
                f"{count} of {self._most} streams are open: try again, or raise the limit", retry_after=1
            )

    def find(self, stream_id: str, owner: str) -> Stream | None:
        """Return an owner's stream, if it is kept."""
        stream = self._streams.get(stream_id)
        return stream if stream is not None and stream.owner == owner and stream.refusal is None else None

    def join(self, stream: Stream, news: Callable[[], None]) -> None:
        """Let a reader in."""
        if stream.leaving is not None:
            stream.leaving.cancel()
            stream.leaving = None
        self._unread.discard(stream)
        self._readers += 1
        stream.attach(news)

    def leave(self, stream: Stream, news: Callable[[], None]) -> None:
        """Let a reader go. With the last one the answer's time runs out, unless nobody was told of it yet: at once."""
        stream.detach(news)
        self._readers -= 1
        if stream.readers or stream.ended:
            return
        self._unread.add(stream)
        if self._grace == 0 or stream.log.last == 0:
            self._give_up(stream)
        else:
            stream.leaving = asyncio.get_running_loop().call_later(self._grace, self._abandon, stream)

    def end_all(self, error: BaseException) -> None:
        """End every stream with `error`."""
        for stream in tuple(self._making):
            stream.end(error)

    async def aclose(self) -> None:
        """Give up what is under way, and wait for its end."""
        if self._expiry is not None:
            self._expiry.cancel()
        tasks = [stream.task for stream in self._making if stream.task is not None]
        for stream in self._making:
            stream.give_up()
        if tasks:
            await asyncio.wait(tasks)

    def _abandon(self, stream: Stream) -> None:
        """Give up an answer whose time has run out, unless somebody reads it elsewhere: then it has as long again."""
        if self.sharing is not None and self.sharing.is_followed(stream):
            stream.leaving = asyncio.get_running_loop().call_later(self._grace, self._abandon, stream)
        else:
            self._give_up(stream)

    def _give_up(self, stream: Stream) -> None:
        if self._streams.get(stream.id) is stream:
            del self._streams[stream.id]
        stream.give_up()

    def _made(self, stream: Stream) -> None:
        self._making.discard(stream)
        self._unread.discard(stream)
        stream.task = None
        if stream.leaving is not None:
            stream.leaving.cancel()
        if stream.refusal is not None or stream.id not in self._streams:
            self._streams.pop(stream.id, None)
            return
        self._forget(self._shelf.put(stream.id, stream.log.size, asyncio.get_running_loop().time()))

    def _expire(self) -> None:
        self._expiry = None
        self._forget(self._shelf.expire(asyncio.get_running_loop().time()))

    def _forget(self, names: list[str]) -> None:
        for name in names:
            del self._streams[name]
        due = self._shelf.due()
        if self._expiry is None and due is not None:
            self._expiry = asyncio.get_running_loop().call_at(due, self._expire)
