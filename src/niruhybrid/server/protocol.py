"""HTTP on one connection: uvicorn's, with a bound on the head of a request and on how long it may take to come."""

import asyncio
import logging
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from niruhybrid.server import problems
from niruhybrid.server.connections import ConnectionLimits, ConnectionTable
from niruhybrid.server.problems import RequestError

__all__ = ("MAX_HEADER_LINES", "MAX_HEAD_BYTES", "BoundedProtocol", "Connections")

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 65_536
"""Bytes of a request's target and header lines at the most."""

MAX_HEADER_LINES = 256
"""Header lines of a request at the most."""

_CLOSED_AT_ONCE = 32
_WARN_EVERY = 60.0  # seconds


class Connections:
    """The connections of a server, with one timer that closes those that wait too long for a request.

    Made on a running event loop; to be closed.

    Args:
        limits: the bounds.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.table: ConnectionTable[BoundedProtocol] = ConnectionTable(limits)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._warned = -_WARN_EVERY

    def make_room(self) -> None:
        """Close the connection that has waited longest for a request, if there is no room for one more."""
        if not self.table.is_full:
            return
        self.warn()
        oldest = self.table.longest_waiting()
        if oldest is not None:
            oldest.evict()

    def warn(self) -> None:
        """Log that connections are closed or refused for lack of room; once a minute at the most."""
        now = self._loop.time()
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            logger.warning("connections_full open=%d limit=%d", self.table.open, self.table.limits.total)

    def wait(self, connection: "BoundedProtocol") -> None:
        """Close a connection unless it brings a request within `head_timeout`."""
        self.table.wait(connection, self._loop.time())
        self._watch()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self) -> None:
        """Set the timer, if it is not set: it may fire early and then looks again."""
        due = self.table.due()
        if self._timer is None and due is not None:
            self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        for connection in self.table.take_overdue(self._loop.time(), _CLOSED_AT_ONCE):
            connection.expire()
        self._watch()


class BoundedProtocol(HttpToolsProtocol):
    """Serves HTTP on one connection, and closes it when a request does not come or its head is too large.

    A connection waits for a request from its beginning, or from the end of the last response, until the head of the
    next one is complete; whatever it may still send of an old body in this time is passed over.

    Args:
        connections: where it is counted.
        peer: what it is counted by.
        config: uvicorn's.
        server_state: what uvicorn's connections share.
        app_state: what the application's requests share.
    """

    def __init__(
        self,
        connections: Connections,
        peer: str | None,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._all = connections
        self.handshake: asyncio.Task[None] | None = None  # until the connection is made
        self._peer = peer
        self._counted = True
        self._head_begun = False  # part of a head has come, and not all of it
        self._head_bytes = 0
        self._head_lines = 0
        self._too_large = False
        self._told = False  # the parser has told of something in the bytes that it was given last
        self._kept_bytes = 0  # that the parser was given since it told of something
        self._unsent: int | None = None  # bytes that had not been accepted when it expired last

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self.handshake = None
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn's narrows it alike
        self._all.wait(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release what the connection held."""
        self.release()
        super().connection_lost(exc)

    def release(self) -> None:
        """Count the connection no more; a second call does no harm."""
        self._all.table.stop_waiting(self)
        if self._counted:
            self._counted = False
            self._all.table.release(self._peer)

    def data_received(self, data: bytes) -> None:
        """Take bytes of requests; refuse those that are malformed, or that are more of a head than is taken."""
        self._told = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # a request to change the protocol may be answered as any other
        except httptools.HttpParserError:
            self._refuse(_head_too_large() if self._too_large else _malformed())
            return
        self._kept_bytes = 0 if self._told else self._kept_bytes + len(data)
        if self._kept_bytes > MAX_HEAD_BYTES:
            self._refuse(_head_too_large())

    def on_message_begin(self) -> None:
        """Begin a request; the time for its head begins anew, once."""
        super().on_message_begin()
        self._told = self._head_begun = True
        self._head_bytes = self._head_lines = 0
        if not self._is_serving:
            self._all.wait(self)

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's target."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header line, or a line that trails the body."""
        self._head_lines += 1
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Have the request served."""
        self._told = True
        self._head_begun = False
        if not self._is_serving:
            self._all.table.stop_waiting(self)
        if self._all.table.is_busy:
            self._all.warn()
            self.scope["niru.busy"] = True  # type: ignore[typeddict-unknown-key]  # read by `Front`
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._told = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request's body."""
        self._told = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, unless it is there already."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # there is one timer for all connections
        if not self._is_serving:
            self._unsent = None
            self._all.wait(self)

    def expire(self) -> None:
        """Close the connection for its silence, or wait on while the client still takes the last response."""
        if self.handshake is not None:
            self.handshake.cancel()
            return
        unsent = self.transport.get_write_buffer_size()
        if unsent and (self._unsent is None or unsent < self._unsent):
            self._unsent = unsent
            self._all.wait(self)
        elif unsent or self.transport.is_closing():
            self.transport.abort()
        elif self._head_begun:
            self._refuse(_head_too_slow())
        else:
            self.transport.close()
            self._all.wait(self)  # for the end of the connection: the peer may not take part in it

    def evict(self) -> None:
        """Close a connection that waits for a request, at once: its place is needed."""
        if self.handshake is not None:
            self.handshake.cancel()
        else:
            if self._head_begun:
                self.transport.write(self._rendered(_no_room()))
            self.transport.abort()
        self.release()

    @property
    def _is_serving(self) -> bool:
        """Whether a response is under way."""
        return self.cycle is not None and not self.cycle.response_complete

    def _count(self, size: int) -> None:
        self._told = True
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES or self._head_lines > MAX_HEADER_LINES:
            self._too_large = True
            raise httptools.HttpParserError("the head is too large")

    def _refuse(self, error: RequestError) -> None:
        """Answer what is no request, and close; in the middle of a response nothing can be answered any more."""
        if self._is_serving:
            self.transport.abort()
            return
        self.transport.write(self._rendered(error))
        self.transport.close()
        self._all.wait(self)  # until the client has taken that

    def _rendered(self, error: RequestError) -> bytes:
        response = problems.response(error)
        headers = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
        status = HTTPStatus(response.status_code)
        head = b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode("ascii"))
        return b"%b%b\r\n%b" % (head, b"".join(b"%b: %b\r\n" % line for line in headers), bytes(response.body))


def _head_too_slow() -> RequestError:
    return RequestError("request_timeout", "the head of the request did not arrive in time: send it faster")


def _head_too_large() -> RequestError:
    detail = f"it is over {MAX_HEAD_BYTES} bytes or {MAX_HEADER_LINES} lines: send less in the URL and the header"
    return RequestError("head_too_large", detail)


def _malformed() -> RequestError:
    return RequestError("malformed_request", "this is not HTTP/1.1: see RFC 9112")


def _no_room() -> RequestError:
    return RequestError("overloaded", "too many connections are open: try again", retry_after=1)
