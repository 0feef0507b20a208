"""The client for threads."""

import threading
import time
from collections.abc import Generator, Iterable, Sequence
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
from niruhybrid.errors import ClosedError
from niruhybrid.types import DataResult, QueryResult, Vector

__all__ = ("Client",)

_Item = TypeVar("_Item")


class Client(BaseClient):
    """Asks a server, from any number of threads. What a broken connection interrupts goes on by itself.

    Example:
        ```python
        with Client("http://127.0.0.1:8000") as client:
            for event in client.stream("what is a context manager?"):
                print(event)
        ```

    The arguments are those of `BaseClient`.
    """

    def _open(self) -> None:
        self._http = httpx2.Client(verify=self._connection.is_secure)
        self._closing = threading.Event()

    def stream(self, query: str, /, **asked: Unpack[AskedStream]) -> Generator[AnswerEvent, None, None]:
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
        answer = self._answer(query, asked)
        yield from self._exchange(answer)

    def query(self, query: str, /, **asked: Unpack[Asked]) -> QueryResult:
        """Return what a query finds, without an answer; arguments and errors as those of `stream`."""
        return result_of(self._body(self._search(query, asked)), query)

    def ingest(self, items: Iterable[object], *, batch: int = 64) -> Generator[DataResult, None, None]:
        """Send documents, and yield the acknowledgement of each as it comes.

        A document whose result has no `error` is searchable and durable. What a broken connection leaves without an
        acknowledgement is sent again under the same id, and so is a document that failed for a passing reason.

        Args:
            items: strings, mappings with the attributes of `Document` as keys, or `Document`s; read a batch at a time,
                when the one before is acknowledged.
            batch: documents sent together; 1 sends each as it comes.

        Raises:
            NiruError: as `stream` does. What was not acknowledged may or may not be kept.
        """
        outbox = self._outbox(batch)
        for item in items:
            if (refused := outbox.add(item)) is not None:
                yield refused
            while outbox.is_full:
                yield from self._exchange(outbox)
        while not outbox.is_empty:
            yield from self._exchange(outbox)

    def subscribe(self, query: str, /, **watched: Unpack[Watched]) -> Generator[News, None, None]:
        """Yield a `Match` for each document that becomes searchable and matches, until the generator is closed.

        Args:
            query: what is waited for.
            watched: what else there is to say of it, see `Watched`; `min_score` or `per_minute` at the least.

        Raises:
            StreamLostError: matches may have been missed: the server has not kept them.
            NiruError: as `stream` does.
        """
        subscription = self._subscription(query, watched)
        yield from self._exchange(subscription)

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Return the vectors of `texts`, in their order, `(dim,)` each.

        Raises:
            NiruError: as `stream` does.
        """
        return vectors_of(self._body(self._plain(embedding(texts)))) if texts else []

    def stats(self) -> dict[str, Any]:
        """Return the counters of the server and its pipeline.

        Raises:
            NiruError: as `stream` does.
        """
        return object_of(self._body(self._plain(Call("GET", "/stats"))))

    def health(self) -> dict[str, Any]:
        """Return whether the server takes queries: `status` is `ready` or `degraded`, then with `reasons`.

        Raises:
            OverloadedError: it does not, yet or any more.
            NiruError: as `stream` does.
        """
        return object_of(self._body(self._plain(Call("GET", "/readyz"))))

    def close(self) -> None:
        """Close the connections and end what is under way; a second call does nothing."""
        self._closed = True
        self._closing.set()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _body(self, exchange: PlainExchange) -> bytes:
        for _ in self._exchange(exchange):  # it yields nothing
            pass
        return exchange.body

    def _exchange(self, exchange: Exchange[_Item]) -> Generator[_Item, None, None]:
        """Send, receive and wait as the exchange decides."""
        wait: float | None = 0.0
        while wait is not None:
            if self._closing.wait(wait):
                raise ClosedError("the client was closed: make a new one")
            broken: Exception | None = None
            try:
                with self._http.stream(**self._request(exchange)) as response:
                    if response.status_code != httpx2.codes.OK:
                        status, headers, body = response.status_code, response.headers, response.read()
                        wait = exchange.refused(status, headers, body, time.monotonic())
                        continue
                    for data in response.iter_bytes():
                        yield from exchange.received(data, time.monotonic())
            except httpx2.TransportError as err:
                broken = err
            wait = exchange.lost(broken, time.monotonic())
