"""Lines of JSON both ways: cut out of a body while it is still being sent, answered while it is being read."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from niruhybrid.config import ServerConfig
from niruhybrid.errors import NiruError
from niruhybrid.server import bodies, problems
from niruhybrid.server.problems import RequestError
from niruhybrid.server.routing import left
from niruhybrid.streaming.patience import Patience

__all__ = ("LineCutter", "LineRequest", "LineStreamResponse", "numbered", "rendered")

logger = logging.getLogger(__name__)

MEDIA_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/jsonlines"})
AHEAD = 4 * 1024 * 1024
"""Bytes of an answer that wait at the most for a client that sends and does not read; then its lines wait too."""

_HEADERS = {
    "Content-Type": "application/x-ndjson",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


def rendered(value: Mapping[str, Any]) -> bytes:
    """Return one line of JSON."""
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


class LineCutter:
    """Cuts bytes into lines, as they come. Pure.

    Args:
        most: bytes of a line, without its end; of a longer one nothing is kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = bytearray()
        self._number = 0
        self._too_long = False

    def feed(self, data: bytes) -> list[tuple[int, bytes | None]]:
        """Return the lines that are whole now, numbered from 1, None for one too long; blank ones are left out."""
        *ended, rest = data.split(b"\n")
        lines = []
        for part in ended:
            lines += self._ended(part)
        self._keep(rest)
        return lines

    def end(self) -> list[tuple[int, bytes | None]]:
        """Return the last line, if it had no end."""
        return self._ended(b"")

    def _ended(self, part: bytes) -> list[tuple[int, bytes | None]]:
        self._keep(part)
        self._number += 1
        line = None if self._too_long else bytes(self._rest).strip()
        self._rest.clear()
        self._too_long = False
        return [] if line == b"" else [(self._number, line)]

    def _keep(self, part: bytes) -> None:
        if self._too_long or len(self._rest) + len(part) > self._most:
            self._rest.clear()
            self._too_long = True
        else:
            self._rest += part


class LineRequest:
    """The lines of a request's body, read no faster than they are taken.

    Args:
        request: whose body it is.
        most: bytes of one line.
    """

    def __init__(self, request: Request, most: int) -> None:
        self._request = request
        self._cutter = LineCutter(most)
        self.read = asyncio.Event()
        """Set when nothing more of the body will be read: all has been, or the client has left."""

    async def lines(self) -> AsyncIterator[tuple[int, Any]]:
        """Yield each line's number and what it says; a `RequestError` in its place if it is not JSON or too long.

        Raises:
            ClientDisconnect: the client left before the end of the body.
        """
        try:
            async for chunk in self._request.stream():
                for number, line in self._cutter.feed(chunk):
                    yield number, _parsed(line)
        finally:
            self.read.set()
        for number, line in self._cutter.end():
            yield number, _parsed(line)


async def numbered(request: Request, lines: LineRequest, config: ServerConfig) -> AsyncIterator[tuple[int, Any]]:
    """Return the numbered values of a body: of its lines, as they come, or of the JSON array or value that it is.

    Raises:
        RequestError: it is of another type; or JSON, and too large, too slow or malformed.
        ClientDisconnect: the client left.
    """
    if bodies.media_type(request) in MEDIA_TYPES:
        return lines.lines()
    values = await bodies.json_values(request, config)
    lines.read.set()
    return _listed(values)


async def _listed(values: list[Any]) -> AsyncIterator[tuple[int, Any]]:
    for number, value in enumerate(values, start=1):
        yield number, value


def _parsed(line: bytes | None) -> Any:
    if line is None:
        return RequestError("line_too_long", "the line is too long: send less in it, or raise `max_line_bytes`")
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as err:
        return RequestError("malformed_json", f"column {err.colno}: {err.msg}")


class LineStreamResponse(Response):
    """Sends lines as they are made, those that gather meanwhile together.

    The first is awaited before any header is sent, so that a refusal has its own status. What is raised later is the
    last line, `{"line": 0, "error": …}`. When the client leaves, `lines` is closed; so what it does is stopped.

    Args:
        lines: what is sent; closed in every case.
        request: the body that `lines` reads.
        send_timeout: seconds the client may take to accept bytes.
        registry: where the response is found while it is being served.
    """

    def __init__(
        self,
        lines: AsyncGenerator[bytes, None],
        request: LineRequest,
        *,
        send_timeout: float,
        registry: set["LineStreamResponse"],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._lines = lines
        self._request = request
        self._send_timeout = send_timeout
        self._registry = registry
        self._waiting = bytearray()
        self._refusal: BaseException | None = None
        self._begun = False
        self._ended = False
        self._gone = False
        self._news = asyncio.Event()
        self._taken = asyncio.Event()
        self._patience = Patience()
        self._making: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        self._registry.add(self)
        self._making = asyncio.ensure_future(self._make())
        watching = asyncio.ensure_future(self._watch(receive))
        try:
            await self._news.wait()
            if self._refusal is not None and not self._gone:
                await problems.response(self._refusal)(scope, receive, send)
            elif not self._gone:
                await self._transmit(send)
        except TimeoutError:
            logger.info("stream_abandoned reason=reader_stalled seconds=%g", self._send_timeout)
        finally:
            self._patience.close()
            self._registry.discard(self)
            for task in (self._making, watching):
                task.cancel()
            await asyncio.wait({self._making, watching})

    def stop(self, error: BaseException) -> None:
        """End it now, with `error` as its last line, or as the response if there has been none."""
        self._end(error)
        if self._making is not None:
            self._making.cancel()

    async def _transmit(self, send: Send) -> None:
        await self._bounded(
            send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        while not self._gone:
            self._news.clear()
            body, ended = bytes(self._waiting), self._ended
            self._waiting.clear()
            self._taken.set()
            if body or ended:
                await self._bounded(send, {"type": "http.response.body", "body": body, "more_body": not ended})
            if ended:
                return
            await self._news.wait()

    async def _bounded(self, send: Send, message: Message) -> None:
        with self._patience.within(self._send_timeout):
            await send(message)

    async def _make(self) -> None:
        try:
            async for line in self._lines:
                if self._ended:
                    return
                self._begun = True
                self._waiting += line
                self._news.set()
                while len(self._waiting) >= AHEAD:
                    self._taken.clear()
                    await self._taken.wait()
            self._ended = True
        except ClientDisconnect:
            self._gone = True
        except Exception as err:  # noqa: BLE001  # whatever it is, the client is told the truth
            self._end(err)
        finally:
            self._news.set()
            await self._lines.aclose()

    def _end(self, error: BaseException) -> None:
        if self._ended:
            return
        self._ended = True
        if self._begun:
            if not isinstance(error, NiruError | RequestError):
                logger.error("stream_failed", exc_info=error)
            self._waiting += rendered({"line": 0, "error": problems.details(error)})
        else:
            self._refusal = error
        self._news.set()

    async def _watch(self, receive: Receive) -> None:
        await self._request.read.wait()  # until then whoever reads the body sees that the client has left
        await left(receive)
        self._gone = True
        self._news.set()
