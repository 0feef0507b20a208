"""The server's life: opening, taking streams up to a bound, draining."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from niruhybrid.config import ServerConfig
from niruhybrid.observe.tracing import Tracing
from niruhybrid.server.backend import Backend
from niruhybrid.server.event_log import position
from niruhybrid.server.ndjson import LineRequest, LineStreamResponse
from niruhybrid.server.openai_stream import ChunkStreamResponse
from niruhybrid.server.problems import RequestError
from niruhybrid.server.shared_log import SharedLog, Sharing
from niruhybrid.server.sse import STALE_ID, Deferred, EventStreamResponse, stale
from niruhybrid.server.streams import Stream, Streams
from niruhybrid.types import Query, StreamEvent

__all__ = ("ANONYMOUS", "Gate", "owner_of", "require_write")

logger = logging.getLogger(__name__)

ANONYMOUS = "anonymous"
_NO_CONTENT = {"Cache-Control": "no-store"}


def owner_of(request: Request) -> str:
    """Return who asks, as far as streams are concerned: the id of an API key, or `ANONYMOUS`."""
    owner: str = request.scope.get("niru.owner", ANONYMOUS)
    return owner


def require_write(request: Request) -> None:
    """Refuse who may only read.

    Raises:
        RequestError: the request's API key has not the scope `write`.
    """
    if "write" not in request.scope.get("niru.scopes", ("write",)):
        raise RequestError("forbidden", "this API key may not write: use one with the scope `write`")


class Gate:
    """Stands between requests and the pipeline: lets in what can be served, and sees every stream to its end.

    Args:
        open_pipeline: returns the pipeline; called once, by `open`.
        config: bounds of one client and of all.
        open_log: returns the log that this server shares with others; None where it is the only one.
    """

    def __init__(
        self,
        open_pipeline: Callable[[], Awaitable[Backend]],
        config: ServerConfig,
        open_log: Callable[[], Awaitable[SharedLog]] | None = None,
    ) -> None:
        self.config = config
        self.streams = Streams(config, beside=lambda: len(self.uploads) + len(self.chats))
        self.subscriptions = Streams(config, config.max_subscribers)
        self.uploads: set[LineStreamResponse] = set()
        self.chats: set[ChunkStreamResponse] = set()
        self._open_pipeline = open_pipeline
        self._open_log = open_log
        self._opening: asyncio.Task[Backend] | None = None
        self._draining = False
        self.tracing: Tracing | None = None  # known once the pipeline is open

    @property
    def open_streams(self) -> int:
        """Streams that are being served, or made for a reader who may come back."""
        return self.streams.open_in_all

    async def counters(self) -> dict[str, Any]:
        """Return the counters of the server and its pipeline at this instant, JSON-ready.

        Raises:
            RequestError: the server is starting or shutting down.
            NiruError: the pipeline is closed, or its store can't be counted.
        """
        counters = (await self.pipeline().stats()).to_dict()
        return counters | {"open_streams": self.open_streams, "kept_streams": self.streams.kept}

    def open(self) -> asyncio.Task[Backend]:
        """Begin to open the pipeline and return the task that does; its failure is also told to clients."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._opened())
            self._opening.add_done_callback(_observe)
        return self._opening

    def pipeline(self) -> Backend:
        """Return the pipeline, if queries can be taken.

        Raises:
            RequestError: the server is starting, could not start, or is shutting down.
        """
        if self._draining:
            raise _shutting_down()
        if self._opening is None or not self._opening.done():
            raise RequestError("starting", "the model and the store are being opened: try again in a moment")
        if self._opening.cancelled() or self._opening.exception() is not None:
            raise RequestError("start_failed", "the model or the store could not be opened")
        return self._opening.result()

    def answer(self, query: Query, owner: str, *, progressive: bool = False) -> Response:
        """Return the response that streams the answer to `query`.

        Raises:
            RequestError: queries can't be taken.
            OverloadedError: too many streams are open.
        """
        events = self.pipeline().stream(query, progressive=progressive)
        return self._follow(self.streams, self.streams.start(events, owner))

    def subscribe(self, events: AsyncGenerator[StreamEvent, None], owner: str) -> Response:
        """Return the response that streams the events of a standing query.

        Raises:
            OverloadedError: too many are open.
        """
        return self._follow(self.subscriptions, self.subscriptions.start(events, owner))

    async def lines(self, request: Request, answers: Callable[[LineRequest], AsyncGenerator[bytes, None]]) -> Response:
        """Return the response that streams lines of JSON, while lines are read from the request.

        Args:
            request: its body is lines of JSON, or JSON.
            answers: yields a line for each value of the body, and may yield a last one that sums up.

        Raises:
            OverloadedError: too many streams are open.
            RequestError, ClientDisconnect: as `LineRequest.begin` does.
        """
        self.streams.refuse_when_full()
        body = LineRequest(request, self.config)
        await body.begin()
        self.streams.refuse_when_full()
        return LineStreamResponse(
            answers(body),
            body,
            send_timeout=self.config.send_timeout,
            pulse=self.streams.pulse,
            registry=self.uploads,
        )

    def _follow(self, streams: Streams, stream: Stream, after: int = 0) -> Response:
        return EventStreamResponse(stream, streams, send_timeout=self.config.send_timeout, after=after)

    def resume(self, last_event_id: str, owner: str, stream_id: str | None = None) -> Response:
        """Return the response that goes on after an event.

        That is the rest of its stream; 204 if there is none, for who has it all; or one event, `stale`, if that stream
        is not kept, is another owner's, or has given up what would follow.

        Args:
            last_event_id: `<stream>:<n>`, as the event has it.
            owner: who asks.
            stream_id: the stream that is asked for, if it is named elsewhere too.

        Raises:
            RequestError: the server is shutting down.
            OverloadedError: too many streams are open.
        """
        if self._draining:
            raise _shutting_down()
        found = position(last_event_id)
        if found is None or (stream_id is not None and found[0] != stream_id):
            return stale()
        name, number = found
        if name == STALE_ID:
            return Response(status_code=204, headers=_NO_CONTENT)
        streams = self.streams
        stream = streams.find(name, owner)
        if stream is None:
            streams = self.subscriptions
            stream = streams.find(name, owner)
        if stream is None and self.streams.sharing is not None:
            return Deferred(self._elsewhere(self.streams.sharing.log, name, number, owner))
        if stream is None or number > stream.log.last:
            return stale()
        if stream.ended and number == stream.log.last:
            return Response(status_code=204, headers=_NO_CONTENT)
        streams.refuse_when_full()
        return self._follow(streams, stream, number)

    async def _elsewhere(self, log: SharedLog, name: str, number: int, owner: str) -> Response:
        """Return the response that goes on with an answer that another server makes, or has made, or has lost."""
        found = await log.find(name, owner)
        if found is None or (found.ended and number > found.last):
            return stale()
        if found.ended and number == found.last:
            return Response(status_code=204, headers=_NO_CONTENT)
        mirror = self.streams.mirror(name, owner, log.follow(name, owner, number), number)
        return self._follow(self.streams, mirror, number)

    def can_resume(self, request: Request) -> bool:
        """Whether a request names the last event of a subscription that can be gone on with."""
        found = position(request.headers.get("last-event-id", ""))
        if found is None:
            return False
        stream = self.subscriptions.find(found[0], owner_of(request))
        return stream is not None and stream.log.first <= found[1] + 1 <= stream.log.last + 1 and not stream.ended

    def drain(self) -> None:
        """Take no more queries and end every open stream with a true `error` event."""
        self._draining = True
        self.streams.end_all(_shutting_down())
        self.subscriptions.end_all(_shutting_down())
        for upload in tuple(self.uploads):
            upload.stop(_shutting_down())
        for chat in tuple(self.chats):
            chat.stop(_shutting_down())

    async def aclose(self) -> None:
        """Drain, and close the pipeline if there is one."""
        self.drain()
        await self.streams.aclose()
        await self.subscriptions.aclose()
        if self.streams.sharing is not None:
            await self.streams.sharing.aclose()
        if self._opening is None:
            return
        self._opening.cancel()
        await asyncio.wait([self._opening])
        if not self._opening.cancelled() and self._opening.exception() is None:
            await self._opening.result().aclose()

    async def _opened(self) -> Backend:
        if self._open_log is not None:
            self.streams.sharing = Sharing(await self._open_log())
        pipeline = await self._open_pipeline()
        self.tracing = pipeline.tracing
        return pipeline


def _observe(opening: asyncio.Task[Backend]) -> None:
    """Log a failed start; reading the exception also keeps asyncio from reporting it as lost."""
    if not opening.cancelled() and (error := opening.exception()) is not None:
        logger.error("start_failed error=%s: %s", type(error).__name__, error)


def _shutting_down() -> RequestError:
    return RequestError("shutting_down", "the server is shutting down: ask again when it is back")
