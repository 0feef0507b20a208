"""One stream over any number of connections: what comes next, decided without a socket or a clock. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Generic, TypeVar

from niruhybrid.client.backoff import Backoff
from niruhybrid.client.calls import Call
from niruhybrid.client.refusals import refusal, unreachable
from niruhybrid.client.sse import EventDecoder, ServerEvent
from niruhybrid.errors import NiruError, StreamLostError
from niruhybrid.types import Token

__all__ = ("ResumedStream",)

_Event = TypeVar("_Event")


class ResumedStream(Generic[_Event]):
    """The events of one stream, each once and in order, whatever happens to the connections that bring them.

    Until the first event has come, the request may be repeated as a whole. After that it is repeated with the id of
    the last whole event, and goes on behind it, or ends as lost: it never begins anew.

    Args:
        call: the first request.
        read: makes a value of an event's name and data, or raises the error that it is; None is passed over.
        ends: the names of events that nothing follows.
        backoff: whether to try again, and when.

    Attributes:
        finished: whether the last event has come.
        last_event_id: the last whole event, `<stream>:<n>`; "" before the first.
    """

    def __init__(
        self, call: Call, read: Callable[[str, str], _Event | None], ends: frozenset[str], backoff: Backoff
    ) -> None:
        self.finished = False
        self.last_event_id = ""
        self._call = call
        self._read = read
        self._ends = ends
        self._backoff = backoff
        self._decoder = EventDecoder()
        self._stream = ""
        self._number = 0
        self._texts: list[str] = []

    @property
    def partial(self) -> str:
        """The text of the answer so far."""
        return "".join(self._texts)

    def call(self) -> Call:
        """Return the next request, and forget what the last connection left of an event."""
        self._decoder = EventDecoder()
        more = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.last_event_id:
            more["Last-Event-ID"] = self.last_event_id
        return replace(self._call, headers={**self._call.headers, **more})

    def left(self, now: float) -> float:
        """Return how many seconds the stream may still take.

        Raises:
            DeadlineExceededError: none.
        """
        return self._backoff.left(now)

    def refused(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> float:
        """Return in how many seconds to send the request again.

        Args:
            status: any but 200.
            headers: the response's.
            body: what it says.
            now: monotonic seconds.

        Raises:
            StreamLostError: the stream had begun, and can't be gone on with.
            NiruError: why it was refused, if it had not begun.
        """
        return self._failed(refusal(status, headers, body), now)

    def lost(self, error: Exception | None, now: float) -> float | None:
        """Return in how many seconds to send the request again, as `refused` does; None if all has come.

        Args:
            error: why the connection broke; None if it was closed.
            now: monotonic seconds.
        """
        return None if self.finished else self._failed(unreachable(error), now)

    def received(self, data: bytes, now: float) -> Iterator[_Event]:
        """Yield the events that are whole with these bytes, but for those that had come before.

        Raises:
            StreamLostError: the server can't go on, or goes on elsewhere.
            DeadlineExceededError: it is too late.
            NiruError: the error that ended the stream.
        """
        for event in self._decoder.feed(data):
            if self.finished or not self._is_next(event):
                continue
            self.finished = event.event in self._ends
            value = self._value(event)
            self._number += 1
            self.last_event_id = event.id
            self._backoff.succeeded()
            if isinstance(value, Token):
                self._texts.append(value.text)
            if value is not None:
                yield value
        if not self.finished:
            self._backoff.left(now)

    def _is_next(self, event: ServerEvent) -> bool:
        """Whether the event follows the last one; False if it is an earlier one again."""
        if event.event == "stale":
            raise self._lost("the server has not kept what follows: ask again")
        stream, _, number = event.id.rpartition(":")
        if not stream or not (number.isascii() and number.isdigit()):
            raise self._lost("an event has no id of the form <stream>:<n>: check that this is a server of this library")
        if self._stream and stream != self._stream:
            raise self._lost("the server began another stream: ask again")
        self._stream = stream
        if int(number) > self._number + 1:
            raise self._lost(f"event {self._number + 1} is missing: ask again")
        return int(number) == self._number + 1

    def _value(self, event: ServerEvent) -> _Event | None:
        try:
            return self._read(event.event, event.data)
        except NiruError:  # some are ValueErrors
            raise
        except (KeyError, TypeError, ValueError) as err:
            raise self._lost(f"event {self._number + 1} can't be read: check that versions match") from err

    def _failed(self, error: NiruError, now: float) -> float:
        try:
            return self._backoff.failed(error, now)
        except NiruError as err:
            if not self.last_event_id:
                raise
            raise self._lost(f"the stream broke off and can't be taken up ({err})") from err

    def _lost(self, message: str) -> StreamLostError:
        return StreamLostError(message, partial=self.partial, last_event_id=self.last_event_id)
