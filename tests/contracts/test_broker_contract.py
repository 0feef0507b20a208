"""What every broker promises to a worker. A new one joins by one more class in `WORLDS`."""

import asyncio
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from niruhybrid.cluster.broker import Broker, Handler, Request
from niruhybrid.cluster.nats import NatsBroker
from niruhybrid.cluster.nats.connection import SettledClient
from niruhybrid.cluster.subjects import data_subject
from niruhybrid.cluster_config import WorkerConfig
from tests.cluster.memory_broker import MemoryBroker, MemoryStream
from tests.servers.nats import NatsServer

WAIT = 30.0  # seconds for what should come at once


class JumpingSelector(selectors.DefaultSelector):
    """Never waits for a time: where nothing is ready, the clock goes on by as much at once.

    Attributes:
        now: seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("nothing will ever happen: the scenario waits for what does not come")
        self.now += 0.0 if ready else max(timeout or 0.0, 0.0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time, so that no test depends on how busy the machine is."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class World(Protocol):
    """A broker seen from outside: members, publishers, askers."""

    ack_wait: float

    async def member(self) -> Broker: ...
    async def add(self, subject: str, data: bytes) -> int: ...
    async def dead(self, number: int) -> list[tuple[bytes, Mapping[str, str]]]: ...
    async def ask(self, subject: str, data: bytes) -> bytes: ...
    async def listen(self, subject: str) -> Callable[[], Awaitable[bytes]]: ...


class Memory:
    ack_wait = 1.0

    def __init__(self) -> None:
        self._stream = MemoryStream(self.ack_wait)

    async def member(self) -> Broker:
        return MemoryBroker(self._stream)

    async def add(self, subject: str, data: bytes) -> int:
        return self._stream.add(subject, data)

    async def dead(self, number: int) -> list[tuple[bytes, Mapping[str, str]]]:
        assert len(self._stream.dead) == number
        return [(message.data, message.headers) for message in self._stream.dead.values()]

    async def ask(self, subject: str, data: bytes) -> bytes:
        answer = await self.listen("inbox")
        await self._stream.handlers[subject][0](Request(data, "inbox"))
        return await answer()

    async def listen(self, subject: str) -> Callable[[], Awaitable[bytes]]:
        queue: asyncio.Queue[Request] = asyncio.Queue()
        self._stream.listeners[subject].append(queue)

        async def heard() -> bytes:
            return (await queue.get()).data

        return heard


class Nats:
    ack_wait = 1.0

    def __init__(self, url: str, client: Any, stack: AsyncExitStack) -> None:
        self._config = WorkerConfig(url, ack_wait=self.ack_wait)
        self._client = client
        self._stack = stack

    async def member(self) -> Broker:
        return await self._stack.enter_async_context(NatsBroker(self._config))

    async def add(self, subject: str, data: bytes) -> int:
        return int((await self._client.jetstream().publish(subject, data)).seq)

    async def dead(self, number: int) -> list[tuple[bytes, Mapping[str, str]]]:
        stream = self._client.jetstream()
        assert (await stream.stream_info("niru-dead")).state.messages == number
        found = [await stream.get_msg("niru-dead", sequence) for sequence in range(1, number + 1)]
        return [(message.data or b"", message.headers or {}) for message in found]

    async def ask(self, subject: str, data: bytes) -> bytes:
        return bytes((await self._client.request(subject, data, timeout=WAIT)).data)

    async def listen(self, subject: str) -> Callable[[], Awaitable[bytes]]:
        listening = await self._client.subscribe(subject)
        await self._client.flush()

        async def heard() -> bytes:
            return bytes((await listening.next_msg(WAIT)).data)

        return heard


@asynccontextmanager
async def in_memory(folder: Path) -> AsyncIterator[World]:  # noqa: ARG001  # as the other
    yield Memory()


@asynccontextmanager
async def on_nats(folder: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(NatsServer(folder))
        client = SettledClient()
        await client.connect(server.url)
        stack.push_async_callback(client.close)
        yield Nats(server.url, client, stack)


WORLDS = {"memory": (in_memory, VirtualTimeLoop), "nats": (on_nats, None)}
Scenario = Callable[[World], Awaitable[None]]
Play = Callable[[Scenario], None]


@pytest.fixture(params=["memory", pytest.param("nats", marks=pytest.mark.integration)])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    """Return what plays a scenario in one of the worlds."""
    world_in, loop_factory = WORLDS[request.param]

    def played(scenario: Scenario) -> None:
        async def main() -> None:
            async with world_in(tmp_path) as world, asyncio.timeout(WAIT):
                await scenario(world)

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    return played


def test_messages_come_in_their_order_with_what_was_sent(play: Play) -> None:
    async def scenario(world: World) -> None:
        member = await world.member()
        sent = [await world.add("niru.data", b"%d" % number) for number in range(3)]
        came = [message for _ in sent for message in await member.pull(1)]
        assert [message.data for message in came] == [b"0", b"1", b"2"]
        assert [message.sequence for message in came] == sent
        assert [(message.subject, message.deliveries) for message in came] == [("niru.data", 1)] * 3

    play(scenario)


def test_no_more_messages_come_than_are_wanted(play: Play) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.member(), await world.member()
        for number in range(5):
            await world.add("niru.data", b"%d" % number)
        came = list(await one.pull(2))
        assert 1 <= len(came) <= 2
        async with asyncio.timeout(world.ack_wait * 0.9):
            while len(came) < 2:
                came += await one.pull(2 - len(came))
            while len(came) < 5:
                came += await other.pull(5)  # what the first one did not want

    play(scenario)


def test_a_pull_waits_for_the_first_message(play: Play) -> None:
    async def scenario(world: World) -> None:
        member = await world.member()
        pulling = asyncio.ensure_future(member.pull(10))
        await world.add("niru.data", b"late")
        [message] = await pulling
        assert message.data == b"late"

    play(scenario)


def test_each_message_goes_to_one_member(play: Play) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.member(), await world.member()
        pulls = [asyncio.ensure_future(member.pull(1)) for member in (one, other)]
        for number in range(2):
            await world.add("niru.data", b"%d" % number)
        came = [message.data for pull in pulls for message in await pull]
        assert sorted(came) == [b"0", b"1"]

    play(scenario)


def test_what_is_acknowledged_does_not_come_again_and_what_is_not_does(play: Play) -> None:
    async def scenario(world: World) -> None:
        member = await world.member()
        await world.add("niru.data", b"done")
        await world.add("niru.data", b"forgotten")
        came: list[Any] = []
        while len(came) < 2:
            came += await member.pull(2)
        await member.acknowledge(came[0])
        [again] = await member.pull(2)
        assert (again.data, again.deliveries) == (b"forgotten", 2)

    play(scenario)


def test_a_message_whose_time_is_extended_does_not_come_again_meanwhile(play: Play) -> None:
    async def scenario(world: World) -> None:
        member, loop = await world.member(), asyncio.get_running_loop()
        await world.add("niru.data", b"long")
        [message] = await member.pull(1)
        began, pulling = loop.time(), asyncio.ensure_future(member.pull(1))
        while loop.time() - began < 2 * world.ack_wait:
            await member.extend(message)
            done, _ = await asyncio.wait({pulling}, timeout=world.ack_wait / 4)
            assert not done
        assert [again.deliveries for again in await pulling] == [2]  # no longer extended

    play(scenario)


def test_what_is_given_back_comes_again_after_its_delay(play: Play) -> None:
    async def scenario(world: World) -> None:
        member, loop = await world.member(), asyncio.get_running_loop()
        await world.add("niru.data", b"again")
        [message] = await member.pull(1)
        began = loop.time()
        await member.retry(message, 0.2)
        [again] = await member.pull(1)
        assert loop.time() - began >= 0.19
        assert (again.sequence, again.deliveries) == (message.sequence, 2)

    play(scenario)


def test_a_cancelled_pull_loses_nothing(play: Play) -> None:
    async def scenario(world: World) -> None:
        member = await world.member()
        pulling = asyncio.ensure_future(member.pull(1))
        await asyncio.wait({pulling}, timeout=0.03)
        pulling.cancel()
        await asyncio.wait({pulling})
        await world.add("niru.data", b"kept")
        assert [message.data for message in await member.pull(1)] == [b"kept"]

    play(scenario)


def test_a_member_that_stops_leaves_what_comes_to_the_others_at_once(play: Play) -> None:
    async def scenario(world: World) -> None:
        leaving, staying = await world.member(), await world.member()
        pulling = asyncio.ensure_future(leaving.pull(5))
        await asyncio.wait({pulling}, timeout=0.03)
        pulling.cancel()
        await asyncio.wait({pulling})
        await world.add("niru.data", b"on its way")  # to the one that asked first
        came: list[Any] = []

        async def collect() -> None:
            while len(came) < 2:
                came.extend(await staying.pull(5))

        collecting = asyncio.ensure_future(collect())
        await asyncio.wait({collecting}, timeout=0.03)
        await leaving.stop()
        await leaving.stop()
        await world.add("niru.data", b"next")
        async with asyncio.timeout(world.ack_wait * 0.9):
            await collecting
        assert sorted(message.data for message in came) == [b"next", b"on its way"]

    play(scenario)


def test_a_buried_message_is_a_dead_letter_once_and_comes_no_more(play: Play) -> None:
    async def scenario(world: World) -> None:
        member = await world.member()
        await world.add("niru.data.a", b"bad")
        [first] = await member.pull(1)
        [second] = await member.pull(1)  # its time was over
        for delivery in (first, second):
            await member.bury(delivery, {"Niru-Reason": "invalid_text"})
        [(data, headers)] = await world.dead(1)
        assert (data, headers["Niru-Reason"]) == (b"bad", "invalid_text")
        assert await member.newest(first) is None  # moved, not copied
        pulling = asyncio.ensure_future(member.pull(1))
        done, _ = await asyncio.wait({pulling}, timeout=1.2 * world.ack_wait)
        assert not done
        await world.add("niru.data.b", b"good")
        assert [message.data for message in await pulling] == [b"good"]

    play(scenario)


def test_the_newest_message_of_a_subject_is_found(play: Play) -> None:
    async def scenario(world: World) -> None:
        member = await world.member()
        await world.add("niru.data.a", b"old")
        await world.add("niru.data.b", b"other")
        last = await world.add("niru.data.a", b"new")
        [message] = await member.pull(1)
        newest = await member.newest(message)
        assert newest is not None
        assert (newest.data, newest.sequence, newest.subject) == (b"new", last, "niru.data.a")

    play(scenario)


def test_the_subject_of_all_documents_keeps_no_order(play: Play) -> None:
    async def scenario(world: World) -> None:
        member = await world.member()
        await world.add("niru.data", b"one")
        await world.add("niru.data", b"another document")
        [message] = await member.pull(1)
        assert await member.newest(message) is None

    play(scenario)


def test_a_request_is_answered_until_serving_ends(play: Play) -> None:
    async def scenario(world: World) -> None:
        member = await world.member()
        asked: list[bytes] = []

        async def answer(request: Request) -> None:
            asked.append(request.data)
            await member.publish(request.reply, b"yes, " + request.data)

        end = await member.serve("niru.query", answer, shared=True)
        assert await world.ask("niru.query", b"tea?") == b"yes, tea?"
        await end()
        assert asked == [b"tea?"]

    play(scenario)


def test_a_shared_subject_is_served_by_one_member_at_a_time(play: Play) -> None:
    async def scenario(world: World) -> None:
        asked: list[str] = []

        def answering(name: str, member: Broker) -> Handler:
            async def answer(request: Request) -> None:
                asked.append(name)
                await member.publish(request.reply, b"yes")

            return answer

        for name in ("one", "other"):
            member = await world.member()
            await member.serve("niru.query", answering(name, member), shared=True)
        for _ in range(20):
            await world.ask("niru.query", b"tea?")
        assert len(asked) == 20

    play(scenario)


def test_what_is_published_reaches_who_listens(play: Play) -> None:
    async def scenario(world: World) -> None:
        member = await world.member()
        heard = await world.listen("niru.results")
        await member.publish("niru.results", b"done")
        assert await heard() == b"done"

    play(scenario)


@pytest.mark.parametrize(
    ("name", "subject"),
    [("tea-1", "niru.data.tea-1"), ("a.b", "niru.data.=612e62"), ("ü", "niru.data.=c3bc"), ("*", "niru.data.=2a")],
)
def test_every_document_has_a_subject_of_its_own(name: str, subject: str) -> None:
    assert data_subject("niru", name) == subject
