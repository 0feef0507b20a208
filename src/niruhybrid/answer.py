"""One answer: the events that it is made of, within the time that it may take."""

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from niruhybrid.errors import DeadlineExceededError, GenerationError, NiruError
from niruhybrid.observe.tracing import QueryTrace
from niruhybrid.ports import Generator
from niruhybrid.streaming.patience import Patience
from niruhybrid.types import Finish, Query, QueryResult, SearchResponse, StreamEvent, Token

__all__ = ("Answer", "sources_of")

logger = logging.getLogger(__name__)


def sources_of(query: Query, result: QueryResult | SearchResponse) -> dict[str, Any]:
    """Return what the events `sources` and `provisional` say."""
    sources = {
        "query_id": query.id,
        "hits": [hit.to_dict() for hit in result.hits],
        "watermark": result.watermark,
    }
    notes = {"notes": list(result.notes)} if result.notes else {}
    return sources | notes | ({"metadata": dict(query.metadata)} if query.metadata else {})


class Answer:
    """An answer as it is generated.

    Args:
        generator: writes it.
        query: what was asked; its `timeout` bounds the answer as a whole, search included.
        result: what was found.
        began: when the query came, in monotonic seconds.
        silence: seconds to wait for each token, where the query has no `timeout`.
        trace: the query's spans.
    """

    def __init__(
        self,
        generator: Generator,
        query: Query,
        result: QueryResult,
        *,
        began: float,
        silence: float,
        trace: QueryTrace,
    ) -> None:
        self._generator = generator
        self._query = query
        self._result = result
        self._began = began
        self._deadline = None if query.timeout is None else began + query.timeout
        self._silence = silence
        self._trace = trace
        self._patience = Patience()
        self._partial = False
        self._finish = Finish()
        self._seconds = 0.0  # that the generator took

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Yield any number of `token`, then one `done` or `error`; closing it stops the generator."""
        try:
            tokens = self._generator.generate(self._query, self._result.hits)
            try:
                while (token := await self._next(tokens)) is not None:
                    if isinstance(token, Finish):
                        self._finish = token
                    elif token.text:
                        self._partial = True
                        source = {"source": token.source} if token.source else {}
                        yield StreamEvent("token", {"text": token.text, **source})
            finally:
                await self._close(tokens)
        except Exception as err:  # noqa: BLE001  # whatever a generator raises, its answer ends with a true event
            last = StreamEvent("error", self._error(err))
        else:
            last = StreamEvent("done", self._done())
        yield last

    async def _close(self, tokens: AsyncIterator[Token | Finish]) -> None:
        self._patience.close()
        close = getattr(tokens, "aclose", None)
        if close is not None:
            await close()

    async def _next(self, tokens: AsyncIterator[Token | Finish]) -> Token | Finish | None:
        asked = time.monotonic()
        allowed = self._silence if self._deadline is None else max(0.0, self._deadline - asked)
        try:
            with self._patience.within(allowed), self._trace.generating():
                return await anext(tokens, None)
        except TimeoutError as err:
            if not self._patience.expired:
                raise
            raise DeadlineExceededError(
                f"the answer was not finished in time (last wait {allowed:.3g} s): raise `timeout`"
            ) from err
        finally:
            self._seconds += time.monotonic() - asked

    def _done(self) -> dict[str, Any]:
        timings = self._result.timings
        return {
            "query_id": self._query.id,
            "finish_reason": self._finish.reason,
            **({"notes": list(self._finish.notes)} if self._finish.notes else {}),
            "timings": {
                "queued": timings.queued,
                "encode": timings.encode,
                "search": timings.search,
                "generate": self._seconds,
                "total": time.monotonic() - self._began,
            },
        }

    def _error(self, cause: Exception) -> dict[str, Any]:
        if not isinstance(cause, NiruError):
            logger.error("generation_failed", exc_info=cause)
            cause = GenerationError("the generator failed: see the log")
        return {"query_id": self._query.id, "code": cause.code, "detail": str(cause), "partial": self._partial}
