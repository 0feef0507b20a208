"""Server-Sent Events that can't lie: a true status, every event, exactly one end."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from niruhybrid.server import problems
from niruhybrid.types import StreamEvent

__all__ = ("EventStreamResponse", "new_stream_id", "render")

logger = logging.getLogger(__name__)

KEEP_ALIVE = b": keep-alive\n\n"
READ_AHEAD = 64 * 1024
"""Bytes of events that wait for a slow reader at the most, beside what the socket holds; then the answer waits."""

_TERMINAL = frozenset({"done", "error"})
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


def new_stream_id() -> str:
    """Return a name for a stream that can't be guessed: 16 characters, 96 random bits."""
    return secrets.token_urlsafe(12)


def render(stream_id: str, number: int, event: str, data: Mapping[str, Any]) -> bytes:
    """Return one event as bytes. The data is one line of JSON, in which no text can forge a field.

    Raises:
        TypeError: `data` is not JSON.
    """
    return b"id: %b:%d\nevent: %b\ndata: %b\n\n" % (stream_id.encode(), number, event.encode(), orjson.dumps(data))


class EventStreamResponse(Response):
    """Sends a pipeline's events as they come.

    The first event is awaited before any header is sent: what is raised until then is a problem response with its own
    status. From then on every yielded event is sent, and the last is `done` or `error`, whatever happens. When the
    client leaves, or takes no bytes for `send_timeout`, the iterator is closed at once.

    Args:
        events: what is sent; closed in every case.
        keep_alive: seconds of silence after which a comment is sent.
        send_timeout: seconds the client may take to accept bytes.
        stream_id: name of the stream, in the id of each event; no line breaks.
        registry: where the response is found while it is being served.
    """

    def __init__(
        self,
        events: AsyncGenerator[StreamEvent, None],
        *,
        keep_alive: float,
        send_timeout: float,
        stream_id: str | None = None,
        registry: set["EventStreamResponse"] | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._events = events
        self._keep_alive = keep_alive
        self._send_timeout = send_timeout
        self._stream_id = stream_id or new_stream_id()
        self._registry = registry if registry is not None else set()
        self._frames: list[bytes] = []
        self._waiting = 0  # bytes in `_frames`
        self._number = 0  # of the last event
        self._query_id: object = None  # as the first event has it
        self._partial = False  # part of the answer was given
        self._refusal: BaseException | None = None  # what ended it before the first event
        self._ended = False  # no event will follow those in `_frames`
        self._gone = False  # nobody reads any more
        self._news = asyncio.Event()  # for the sender: something of the above has changed
        self._taken = asyncio.Event()  # for the producer: `_frames` were sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        self._registry.add(self)
        helpers = (asyncio.ensure_future(self._produce()), asyncio.ensure_future(self._watch(receive)))
        try:
            await self._news.wait()
            if self._refusal is not None and not self._gone:
                await problems.response(self._refusal)(scope, receive, send)
            elif not self._gone:
                await self._transmit(send)
        except TimeoutError:
            logger.info("stream_abandoned reason=reader_stalled seconds=%g", self._send_timeout)
        finally:
            self._gone = True
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            self._registry.discard(self)

    def stop(self, error: Exception) -> None:
        """End the stream now, with `error` as its last event, or as the response if there has been none."""
        self._end(error)

    async def _transmit(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await self._bounded(send, start)
        ended = False
        while not (ended or self._gone):
            frames, self._frames, self._waiting = self._frames, [], 0
            ended = self._ended
            self._taken.set()
            body = b"".join(frames) or KEEP_ALIVE
            await self._bounded(send, {"type": "http.response.body", "body": body, "more_body": not ended})
            await self._wait_for_news()

    async def _bounded(self, send: Send, message: dict[str, Any]) -> None:
        async with asyncio.timeout(self._send_timeout):
            await send(message)

    async def _wait_for_news(self) -> None:
        """Return when there is something to send, be it only that the connection is alive."""
        if self._frames or self._ended or self._gone:
            return
        self._news.clear()
        try:
            async with asyncio.timeout(self._keep_alive):
                await self._news.wait()
        except TimeoutError:
            return

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._news.set()

    async def _produce(self) -> None:
        try:
            async for event in self._events:
                if not self._ended:  # else it was stopped from outside
                    self._add(event)
                if self._ended:
                    return
                await self._room()
        except Exception as err:  # noqa: BLE001  # whatever it is, the client is told the truth
            self._end(err)
        finally:
            if not self._gone:
                self._end(RuntimeError("the answer ended without `done` or `error`"))
            await self._events.aclose()

    async def _room(self) -> None:
        """Wait while `READ_AHEAD` bytes wait. Until then an answer that never waits itself leaves in one write."""
        if self._waiting >= READ_AHEAD:
            self._taken.clear()
            await self._taken.wait()

    def _add(self, event: StreamEvent) -> None:
        data = problems.wire_error(event.data) if event.event == "error" else event.data
        frame = render(self._stream_id, self._number + 1, event.event, data)
        self._number += 1
        self._frames.append(frame)
        self._waiting += len(frame)
        self._query_id = self._query_id or data.get("query_id")
        self._partial = self._partial or event.event == "token"
        self._ended = event.event in _TERMINAL
        self._news.set()

    def _end(self, error: Exception) -> None:
        if self._ended:
            return
        if self._number == 0:
            self._refusal, self._ended = error, True
            self._news.set()
            return
        problem = problems.details(error)
        if problem["code"] == "internal":
            logger.error("stream_failed", exc_info=error)
        self._add(StreamEvent("error", {"query_id": self._query_id, **problem, "partial": self._partial}))
