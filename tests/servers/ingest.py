"""An ingest through NATS that can be disturbed: worker processes to kill, a publisher that does not give up."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import orjson
from nats import errors as nats_errors

from niruhybrid.cluster.subjects import data_subject
from niruhybrid.ports import Store
from tests.servers.cheap_worker import STARTED

__all__ = ("Disturb", "Publisher", "Start", "Worker", "check_every_message_is_kept_once", "disturbed", "workers")

ROOT = Path(__file__).parents[2]
WAIT = 40.0  # seconds for what takes one or two where nothing else runs
_POISON_EVERY = 100


class Worker:
    """A worker process.

    Args:
        process: running.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """Tell it to stop and return its exit code."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WAIT):
            return await self._process.wait()


Start = Callable[[], Awaitable[Worker]]


@asynccontextmanager
async def workers(url: str, store: str) -> AsyncIterator[Start]:
    """Yield what starts one more worker; all end with the block."""
    async with AsyncExitStack() as stack:

        async def start() -> Worker:
            command = (sys.executable, "-m", "tests.servers.cheap_worker", url, store)
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
            worker = Worker(process)
            stack.push_async_callback(worker.stop)
            assert process.stdout is not None
            async with asyncio.timeout(WAIT):
                assert await process.stdout.readline() == STARTED.encode()
            return worker

        yield start


class Publisher:
    """Publishes numbered documents, every hundredth a poison; tells how far the workers are.

    Args:
        client: connected; connects again by itself.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._stream = client.jetstream(timeout=2)
        self._results: Any = None

    async def prepare(self) -> None:
        """Make the stream, as the first worker would."""
        await self._stream.add_stream(name="niru", subjects=["niru.data", "niru.data.>"], allow_direct=True)

    async def listen(self) -> None:
        """Hear results from now on."""
        self._results = await self._client.subscribe("niru.results")

    async def publish_all(self, numbers: range) -> None:
        """Publish the documents of these numbers, each until it is known to be kept."""
        slots = asyncio.Semaphore(64)
        async with asyncio.TaskGroup() as group:
            for each in numbers:
                await slots.acquire()
                group.create_task(self._publish(each)).add_done_callback(lambda _: slots.release())

    async def publish(self, value: object, name: str, once: str) -> None:
        """Publish a message until it is known to be kept; once, however often it is tried."""
        while True:
            try:
                await self._stream.publish(
                    data_subject("niru", name), orjson.dumps(value), headers={"Nats-Msg-Id": once}
                )
            except (nats_errors.Error, TimeoutError):
                continue
            return

    async def results(self, number: int) -> None:
        """Wait for results, as many as may come at the least."""
        for _ in range(number):
            await self._results.next_msg(WAIT)

    async def all_done(self) -> None:
        """Wait until the group has nothing left to do."""
        while True:
            try:
                await self._results.next_msg(0.3)
            except nats_errors.TimeoutError:
                info = await self._stream.consumer_info("niru", "niru")
                if info.num_pending == 0 and info.num_ack_pending == 0:
                    return

    async def dead_letters(self) -> dict[str, str]:
        """Return the reason for each dead letter, by its document's id."""
        reasons = {}
        for sequence in range(1, (await self._stream.stream_info("niru-dead")).state.messages + 1):
            letter = await self._stream.get_msg("niru-dead", sequence)
            reasons[orjson.loads(letter.data)["id"]] = letter.headers["Niru-Reason"]
        return reasons

    async def _publish(self, number: int) -> None:
        await self.publish({"id": f"d{number}", "text": _text(number)}, f"d{number}", f"once-{number}")


Disturb = Callable[[Publisher, Start, Worker], Awaitable[None]]
"""Is given the publisher, what starts one more worker, and the first worker."""


def check_every_message_is_kept_once(store: Store, number: int, dead: dict[str, str]) -> None:
    """Assert that a store has all that was published but the poison, and that the dead letters are all of it."""
    names = list(store.ids())
    found = {document.id: document.text for document in store.get(names) if document is not None}
    poison = range(_POISON_EVERY - 1, number, _POISON_EVERY)
    assert store.count() == len(names) == len(found)
    assert found == {f"d{each}": _text(each) for each in range(number) if each not in poison}
    assert dead == {f"d{each}": "invalid_text" for each in poison}


async def disturbed(url: str, store: str, number: int, disturb: Disturb) -> dict[str, str]:
    """Ingest `number` messages while something is disturbed, to the end; return the reasons of the dead letters."""
    async with AsyncExitStack() as stack:
        client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=1, error_cb=_expected)
        stack.push_async_callback(client.close)
        start = await stack.enter_async_context(workers(url, store))
        publisher = Publisher(client)
        await publisher.listen()
        await publisher.prepare()
        await publisher.publish_all(range(number // 2))  # so that from the start there is more to do than can be done
        first = await start()
        publishing = asyncio.create_task(publisher.publish_all(range(number // 2, number)))
        await disturb(publisher, start, first)
        await publishing
        async with asyncio.timeout(2 * WAIT + number / 100):
            await publisher.all_done()
        return await publisher.dead_letters()


async def _expected(error: Exception) -> None:
    """Say nothing of a broken connection: it is what is tried here."""


def _text(number: int) -> str:
    return " " if number % _POISON_EVERY == _POISON_EVERY - 1 else f"text {number} of tea and bread"
