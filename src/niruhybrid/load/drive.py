"""Asks a server as planned, closed or open loop, and notes when each request was due, sent, begun and done."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from niruhybrid.errors import UnreachableError
from niruhybrid.load.connection import Address, Connection, Reply

__all__ = ("MOST_UNDER_WAY", "UNSENT", "Kind", "Load", "Sample", "drive_closed", "drive_open")

Kind = Literal["query", "ingest"]
UNSENT = -1
"""The status of a request that was not sent."""

MOST_UNDER_WAY = 10_000
"""Requests of an open loop that are under way or wait for a connection, at the most."""

_COMPLETE = {"query": b"\nevent: done\n", "ingest": b'"watermark"'}


@dataclass(frozen=True, slots=True)
class Sample:
    """One request; times in seconds from the start.

    Attributes:
        kind: what it was.
        due: when it was to be sent. Waiting counts from here, whatever kept it: else a server that stalls would stop
            the clock that measures it.
        sent: when it was sent.
        first: when the first byte of the answer came.
        last: when it ended.
        status: of the response; 0 where the connection broke, `UNSENT` where too many were under way to send it.
        complete: whether the answer was whole.
    """

    kind: Kind
    due: float
    sent: float
    first: float
    last: float
    status: int
    complete: bool


class Load:
    """A server, and what is asked of it.

    Args:
        address: the server.
        most: connections at once at the most.
        note: told of each sample.
    """

    def __init__(self, address: Address, most: int, note: Callable[[Sample], None]) -> None:
        self._address = address
        self._idle: deque[Connection] = deque()
        self._free = asyncio.Semaphore(most)
        self._note = note
        self._began = asyncio.get_running_loop().time()

    def now(self) -> float:
        """Return the seconds since the start."""
        return asyncio.get_running_loop().time() - self._began

    async def reach(self) -> None:
        """Open a first connection.

        Raises:
            UnreachableError: nobody answers there.
        """
        try:
            self._idle.append(await Connection.opened(self._address))
        except OSError as err:
            raise UnreachableError(f"nothing listens there ({err}): check the URL and that the server runs") from err

    async def send(self, kind: Kind, request: bytes, due: float) -> None:
        """Send one request, wait for its end, and note it."""
        async with self._free:
            connection = None
            while self._idle and connection is None:
                kept = self._idle.popleft()
                connection = kept if kept.usable else None
            sent = self.now()
            try:
                connection = connection or await Connection.opened(self._address)
                reply = await connection.ask(request)
            except OSError:
                now = self.now() + self._began
                reply = Reply(0, now, now, b"")
            if connection is not None and connection.usable:
                self._idle.append(connection)
        complete = reply.status == 200 and _COMPLETE[kind] in reply.body
        first, last = reply.first - self._began, reply.last - self._began
        self._note(Sample(kind, due, sent, first, last, reply.status, complete))

    def pass_over(self, kind: Kind, due: float) -> None:
        """Note a request that is not sent."""
        now = self.now()
        self._note(Sample(kind, due, now, now, now, UNSENT, complete=False))

    def close(self) -> None:
        """Close all connections."""
        while self._idle:
            self._idle.pop().close()


async def drive_closed(load: Load, kind: Kind, requests: Iterator[bytes], *, clients: int, seconds: float) -> None:
    """Let `clients` ask one thing after the other, until `seconds` have passed."""

    async def client() -> None:
        while (due := load.now()) < seconds:
            await load.send(kind, next(requests), due)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())


async def drive_open(
    load: Load, kind: Kind, requests: Iterator[bytes], arrivals: Iterator[float], *, most: int = MOST_UNDER_WAY
) -> None:
    """Send each request when it is due, whatever has become of those before.

    A server that stalls would gather them without end: while `most` are under way, those that come due are noted as
    `UNSENT`.
    """
    under_way: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:
        for due in arrivals:
            await asyncio.sleep(max(0.0, due - load.now()))
            if len(under_way) >= most:
                load.pass_over(kind, due)
                continue
            task = group.create_task(load.send(kind, next(requests), due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
