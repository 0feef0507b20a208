"""Lines of JSON both ways: cut out of a body while it is still being sent, answered while it is being read."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from math import inf
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from niruhybrid.config import ServerConfig
from niruhybrid.errors import NiruError
from niruhybrid.server import bodies, problems
from niruhybrid.server.problems import RequestError
from niruhybrid.server.pulse import Pulse
from niruhybrid.server.routing import left
from niruhybrid.server.sending import json_bytes
from niruhybrid.streaming.patience import Patience

__all__ = ("LineCutter", "LineRequest", "LineStreamResponse", "rendered")

logger = logging.getLogger(__name__)

MEDIA_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/jsonlines"})
AHEAD = 4 * 1024 * 1024
"""Bytes of an answer that wait at the most for a client that sends and does not read; then its lines wait too."""

PAUSE = 1.0
"""Seconds of silence after which a client that waits for nothing is taken to pause."""

_PROGRESS = 1024  # bytes of a long line that count as a sign of life
_CUT_AT_ONCE = 16_384  # bytes
_KEEP_ALIVE = b"\n"
_HEADERS = {
    "Content-Type": "application/x-ndjson",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


def rendered(value: Mapping[str, Any]) -> bytes:
    """Return one line of JSON; see `json_bytes`."""
    return json_bytes(value) + b"\n"


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
    """The values that a request's body brings: of its lines, read no faster than they are taken, or of JSON.

    A client may be silent while it waits for what it sent, and as long as `idle_timeout` otherwise. A blank line ends
    the silence.

    Args:
        request: whose body it is.
        config: `max_line_bytes` and `idle_timeout` bound lines, `max_body_bytes` and `send_timeout` JSON.
    """

    def __init__(self, request: Request, config: ServerConfig) -> None:
        self._request = request
        self._config = config
        self._cutter = LineCutter(config.max_line_bytes)
        self._unread = b""  # that has come and was not cut into lines yet
        self._values: deque[tuple[int, Any]] = deque()  # that have come and were not taken yet
        self._taken = 0
        self._answered = 0
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()  # when the client said something, or got the last answer it waited for
        self._fresh = 0  # bytes of a line that have come since
        self._coming: asyncio.Future[Message] | None = None
        self._news = asyncio.Event()  # more of the body has come, or all that was taken is answered
        self.read = asyncio.Event()
        """Set when nothing more of the body will be received: all has been, or the client has left."""

    async def begin(self) -> None:
        """Look what the body is, and read it if it is JSON.

        Raises:
            RequestError: it is of another type; or JSON, and too large, too slow or malformed.
            ClientDisconnect: the client left.
        """
        if bodies.media_type(self._request) not in MEDIA_TYPES:
            self._values.extend(enumerate(await bodies.json_values(self._request, self._config), start=1))
            self.read.set()

    @property
    def waits_for_answers(self) -> bool:
        """Whether something is under way of what was sent, or all of it has been."""
        return self.read.is_set() or self._taken > self._answered

    def answered(self) -> None:
        """Note that the answer to one value has been made."""
        self._answered += 1
        if self._answered >= self._taken:
            self._since = self._loop.time()
            self._news.set()

    async def more(self, pause: float = inf) -> bool:
        """Wait for a value, and return whether there is one.

        Args:
            pause: seconds of silence after which there is none for now, if the client waits for no answer.

        Raises:
            ClientDisconnect: the client left before the end of the body.
            RequestError: it has been silent for too long.
        """
        while not self._values:
            if self._unread:
                self._cut()
                await asyncio.sleep(0)
            elif self.read.is_set() or not await self._receive(pause):
                return False
        return True

    async def values(self, pause: float = inf) -> AsyncIterator[tuple[int, Any]]:
        """Yield the values, numbered from 1; a `RequestError` in place of a line that is not JSON or too long.

        Args:
            pause: ends them for now, as for `more`.

        Raises:
            ClientDisconnect, RequestError: as `more` does.
        """
        while await self.more(pause):
            self._taken += 1
            yield self._values.popleft()

    async def aclose(self) -> None:
        """Receive nothing more."""
        self.read.set()
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.wait({self._coming})

    async def _receive(self, pause: float) -> bool:
        """Receive the next part of the body, or return False after a pause."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._request.receive())
            self._coming.add_done_callback(lambda _: self._news.set())
        while not self._coming.done():
            left = None
            if self._taken <= self._answered:
                silent = self._loop.time() - self._since
                self._refuse_silence(silent)
                if silent >= pause:
                    return False
                left = min(pause, self._config.idle_timeout) - silent
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._news.wait()
        message, self._coming = self._coming.result(), None
        self._feed(message)
        return True

    def _refuse_silence(self, silent: float) -> None:
        idle = self._config.idle_timeout
        if silent < idle:
            return
        if self._coming is not None:
            self._coming.cancel()  # whoever sees the client leave receives from now on
        self.read.set()
        raise RequestError(
            "request_timeout",
            f"no line has come for {idle:g} s: send one, or a blank one, within this time, or raise `idle_timeout`",
            headers={"Connection": "close"},
        )

    def _feed(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.read.set()
            raise ClientDisconnect
        body: bytes = message.get("body", b"")
        self._fresh += len(body)
        if b"\n" in body or self._fresh >= _PROGRESS:
            self._since, self._fresh = self._loop.time(), 0
        self._unread = body
        if not message.get("more_body", False):
            self._unread += b"\n"  # the last line may have no end
            self.read.set()

    def _cut(self) -> None:
        """Cut the next lines, so few that nobody waits for it."""
        part, self._unread = self._unread[:_CUT_AT_ONCE], self._unread[_CUT_AT_ONCE:]
        self._values.extend((number, _parsed(line)) for number, line in self._cutter.feed(part))


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
    last line, `{"line": 0, "error": …}`. When the client leaves, `lines` is closed; so what it does is stopped. While
    something of what was sent is under way, a blank line is sent after each `keep_alive` seconds of silence.

    Args:
        lines: what is sent; closed in every case.
        request: the body that `lines` reads.
        send_timeout: seconds the client may take to accept bytes.
        pulse: tells when to look for silence.
        registry: where the response is found while it is being served.
    """

    def __init__(
        self,
        lines: AsyncGenerator[bytes, None],
        request: LineRequest,
        *,
        send_timeout: float,
        pulse: Pulse,
        registry: set["LineStreamResponse"],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._lines = lines
        self._request = request
        self._send_timeout = send_timeout
        self._pulse = pulse
        self._registry = registry
        self._waiting = bytearray()
        self._refusal: BaseException | None = None
        self._begun = False
        self._ended = False
        self._gone = False
        self._quiet = False  # nothing was sent since the last beat
        self._news = asyncio.Event()
        self._taken = asyncio.Event()
        self._patience = Patience()
        self._making: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        self._registry.add(self)
        self._pulse.add(self._beat)
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
            self._pulse.remove(self._beat)
            self._registry.discard(self)
            for task in (self._making, watching):
                task.cancel()
            await asyncio.wait({self._making, watching})
            await self._request.aclose()

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
                self._quiet = False
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
                self._request.answered()
                self._send(line)
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

    def _send(self, line: bytes) -> None:
        self._begun = True
        self._waiting += line
        self._news.set()

    def _beat(self) -> None:
        if self._quiet and not (self._waiting or self._ended) and self._request.waits_for_answers:
            self._send(_KEEP_ALIVE)
        self._quiet = True

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
