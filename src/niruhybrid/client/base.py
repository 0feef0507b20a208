"""What both clients have in common: everything but the waiting."""

import time
import uuid
from typing import Any

import httpx2

from niruhybrid.client.backoff import PATIENT, Backoff
from niruhybrid.client.calls import Asked, AskedStream, Call, Connection, Watched, asking
from niruhybrid.client.events import AnswerEvent, News, answer_event, news
from niruhybrid.client.exchange import Exchange, PlainExchange
from niruhybrid.client.resume import ResumedStream
from niruhybrid.client.sending import Outbox
from niruhybrid.config import RetryPolicy
from niruhybrid.errors import ClosedError, InvalidSettingError

__all__ = ("BaseClient",)

_GRACE = 5.0  # seconds beyond a query's own timeout, for the server to say so itself


class BaseClient:
    """A server's address, and what is asked there.

    Args:
        base_url: such as `http://127.0.0.1:8000`; a path in it precedes the server's own.
        api_key: sent as `Authorization: Bearer …`, or as `X-API-Key` if the URL has a user; None sends none.
        timeout: seconds one plain call may take, all tries together.
        answer_timeout: seconds one streamed answer may take, all connections together; of a batch of documents, seconds
            without a byte from the server.
        connect_timeout: seconds until a connection stands.
        silence_timeout: seconds without a byte after which a connection counts as lost; in silence the server sends a
            comment or a blank line every 15 s.
        retry: what is tried again, how often in a row, and how long after; None is patient for about ten seconds.

    Raises:
        InvalidSettingError: a value can't be used.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        answer_timeout: float = 600.0,
        connect_timeout: float = 5.0,
        silence_timeout: float = 45.0,
        retry: RetryPolicy | None = None,
    ) -> None:
        policy = retry or PATIENT
        self._connection = Connection(
            base_url, api_key, timeout, answer_timeout, connect_timeout, silence_timeout, policy
        )
        self._closed = False
        self._open()

    def _open(self) -> None:
        """Make what holds the connections."""
        raise NotImplementedError

    def _backoff(self, seconds: float | None) -> Backoff:
        """Return what decides on another try, within `seconds` from now; None is for ever."""
        if self._closed:
            raise ClosedError("the client is closed: make a new one")
        return Backoff(self._connection.retry, None if seconds is None else time.monotonic() + seconds)

    def _plain(self, call: Call) -> PlainExchange:
        return PlainExchange(call, self._backoff(self._connection.timeout))

    def _answer(self, query: str, asked: AskedStream) -> ResumedStream[AnswerEvent]:
        limit, longest = asked.get("timeout"), self._connection.answer_timeout
        backoff = self._backoff(longest if limit is None else min(longest, limit + _GRACE))
        fields = {"id": uuid.uuid4().hex} | {name: value for name, value in asked.items() if value is not None}
        return ResumedStream(
            asking("/stream/query", query, fields), answer_event, frozenset({"done", "error"}), backoff
        )

    def _subscription(self, query: str, watched: Watched) -> ResumedStream[News]:
        call = asking("/stream/subscribe", query, watched)
        return ResumedStream(call, news, frozenset({"error"}), self._backoff(None))

    def _search(self, query: str, asked: Asked) -> PlainExchange:
        return self._plain(asking("/query", query, {**asked, "answer": False}))

    def _outbox(self, batch: int) -> Outbox:
        if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= 10_000:
            raise InvalidSettingError(f"`batch` is {batch!r}: give a whole number from 1 to 10000")
        timeout = self._connection.answer_timeout
        return Outbox(lambda: self._backoff(timeout), timeout=timeout, most=batch)

    def _request(self, exchange: Exchange[Any]) -> dict[str, Any]:
        """Return the arguments of the next request, none of whose waits is longer than there is time."""
        connection, call = self._connection, exchange.call()
        left = exchange.left(time.monotonic())
        return {
            "method": call.method,
            "url": connection.url(call.path),
            "content": call.body,
            "headers": {"Accept-Encoding": "identity", **connection.headers, **call.headers},
            "timeout": httpx2.Timeout(
                min(left, connection.silence_timeout), connect=min(left, connection.connect_timeout)
            ),
        }
