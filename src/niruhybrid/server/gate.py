"""The server's life: opening, taking streams up to a bound, draining."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from niruhybrid.config import ServerConfig
from niruhybrid.errors import OverloadedError
from niruhybrid.pipeline import Pipeline
from niruhybrid.server.problems import RequestError
from niruhybrid.server.sse import EventStreamResponse
from niruhybrid.types import Query

__all__ = ("Gate",)

logger = logging.getLogger(__name__)


class Gate:
    """Stands between requests and the pipeline: lets in what can be served, and sees every stream to its end.

    Args:
        open_pipeline: returns the pipeline; called once, by `open`.
        config: bounds of one client and of all.
    """

    def __init__(self, open_pipeline: Callable[[], Awaitable[Pipeline]], config: ServerConfig) -> None:
        self.config = config
        self._open_pipeline = open_pipeline
        self._opening: asyncio.Task[Pipeline] | None = None
        self._streams: set[EventStreamResponse] = set()
        self._draining = False

    @property
    def open_streams(self) -> int:
        """Streams that are being served."""
        return len(self._streams)

    def open(self) -> asyncio.Task[Pipeline]:
        """Begin to open the pipeline and return the task that does; its failure is also told to clients."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._opened())
            self._opening.add_done_callback(_observe)
        return self._opening

    def pipeline(self) -> Pipeline:
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

    def answer(self, query: Query) -> EventStreamResponse:
        """Return the response that streams the answer to `query`.

        Raises:
            RequestError: queries can't be taken.
            OverloadedError: too many streams are open.
        """
        pipeline = self.pipeline()
        if len(self._streams) >= self.config.max_streams:
            most = self.config.max_streams
            raise OverloadedError(
                f"{most} of {most} streams are open: try again, or raise `max_streams`", retry_after=1
            )
        return EventStreamResponse(
            pipeline.stream(query),
            keep_alive=self.config.keep_alive,
            send_timeout=self.config.send_timeout,
            registry=self._streams,
        )

    def drain(self) -> None:
        """Take no more queries and end every open stream with a true `error` event."""
        self._draining = True
        for stream in tuple(self._streams):
            stream.stop(_shutting_down())

    async def aclose(self) -> None:
        """Drain, and close the pipeline if there is one."""
        self.drain()
        if self._opening is None:
            return
        self._opening.cancel()
        await asyncio.wait([self._opening])
        if not self._opening.cancelled() and self._opening.exception() is None:
            await self._opening.result().aclose()

    async def _opened(self) -> Pipeline:
        return await self._open_pipeline()


def _observe(opening: asyncio.Task[Pipeline]) -> None:
    """Log a failed start; reading the exception also keeps asyncio from reporting it as lost."""
    if not opening.cancelled() and (error := opening.exception()) is not None:
        logger.error("start_failed error=%s: %s", type(error).__name__, error)


def _shutting_down() -> RequestError:
    return RequestError("shutting_down", "the server is shutting down: ask again when it is back")
