"""The counters as they change: one look a second for all who watch, each told the newest."""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from niruhybrid.errors import NiruError, OverloadedError
from niruhybrid.server import openapi, problems
from niruhybrid.server.gate import Gate
from niruhybrid.server.problems import RequestError
from niruhybrid.server.routing import EVENT_STREAM_HEADERS, LeanRoute, left

__all__ = ("Live", "router")

logger = logging.getLogger(__name__)

SECONDS = 1.0
"""Between two looks at the counters."""

_DESCRIBED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "Server-Sent Events: `stats`, now and then every second, with what `/stats` returns and `at`, the seconds "
            "of a monotonic clock at which it was so; `error` when the server ends."
        ),
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


def router(gate: Gate) -> APIRouter:
    """Return the path of the counters as a stream."""
    paths = APIRouter(route_class=LeanRoute)
    live = Live(gate)

    @paths.get(
        "/stats/stream",
        tags=["operations"],
        summary="Counters, every second",
        response_class=Response,
        responses=_DESCRIBED | openapi.problem_responses(401, 403, 429, 503),
    )
    async def stream(_request: Request) -> Response:
        """Send the counters of the server and its pipeline as they change; a slow reader misses some of them."""
        first = await live.look()
        live.refuse_when_full()
        return _LiveResponse(live, first, gate.config.send_timeout)

    return paths


class Live:
    """Looks at the counters while anybody watches.

    Args:
        gate: whose counters they are; its `max_subscribers` bounds those who watch, too.

    Attributes:
        newest: the newest event, as bytes, and whether it is the last.
    """

    def __init__(self, gate: Gate) -> None:
        self.newest = (b"", False)
        self._gate = gate
        self._readers: set[asyncio.Event] = set()
        self._looking: asyncio.Task[None] | None = None

    def refuse_when_full(self) -> None:
        """Raise if there is no room for one more.

        Raises:
            OverloadedError: as many watch as may.
        """
        most = self._gate.config.max_subscribers
        if len(self._readers) >= most:
            raise OverloadedError(
                f"{len(self._readers)} of {most} readers watch the counters: ask /stats, or raise `max_subscribers`",
                retry_after=1,
            )

    async def look(self) -> bytes:
        """Return the counters at this instant as an event.

        Raises:
            RequestError: the server is starting or shutting down.
            NiruError: the pipeline is closed, or its store can't be counted.
        """
        return _event("stats", await self._gate.counters() | {"at": time.monotonic()})

    @contextmanager
    def watched(self) -> Iterator[asyncio.Event]:
        """Give what is set whenever `newest` has changed; while anybody is in here, somebody looks."""
        news = asyncio.Event()
        self._readers.add(news)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look_on())
        try:
            yield news
        finally:
            self._readers.discard(news)
            if not self._readers:
                self._looking.cancel()  # it has nothing to clean up
                self._looking = None

    async def _look_on(self) -> None:
        """Look every `SECONDS`, until the server ends or the last reader has left."""
        try:
            while True:
                await asyncio.sleep(SECONDS)  # a sample is taken by the clock, and by nothing else
                self._tell(await self.look())
        except (NiruError, RequestError) as err:
            self._tell(_event("error", problems.details(err)), last=True)
        except Exception as err:
            self._tell(_event("error", problems.details(err)), last=True)
            logger.exception("stats_stream_failed")

    def _tell(self, frame: bytes, *, last: bool = False) -> None:
        self.newest = (frame, last)
        for news in self._readers:
            news.set()


class _LiveResponse(Response):
    """Sends each newest event to a reader, until either end leaves.

    Args:
        live: where they come from.
        first: what is sent at once.
        send_timeout: seconds the reader may take to accept bytes.
    """

    def __init__(self, live: Live, first: bytes, send_timeout: float) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(EVENT_STREAM_HEADERS)
        self._live = live
        self._first = first
        self._send_timeout = send_timeout
        self._gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # as ASGI has it
        """Serve one request, as ASGI has it."""
        with self._live.watched() as news:
            watching = asyncio.ensure_future(self._watch(receive, news))
            try:
                await self._transmit(send, news)
            except TimeoutError:
                logger.info("stream_abandoned reason=reader_stalled seconds=%g", self._send_timeout)
            finally:
                watching.cancel()
                await asyncio.wait({watching})

    async def _transmit(self, send: Send, news: asyncio.Event) -> None:
        await self._bounded(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self._bounded(send, {"type": "http.response.body", "body": self._first, "more_body": True})
        while True:
            await news.wait()
            if self._gone:
                return
            news.clear()
            frame, last = self._live.newest
            await self._bounded(send, {"type": "http.response.body", "body": frame, "more_body": not last})
            if last:
                return

    async def _bounded(self, send: Send, message: Message) -> None:
        async with asyncio.timeout(self._send_timeout):
            await send(message)

    async def _watch(self, receive: Receive, news: asyncio.Event) -> None:
        await left(receive)
        self._gone = True
        news.set()


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))
