"""The other end of the wire, scripted byte by byte: an HTTP/1.1 server, and a proxy that cuts connections."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

_WAIT = 20.0


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What the server says: a chunk for each part, an event to be waited for; cut short unless it `ends`."""

    parts: Sequence[bytes | threading.Event] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ends: bool = True


CUT = Reply(status=0)
"""The connection is closed without a word."""

Handler = Callable[[Received], Reply]


def in_order(*replies: Reply) -> Handler:
    """Answer each request with the next reply, and any further one with the last."""
    left = list(replies)
    return lambda _request: left.pop(0) if len(left) > 1 else left[0]


class _Loop:
    """An event loop in a thread of its own, so that blocking clients can be tested."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        self._server = await asyncio.start_server(self._tracked, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._thread.start()
        assert self._ready.wait(_WAIT)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_WAIT)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _tracked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # asyncio's streams report a cancelled handler as an error
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self.serve(reader, writer)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Coroutine[Any, Any, None]:
        raise NotImplementedError


class ScriptedServer(_Loop):
    """Answers as `handler` says and keeps what it was asked."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self.handler = handler
        self.when_left: Callable[[], None] = lambda: None
        self.requests: list[Received] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        finally:
            self.when_left()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await _received(reader)
            self.requests.append(request)
            reply = self.handler(request)
            if reply.status == 0:
                return
            lines = [f"HTTP/1.1 {reply.status} x", "Transfer-Encoding: chunked"]
            lines += [f"{name}: {value}" for name, value in reply.headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            for part in reply.parts:
                await writer.drain()
                if isinstance(part, bytes):
                    writer.write(b"%x\r\n%b\r\n" % (len(part), part) if part else b"")
                else:
                    await asyncio.to_thread(part.wait, _WAIT)
            await writer.drain()
            if not reply.ends:
                await _flushed(writer)
                return
            writer.write(b"0\r\n\r\n")
            await writer.drain()


class CuttingProxy(_Loop):
    """Passes bytes on to a server, and closes a connection after so many bytes of the answer.

    Args:
        port: of the server, on loopback.
        cuts: for each connection in turn the bytes that get through; None, and any further connection: all.
    """

    def __init__(self, port: int, cuts: Iterator[int | None]) -> None:
        super().__init__()
        self._to = port
        self._cuts = cuts
        self.connections = 0
        self.seen = bytearray()  # of the answers on the last connection
        self.when_cut: Callable[[], None] = lambda: None
        self._awaited: tuple[bytes, threading.Event] | None = None

    def awaiting(self, fragment: bytes) -> threading.Event:
        """Return what is set once these bytes have passed."""
        self._awaited = (fragment, threading.Event())
        return self._awaited[1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.seen.clear()
        left = next(self._cuts, None)
        there, onwards = await asyncio.open_connection("127.0.0.1", self._to)
        upstream = asyncio.ensure_future(_pump(reader, onwards))
        try:
            while data := await there.read(65_536):
                if left is not None and len(data) >= left:
                    writer.write(data[:left])
                    await _flushed(writer)
                    self.when_cut()
                    return
                left = None if left is None else left - len(data)
                self.seen += data
                writer.write(data)
                await writer.drain()
                if self._awaited is not None and self._awaited[0] in self.seen:
                    self._awaited[1].set()
        finally:
            upstream.cancel()
            onwards.transport.abort()  # before what may be cancelled in turn
            await asyncio.gather(upstream, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def _flushed(writer: asyncio.StreamWriter) -> None:
    """Close so that what was written still arrives."""
    writer.close()
    await writer.wait_closed()


async def _received(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ", 2)
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body)


@contextlib.contextmanager
def scripted_servers() -> Iterator[Callable[[Handler], ScriptedServer]]:
    """Start any number of servers, and end them all."""
    with contextlib.ExitStack() as servers:
        yield lambda handler: servers.enter_context(ScriptedServer(handler))


def frame(number: int, event: str, data: object, stream: str = "s") -> bytes:
    return b"id: %b:%d\nevent: %b\ndata: %b\n\n" % (stream.encode(), number, event.encode(), orjson.dumps(data))
