"""The client for tasks."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx2

from niruhybrid.client.base import BaseClient
from niruhybrid.client.calls import (
    Asked,
    AskedStream,
    Call,
    Watched,
    embedding,
    object_of,
    result_of,
    vectors_of,
)
from niruhybrid.client.events import AnswerEvent, News
from niruhybrid.client.exchange import Exchange, PlainExchange
from niruhybrid.client.reading import ReadAhead
from niruhybrid.types import DataResult, QueryResult, Vector

__all__ = ("AsyncClient",)

_Item = TypeVar("_Item")


class AsyncClient(BaseClient):
    """Asks a server, from any number of tasks of one event loop. What a broken connection interrupts goes on by itself.

    Example:
        ```python
        async with AsyncClient("http://127.0.0.1:8000") as client:
            async for event in client.stream("what is a context manager?"):
                print(event)
        ```

    The arguments are those of `BaseClient`.
    """

    def _open(self) -> None:
        self._http = httpx2.AsyncClient(verify=self._connection.is_secure)

    async def stream(self, query: str, /, **asked: Unpack[AskedStream]) -> AsyncGenerator[AnswerEvent, None]:
        """Yield the events of an answer: `Sources`, any number of `Token`, `Done`; those of one clean run, always.

        Closing the generator closes the connection, and the server stops the answer.

        Args:
            query: what is asked.
            asked: what else there is to say of it, see `AskedStream`.

        Raises:
            InvalidInputError: a value can't be used.
            OverloadedError: refused, each time it was tried.
            UnreachableError: the server can't be reached, each time it was tried.
            StreamLostError: the answer broke off, and the server can't go on with it; `partial` is what came of it.
            DeadlineExceededError: it was not finished in time.
            NiruError: whatever else the server ended it with, by its class.
        """
        async with aclosing(self._exchange(self._answer(query, asked))) as events:
            async for event in events:
                yield event

    async def query(self, query: str, /, **asked: Unpack[Asked]) -> QueryResult:
        """Return what a query finds, without an answer; arguments and errors as those of `stream`."""
        return result_of(await self._body(self._search(query, asked)), query)

    async def ingest(
        self, items: AsyncIterable[object] | Iterable[object], *, batch: int = 64
    ) -> AsyncGenerator[DataResult, None]:
        """Send documents, and yield the acknowledgement of each as it comes.

        A document whose result has no `error` is searchable and durable. What a broken connection leaves without an
        acknowledgement is sent again under the same id, and so is a document that failed for a passing reason. What is
        there is sent at once; while it is under way the next documents are read, `batch` at the most.

        Args:
            items: strings, mappings with the attributes of `Document` as keys, or `Document`s.
            batch: documents sent together at the most.

        Raises:
            NiruError: as `stream` does. What was not acknowledged may or may not be kept.
        """
        outbox = self._outbox(batch)
        async with ReadAhead(items, batch) as source:
            while some := await source.some():
                for number, item in enumerate(some, 1):
                    if (refused := outbox.add(item)) is not None:
                        yield refused
                    while outbox.is_full or (number == len(some) and not outbox.is_empty):
                        async with aclosing(self._exchange(outbox)) as results:
                            async for result in results:
                                yield result

    async def subscribe(self, query: str, /, **watched: Unpack[Watched]) -> AsyncGenerator[News, None]:
        """Yield a `Match` for each document that becomes searchable and matches, until the generator is closed.

        Args:
            query: what is waited for.
            watched: what else there is to say of it, see `Watched`; `min_score` or `per_minute` at the least.

        Raises:
            StreamLostError: matches may have been missed: the server has not kept them.
            NiruError: as `stream` does.
        """
        async with aclosing(self._exchange(self._subscription(query, watched))) as events:
            async for event in events:
                yield event

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Return the vectors of `texts`, in their order, `(dim,)` each.

        Raises:
            NiruError: as `stream` does.
        """
        return vectors_of(await self._body(self._plain(embedding(texts)))) if texts else []

    async def stats(self) -> dict[str, Any]:
        """Return the counters of the server and its pipeline.

        Raises:
            NiruError: as `stream` does.
        """
        return object_of(await self._body(self._plain(Call("GET", "/stats"))))

    async def health(self) -> dict[str, Any]:
        """Return whether the server takes queries: `status` is `ready` or `degraded`, then with `reasons`.

        Raises:
            OverloadedError: it does not, yet or any more.
            NiruError: as `stream` does.
        """
        return object_of(await self._body(self._plain(Call("GET", "/readyz"))))

    async def aclose(self) -> None:
        """Close the connections; a second call does nothing."""
        self._closed = True
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _body(self, exchange: PlainExchange) -> bytes:
        async for _ in self._exchange(exchange):  # it yields nothing
            pass
        return exchange.body

    async def _exchange(self, exchange: Exchange[_Item]) -> AsyncGenerator[_Item, None]:
        """Send, receive and wait as the exchange decides."""
        wait: float | None = 0.0
        while wait is not None:
            await asyncio.sleep(wait)
            broken: Exception | None = None
            try:
                async with self._http.stream(**self._request(exchange)) as response:
                    if response.status_code != httpx2.codes.OK:
                        status, headers, body = response.status_code, response.headers, await response.aread()
                        wait = exchange.refused(status, headers, body, time.monotonic())
                        continue
                    async for data in response.aiter_bytes():
                        for item in exchange.received(data, time.monotonic()):
                            yield item
            except httpx2.TransportError as err:
                broken = err
            wait = exchange.lost(broken, time.monotonic())
