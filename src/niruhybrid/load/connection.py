"""One HTTP/1.1 connection that costs little: what is measured is to be the server, not this."""

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

from niruhybrid.errors import InvalidSettingError
from niruhybrid.urls import is_url, shown_url

__all__ = ("Address", "Connection", "Reply")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; times of the event loop's clock.

    Attributes:
        status: of the response; 0 where the connection broke before it was whole.
        first: when the first byte of the body came; the end where there was none.
        last: when it ended.
        body: the whole of it.
    """

    status: int
    first: float
    last: float
    body: bytes


class Address:
    """A server's address.

    Args:
        url: such as `http://127.0.0.1:8000`.

    Raises:
        InvalidSettingError: it is no such URL.
    """

    def __init__(self, url: str) -> None:
        if not is_url(url, "http", "https"):
            raise InvalidSettingError(f"`url` is {shown_url(url)!r}: give a URL, such as http://127.0.0.1:8000")
        parts = urlsplit(url)
        self.host, self.path = parts.hostname or "", parts.path.rstrip("/")
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None

    def request(self, path: str, body: bytes, api_key: str | None) -> bytes:
        """Return a POST of JSON as bytes."""
        key = "" if api_key is None else f"Authorization: Bearer {api_key}\r\n"
        head = (
            f"POST {self.path}{path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{key}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("latin-1") + body


class Connection(asyncio.Protocol):
    """A connection that is kept, for one request at a time; made by `opened`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._waiting: asyncio.Future[Reply] | None = None
        self.usable = True

    @classmethod
    async def opened(cls, address: Address) -> "Connection":
        """Return a connection.

        Raises:
            OSError: nobody answers there.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, address.host, address.port, ssl=address.tls)
        return connection

    def ask(self, request: bytes) -> "asyncio.Future[Reply]":
        """Send a request and return the future of its reply, which never fails."""
        self._parser = httptools.HttpResponseParser(self)
        self._body, self._first = bytearray(), 0.0
        self._waiting = self._loop.create_future()
        if self.usable:
            self._transport.write(request)
        else:
            self._finish(0)
        return self._waiting

    def close(self) -> None:
        """Close it."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, as asyncio has it."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # for the type checker; asyncio says so
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's own name
        """End what is under way, as asyncio has it."""
        self.usable = False
        self._finish(0)

    def data_received(self, data: bytes) -> None:
        """Read, as asyncio has it."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, as the parser has it."""
        self._first = self._first or self._loop.time()
        self._body += body

    def on_message_complete(self) -> None:
        """End the request, as the parser has it."""
        self.usable = self.usable and self._parser.should_keep_alive()
        self._finish(self._parser.get_status_code())

    def _finish(self, status: int) -> None:
        if self._waiting is not None and not self._waiting.done():
            now = self._loop.time()
            self._waiting.set_result(Reply(status, self._first or now, now, bytes(self._body)))
