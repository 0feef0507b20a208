"""Server-Sent Events that can't lie: a true status, every event, exactly one end."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from niruhybrid.server import problems
from niruhybrid.server.routing import EVENT_STREAM_HEADERS, KEEP_ALIVE, left
from niruhybrid.server.streams import Stream, Streams, render
from niruhybrid.streaming.patience import Patience

__all__ = ("STALE_ID", "Deferred", "EventStreamResponse", "stale")

logger = logging.getLogger(__name__)

READ_AHEAD = 64 * 1024
"""Bytes that are handed to a connection at a time, beside what the socket holds."""

UNWATCHED = 0.02
"""Seconds that an answer is made before it is looked whether the client has left: many are complete by then."""

STALE_ID = "stale"
"""The stream in the id of the `stale` event: one that has nothing more to say to who comes back."""


def _stale_event() -> bytes:
    detail = "what follows the event you name is not kept, or never was yours: ask again"
    return render(STALE_ID, 1, "stale", {"code": "stale", "detail": detail})


def stale() -> Response:
    """Return the whole stream that says: no going on from there."""
    return Response(_stale_event(), headers=EVENT_STREAM_HEADERS)


class Deferred(Response):
    """A response that is found out when it is sent.

    Args:
        finding: gives it; what it raises is a problem response.
    """

    def __init__(self, finding: Coroutine[Any, Any, Response]) -> None:
        self.background = None
        self._finding = finding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        try:
            response = await self._finding
        except Exception as err:  # noqa: BLE001  # whatever it is, the client is told with a true status
            response = problems.response(err)
        await response(scope, receive, send)


class EventStreamResponse(Response):
    """Sends the events of a stream as they come, from a cursor on.

    The first event is awaited before any header is sent: what the answer ended with until then is a problem response
    with its own status. From then on every event is sent; the last is `done` or `error`, or `stale` for a reader that
    a faster one has left behind. A client that takes no bytes for `send_timeout` is given up.

    Args:
        stream: what is read.
        streams: where it is counted as read.
        after: number of the last event that the client has.
        send_timeout: seconds the client may take to accept bytes.
    """

    def __init__(self, stream: Stream, streams: Streams, *, send_timeout: float, after: int = 0) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(EVENT_STREAM_HEADERS)
        self._stream = stream
        self._streams = streams
        self._after = after
        self._send_timeout = send_timeout
        self._quiet = False  # nothing was sent since the last beat
        self._beat_due = False
        self._gone = False  # nobody reads any more
        self._news = asyncio.Event()  # something of the above, or of the stream, has changed
        self._watching: asyncio.Task[None] | None = None
        self._patience = Patience()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        self._streams.join(self._stream, self._news.set)
        watching = asyncio.get_running_loop().call_later(UNWATCHED, self._watch, receive)
        try:
            await self._first()
            if self._gone:
                return
            if self._stream.refusal is not None:
                await problems.response(self._stream.refusal)(scope, receive, send)
                return
            await self._transmit(send)
        except TimeoutError:
            logger.info("stream_abandoned reason=reader_stalled seconds=%g", self._send_timeout)
        finally:
            self._patience.close()
            self._streams.leave(self._stream, self._news.set)
            watching.cancel()
            if self._watching is not None:
                self._watching.cancel()
                await asyncio.wait({self._watching})

    async def _first(self) -> None:
        while self._stream.log.last == 0 and not (self._stream.ended or self._gone):
            self._news.clear()
            await self._news.wait()

    async def _transmit(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await self._bounded(send, start)
        self._streams.pulse.add(self._beat)
        try:
            while not self._gone:
                body, ended = self._next()
                if body:
                    await self._bounded(send, {"type": "http.response.body", "body": body, "more_body": not ended})
                    self._quiet = False
                if ended:
                    return
                if not body:
                    await self._news.wait()
        finally:
            self._streams.pulse.remove(self._beat)

    def _next(self) -> tuple[bytes, bool]:
        """Return what to send now, perhaps nothing, and whether that is the end."""
        self._news.clear()
        frames = self._stream.read(self._after, READ_AHEAD)
        if frames is None:
            return _stale_event(), True
        if frames:
            self._after += len(frames)
            return b"".join(frames), self._stream.log.ended and self._after == self._stream.log.last
        due, self._beat_due = self._beat_due, False
        return KEEP_ALIVE if due else b"", False

    async def _bounded(self, send: Send, message: dict[str, Any]) -> None:
        with self._patience.within(self._send_timeout):
            await send(message)

    def _beat(self) -> None:
        if self._quiet:
            self._beat_due = True
            self._news.set()
        self._quiet = True

    def _watch(self, receive: Receive) -> None:
        self._watching = asyncio.ensure_future(self._notice(receive))

    async def _notice(self, receive: Receive) -> None:
        await left(receive)
        self._gone = True
        self._news.set()
