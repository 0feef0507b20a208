"""A chat completion in chunks: a true status first, then every chunk, then `[DONE]` or an error, never a quiet end."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from niruhybrid.server import problems
from niruhybrid.server.openai_shapes import error_of, framed
from niruhybrid.server.routing import EVENT_STREAM_HEADERS, KEEP_ALIVE, left

__all__ = ("ChunkStreamResponse",)

logger = logging.getLogger(__name__)


class ChunkStreamResponse(Response):
    """Sends frames as they come.

    The first is awaited before any header is sent: what is raised until then is a response with its own status. What
    is raised later is the last frame, an error, and no `[DONE]` follows. When the client leaves, or takes no bytes for
    `send_timeout`, `frames` is closed at once.

    Args:
        frames: what is sent; closed in every case.
        refused: makes a response of what was raised before the first frame.
        keep_alive: seconds of silence after which a comment is sent.
        send_timeout: seconds the client may take to accept bytes.
        registry: where the response is found while it is being served.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        refused: Callable[[Exception], Response],
        keep_alive: float,
        send_timeout: float,
        registry: set["ChunkStreamResponse"],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(EVENT_STREAM_HEADERS)
        self._frames = frames
        self._refused = refused
        self._keep_alive = keep_alive
        self._send_timeout = send_timeout
        self._registry = registry
        self._stopped: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._failed = False  # the last frame says so

    def stop(self, error: BaseException) -> None:
        """End it now, with `error` as its last frame, or as the response if there has been none."""
        if not self._stopped.done():
            self._stopped.set_result(error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        self._registry.add(self)
        gone = asyncio.ensure_future(left(receive))
        sending = asyncio.ensure_future(self._serve(scope, receive, send))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._registry.discard(self)
            gone.cancel()
            sending.cancel()
            await asyncio.wait({gone, sending})
            await self._frames.aclose()
        if not sending.cancelled():
            sending.result()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            frame = await self._unless_stopped()
        except Exception as err:  # noqa: BLE001  # whatever it is, the client is told with a true status
            await self._refused(err)(scope, receive, send)
            return
        try:
            await self._bounded(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._transmit(send, frame)
        except TimeoutError:
            logger.info("stream_abandoned reason=reader_stalled seconds=%g", self._send_timeout)

    async def _transmit(self, send: Send, frame: bytes) -> None:
        while frame:
            await self._body(send, frame)
            coming = asyncio.ensure_future(self._next())
            try:
                while not (await asyncio.wait({coming}, timeout=self._keep_alive))[0]:
                    await self._body(send, KEEP_ALIVE)
                frame = coming.result()
            finally:
                coming.cancel()
                await asyncio.wait({coming})
        await self._bounded(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self) -> bytes:
        """Return the next frame, the error that takes its place, or nothing at the end."""
        try:
            return b"" if self._failed else await self._unless_stopped()
        except Exception as err:  # whatever it is, the client is told the truth
            self._failed = True
            problem = problems.details(err)
            if problem["code"] == "internal":
                logger.exception("stream_failed")
            return framed(error_of(problem)[1])

    async def _unless_stopped(self) -> bytes:
        """Return the next frame, nothing at the end, or raise what the response was stopped for."""
        coming = asyncio.ensure_future(anext(self._frames, b""))
        try:
            either: set[asyncio.Future[Any]] = {coming, self._stopped}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                raise self._stopped.result()
            return coming.result()
        finally:
            coming.cancel()
            await asyncio.wait({coming})

    async def _body(self, send: Send, body: bytes) -> None:
        await self._bounded(send, {"type": "http.response.body", "body": body, "more_body": True})

    async def _bounded(self, send: Send, message: Message) -> None:
        async with asyncio.timeout(self._send_timeout):
            await send(message)
