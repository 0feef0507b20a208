"""A load generator that costs little: HTTP/1.1 over raw sockets, answers kept as bytes and checked after the clock.

It runs on a core of its own and tells how busy that core was, so that nobody takes its limits for a server's.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

END = b"0\r\n\r\n"


@dataclass(slots=True, eq=False)
class Answer:
    """One request and what came back; times in seconds since it was due.

    Attributes:
        status: of the response; 0 where none came.
        first: until the first byte of the body.
        last: until the end of the body.
        head: the response's status line and headers.
        body: the body as it was on the wire, in chunks where it was chunked.
    """

    status: int
    first: float
    last: float
    head: bytes
    body: bytes

    @property
    def good(self) -> bool:
        """Whether it was answered at all, rather than refused."""
        return self.status == 200

    @property
    def retry_after(self) -> bool:
        """Whether a refusal says when to come back."""
        return b"\r\nretry-after:" in self.head.lower()

    def content(self) -> bytes:
        """Return the body, out of its chunks."""
        if b"transfer-encoding: chunked" not in self.head.lower():
            return self.body
        parts, left = [], self.body
        while left:
            size, _, left = left.partition(b"\r\n")
            parts.append(left[: int(size, 16)])
            left = left[int(size, 16) + 2 :]
        return b"".join(parts)


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._due = 0.0
        self._clear()

    def _clear(self) -> None:
        self._seen = bytearray()
        self._body_at = self._length = -1
        self._first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._waiting and not self._waiting.done():
            self._finish(0, bytes(exc.__repr__(), "utf-8"), b"")

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if self._body_at < 0:
            self._read_head()
        if self._body_at < 0:
            return
        if not self._first and len(self._seen) > self._body_at:
            self._first = time.perf_counter() - self._due
        ends_at = self._body_at + self._length
        if len(self._seen) >= ends_at if self._length >= 0 else self._seen.endswith(END):
            head, body = bytes(self._seen[: self._body_at]), bytes(self._seen[self._body_at :])
            self._finish(int(head[9:12]), head, body)

    def _read_head(self) -> None:
        at = self._seen.find(b"\r\n\r\n")
        if at >= 0:
            self._body_at = at + 4
            _, name, value = bytes(self._seen[: self._body_at]).lower().partition(b"\r\ncontent-length:")
            self._length = int(value.partition(b"\r\n")[0]) if name else -1

    def _finish(self, status: int, head: bytes, body: bytes) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting and not waiting.done():
            waiting.set_result(Answer(status, self._first, time.perf_counter() - self._due, head, body))
        self._clear()
        if self._transport and b"connection: close" in head.lower():
            self._transport.close()
            self._transport = None

    @property
    def usable(self) -> bool:
        return self._transport is not None

    def ask(self, request: bytes, due: float) -> "asyncio.Future[Answer]":
        """Send a request, whose answer's times count from `due`, and return the future of its answer."""
        assert self._transport is not None
        assert self._waiting is None
        self._waiting, self._due = asyncio.get_running_loop().create_future(), due
        self._transport.write(request)
        return self._waiting

    def close(self) -> None:
        if self._transport:
            self._transport.abort()


@dataclass(frozen=True, slots=True)
class Load:
    """What one stretch of load gave.

    Attributes:
        answers: in the order in which they ended.
        seconds: from the first request to the last answer; of an open loop, as long as requests were offered.
        generator_share: of its core, that the generator used.
        late: the 99th percentile of the seconds by which requests of an open loop left after they were due.
    """

    answers: list[Answer]
    seconds: float
    generator_share: float
    late: float = 0.0


def post(path: str, body: dict[str, Any]) -> bytes:
    """Return a request in the form that it has on the wire."""
    data = json.dumps(body).encode()
    kind = f"Content-Type: application/json\r\nContent-Length: {len(data)}"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}\r\n\r\n"
    return head.encode() + data


def requests(path: str, questions: Iterable[str], more: Mapping[str, Any]) -> Iterator[bytes]:
    """Return one request for each question, with `more` fields."""
    return (post(path, {"query": question, "top_k": 5, **more}) for question in questions)


async def connect(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


async def closed_loop(port: int, asked: Iterator[bytes], clients: int, seconds: float) -> Load:
    """Have each client ask again as soon as its answer is complete, for some seconds."""
    answers = list[Answer]()
    connections = [await connect(port) for _ in range(clients)]
    cpu, began = time.process_time(), time.perf_counter()

    async def client(connection: Connection) -> None:
        while (now := time.perf_counter()) < began + seconds:
            answers.append(await connection.ask(next(asked), now))
            if not connection.usable:
                connection = await connect(port)
        connection.close()

    await asyncio.gather(*(client(connection) for connection in connections))
    took = time.perf_counter() - began
    return Load(answers, took, (time.process_time() - cpu) / took)


async def open_loop(port: int, asked: Iterator[bytes], rate: float, seconds: float, *, grace: float = 2.0) -> Load:
    """Offer `rate` requests a second, evenly, whatever becomes of them.

    A request goes out on a connection that is free, or on a new one. What is unanswered `grace` seconds after the last
    request counts as never answered.

    Args:
        port: of the server.
        asked: at least as many requests as will be offered.
        rate: requests a second.
        seconds: for which requests are offered.
        grace: seconds.
    """
    free: deque[Connection] = deque([await connect(port) for _ in range(16)])
    answers, late = list[Answer](), list[float]()
    under_way: set[asyncio.Task[None]] = set()

    async def one(request: bytes, due: float) -> None:
        connection = free.popleft() if free else await connect(port)
        answers.append(await connection.ask(request, due))
        if connection.usable:
            free.append(connection)

    cpu, began, number = time.process_time(), time.perf_counter(), 0
    while (now := time.perf_counter() - began) < seconds:
        while number / rate <= now:
            late.append(now - number / rate)
            task = asyncio.ensure_future(one(next(asked), began + number / rate))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            number += 1
        await asyncio.sleep(number / rate - (time.perf_counter() - began))
    share = (time.process_time() - cpu) / now
    if under_way:
        _, pending = await asyncio.wait(under_way, timeout=grace)
        answers += [Answer(0, 0.0, grace, b"no answer", b"") for _ in pending]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    for connection in free:
        connection.close()
    late.sort()
    return Load(answers, now, share, late[int(len(late) * 0.99)])


def events(content: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a stream: name and data of each."""
    found = []
    for block in content.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if fields:
            found.append((fields.get("event", "message"), json.loads(fields["data"])))
    return found


def check_stream(answer: Answer) -> dict[str, Any]:
    """Return the data of the terminal event of a streamed answer.

    Raises:
        AssertionError: it was not sources with hits, then an answer, then exactly one end that says `done`.
    """
    assert answer.status == 200, answer.head
    found = events(answer.content())
    names = [name for name, _ in found]
    assert names[0] == "sources", names
    assert names.count("sources") == 1, names
    assert names[-1] == "done", found[-1]
    assert set(names[1:-1]) == {"token"}, names
    assert found[0][1]["hits"], "no hits"
    assert "".join(data["text"] for name, data in found if name == "token"), "no answer"
    return found[-1][1]


def check_json(answer: Answer) -> dict[str, Any]:
    """Return an answer in one piece of JSON.

    Raises:
        AssertionError: it has no hits.
    """
    assert answer.status == 200, answer.head
    found: dict[str, Any] = json.loads(answer.content())
    assert found["hits"], "no hits"
    return found
