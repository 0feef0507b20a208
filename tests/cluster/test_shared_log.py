"""Two servers that share a log on PostgreSQL: each goes on with the answers of the other."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest
import requests

from niruhybrid.config import ServerConfig, StoreConfig
from niruhybrid.pipeline import Pipeline
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.server.app import create_app
from niruhybrid.server.run import listen
from niruhybrid.server.shared_log import Copied
from niruhybrid.server.streams import render
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Hit, Query, Token
from tests.cluster.reading import Event, events

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BEAT = 0.3
URL = "/stream/query"
ANN, BOB = {"X-API-Key": "secret-of-ann-0123456789"}, {"X-API-Key": "secret-of-bob-0123456789"}


class Stepwise:
    """Gives one token for each step it is allowed; tells when it was closed."""

    def __init__(self, tokens: int = 4) -> None:
        self.tokens = tokens
        self.allowed = threading.Semaphore(0)
        self.closed = threading.Event()

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        try:
            for number in range(self.tokens):
                assert await asyncio.to_thread(self.allowed.acquire, timeout=10)
                yield Token(f"{number} ")
        finally:
            self.closed.set()
            self.allowed.release()  # a thread may still wait for it


class Server:
    """A server in a thread of its own, which shares its answers through a database."""

    def __init__(self, database: str, stepwise: Stepwise, *, beat: float = BEAT, **settings: Any) -> None:
        import uvicorn

        from niruhybrid.cluster.shared_log import PostgresSharedLog

        keys = ", ".join(f"{name}:read:{key['X-API-Key']}" for name, key in (("ann", ANN), ("bob", BOB)))
        config = ServerConfig(port=0, api_keys=keys, **settings)

        async def pipeline() -> Pipeline:
            opened.set()
            return Pipeline(HashEncoder(), EmbeddedStore(), stepwise)

        async def log() -> PostgresSharedLog:
            return await PostgresSharedLog.open(StoreConfig(database), keep=config.log_seconds, beat=beat)

        opened = threading.Event()
        listener = listen(config)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = create_app(pipeline, config, open_log=log)
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()
        assert opened.wait(10)

    def ask(self, **headers: str) -> requests.Response:
        """Ask as Ann."""
        return requests.post(self.url + URL, json={"query": "tea"}, headers=ANN | headers, stream=True, timeout=10)

    def read(self, stream: str, last: str, owner: dict[str, str] = ANN) -> requests.Response:
        """Go on with a stream after an event."""
        headers = owner | {"Last-Event-ID": last}
        return requests.get(f"{self.url}/streams/{stream}", headers=headers, stream=True, timeout=10)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def stepwise() -> Stepwise:
    return Stepwise()


@pytest.fixture
def database(postgres_server: "PostgresServer") -> str:
    return postgres_server.new_database()


@pytest.fixture
def start(database: str, stepwise: Stepwise) -> Iterator[Callable[..., Server]]:
    """Start servers that share a log, and stop them at the end."""
    servers: list[Server] = []

    def start(**settings: Any) -> Server:
        servers.append(Server(database, stepwise, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def taken(response: requests.Response, number: int) -> list[Event]:
    """Read so many events of a stream, and no more."""
    stream = events(response)
    return [next(stream) for _ in range(number)]


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_an_answer_goes_on_at_another_server_as_if_it_had_not_broken_off(
    start: Callable[..., Server], stepwise: Stepwise, cut: int
) -> None:
    first, second = start(), start()
    stepwise.allowed.release(cut - 1) if cut > 1 else None
    with first.ask() as response:
        before = taken(response, cut)
    stream = before[0].id.partition(":")[0]
    with second.read(stream, before[-1].id) as response:
        stepwise.allowed.release(8)
        after = list(events(response))
    assert [event.id for event in before + after] == [f"{stream}:{number}" for number in range(1, 7)]
    assert [event.name for event in before + after] == ["sources", *["token"] * 4, "done"]
    assert "".join(event.data["text"] for event in (before + after)[1:-1]) == "0 1 2 3 "


def test_what_comes_while_another_server_reads_is_told_at_once(
    start: Callable[..., Server], stepwise: Stepwise
) -> None:
    first, second = start(beat=20.0), start(beat=20.0)  # so nobody looks by himself before a read has timed out
    with first.ask() as one:
        stream = next(reading := events(one)).id.partition(":")[0]
        with second.read(stream, f"{stream}:0") as two:
            following = events(two)
            assert next(following).name == "sources"
            for number in range(4):
                stepwise.allowed.release()
                assert next(following).data["text"] == f"{number} "
            assert [event.data for event in following] == [list(reading)[-1].data]


def test_another_server_sends_what_the_first_one_did(start: Callable[..., Server], stepwise: Stepwise) -> None:
    first, second = start(), start()
    stepwise.allowed.release(8)
    with first.ask() as response:
        whole = response.content
    last = whole.split(b"\n\n")[-2].split(b"\n")[0].decode().removeprefix("id: ")
    stream = last.partition(":")[0]
    first.stop()  # it copies what is left before it ends
    assert second.read(stream, f"{stream}:0").content == whole
    assert second.read(stream, last).status_code == 204
    assert second.ask(**{"Last-Event-ID": f"{stream}:0"}).content == whole


@pytest.mark.parametrize("last", ["{}:99", "unknown:1"])
def test_what_is_not_shared_is_stale(start: Callable[..., Server], stepwise: Stepwise, last: str) -> None:
    first, second = start(), start()
    stepwise.allowed.release(8)
    stream = taken(first.ask(), 6)[0].id.partition(":")[0]
    first.stop()
    asked = last.format(stream)
    [event] = events(second.read(asked.partition(":")[0], asked))
    assert event.name == "stale"


def test_an_answer_is_shared_with_its_owner_alone(start: Callable[..., Server], stepwise: Stepwise) -> None:
    first, second = start(), start()
    stepwise.allowed.release(8)
    stream = taken(first.ask(), 6)[0].id.partition(":")[0]
    first.stop()
    [event] = events(second.read(stream, f"{stream}:0", BOB))
    assert event.name == "stale"
    assert next(events(second.read(stream, f"{stream}:0", ANN))).name == "sources"


def test_an_answer_that_is_read_elsewhere_is_not_given_up(start: Callable[..., Server], stepwise: Stepwise) -> None:
    first, second = start(grace=1.0), start()
    with first.ask() as response:
        [sources] = taken(response, 1)
    stream = sources.id.partition(":")[0]
    with second.read(stream, sources.id) as response:
        following = events(response)
        stepwise.allowed.release()
        assert next(following).data["text"] == "0 "
        assert not stepwise.closed.wait(2.2)  # twice the grace
        stepwise.allowed.release(8)
        assert [event.name for event in following] == ["token", "token", "token", "done"]


def test_an_answer_that_nobody_reads_is_given_up_and_stale_elsewhere(
    start: Callable[..., Server], stepwise: Stepwise
) -> None:
    first, second = start(grace=0.3), start()
    with first.ask() as response:
        [sources] = taken(response, 1)
    stream = sources.id.partition(":")[0]
    assert stepwise.closed.wait(5)
    first.stop()
    [event] = events(second.read(stream, sources.id))
    assert event.name == "stale"


def test_a_reader_may_be_there_before_the_first_event_if_it_is_the_owner(database: str) -> None:
    from niruhybrid.cluster.shared_log import PostgresSharedLog

    frames = [render("early", 1, "sources", {"hits": []}), render("early", 2, "done", {})]

    async def read(log: PostgresSharedLog, owner: str) -> list[str]:
        assert await log.find("early", owner) is not None
        reading = asyncio.ensure_future(anext(events := log.follow("early", owner, 0), None))
        await asyncio.sleep(0)
        await log.append([Copied("early", "ann", 0, frames, ended=True)])
        names: list[str] = [] if (first := await reading) is None else [first.event]
        async for event in events:
            names.append(event.event)  # noqa: PERF401  # an asynchronous generator
        await log.forget(["early"])
        return names

    async def main() -> None:
        log = await PostgresSharedLog.open(StoreConfig(database), keep=60.0, beat=10.0)
        assert await read(log, "ann") == ["sources", "done"]
        assert await read(log, "bob") == []
        await log.aclose()

    asyncio.run(main())


def test_where_the_maker_died_the_answer_ends_stale_after_what_came_of_it(
    start: Callable[..., Server], database: str
) -> None:
    from niruhybrid.cluster.shared_log import PostgresSharedLog

    frames = [render("lost", 1, "sources", {"query_id": "q", "hits": []}), render("lost", 2, "token", {"text": "so "})]

    async def die_in_the_middle() -> None:
        log = await PostgresSharedLog.open(StoreConfig(database), keep=60.0, beat=BEAT)
        await log.append([Copied("lost", "ann", 0, frames, ended=False)])
        await log.aclose()

    server = start()
    asyncio.run(die_in_the_middle())
    with server.read("lost", "lost:0") as response:
        assert [event.name for event in events(response)] == ["sources", "token", "stale"]
