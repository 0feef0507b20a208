"""A bulk ingest that goes on for as long as it is told to: NDJSON sent while its acknowledgements are read."""

import asyncio
import json
import time
from collections.abc import Iterator

KIND = b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked"
HEAD = b"POST /stream/data HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n\r\n" % KIND


class Ingest:
    """One `POST /stream/data`, as fast as the server takes it.

    Attributes:
        acknowledged: documents until now.
    """

    def __init__(self) -> None:
        self.acknowledged = 0
        self._begun = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._writer: asyncio.StreamWriter | None = None

    async def start(self, port: int, documents: Iterator[dict[str, str]]) -> bool:
        """Begin; return False where the path is not served, else True once a document was acknowledged."""
        reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer.write(HEAD)
        self._tasks = [asyncio.ensure_future(self._send(documents)), asyncio.ensure_future(self._read(reader))]
        begun = asyncio.ensure_future(self._begun.wait())
        await asyncio.wait([begun, self._tasks[1]], return_when=asyncio.FIRST_COMPLETED, timeout=30)
        begun.cancel()
        return self._begun.is_set()

    async def rate(self, seconds: float) -> float:
        """Return the documents a second that were acknowledged in the next `seconds`."""
        before, began = self.acknowledged, time.perf_counter()
        await asyncio.sleep(seconds)
        return (self.acknowledged - before) / (time.perf_counter() - began)

    async def stop(self) -> None:
        """Cut the connection."""
        for task in self._tasks:
            task.cancel()
        if self._writer:
            self._writer.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, documents: Iterator[dict[str, str]]) -> None:
        assert self._writer is not None
        for document in documents:
            line = json.dumps(document).encode() + b"\n"
            self._writer.write(b"%x\r\n%b\r\n" % (len(line), line))
            await self._writer.drain()
        raise AssertionError("the documents did not last: bring more")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            return
        async for line in reader:
            assert b'"error"' not in line, line
            if b'"id"' in line:
                self.acknowledged += 1
                self._begun.set()
