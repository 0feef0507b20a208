"""The clients and the server, with a wire between them that is cut wherever it can be."""

import asyncio
import contextlib
import itertools
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

from niruhybrid import AsyncClient, Client
from niruhybrid.client.events import AnswerEvent, Done
from niruhybrid.config import RetryPolicy, ServerConfig
from niruhybrid.errors import OverloadedError, StreamLostError
from niruhybrid.pipeline import Pipeline
from niruhybrid.types import Document, Hit, Query, Token
from tests.client.wire import CuttingProxy
from tests.server.conftest import DOCUMENTS, Server, pipeline_of

pytest.importorskip("niruhybrid.server.streams", reason="needs a server that resumes")
pytestmark = [pytest.mark.integration, pytest.mark.slow]

QUICK = RetryPolicy(5, 0.001, 0.002, on=(ConnectionError, OverloadedError))
QUESTION = "Which module is a priority queue?"
TEXTS = ["It is ", "", "h\u00e9apq\n\n", "id: s:9\n", "[1]", "."]


class Wordy:
    """Gives fixed pieces; waits before the fourth until it may go on."""

    def __init__(self) -> None:
        self.go = threading.Event()

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        for number, text in enumerate(TEXTS):
            if number == 3:
                await asyncio.to_thread(self.go.wait, 10)
            if text:
                yield Token(text, hits[0].id if text == "[1]" else None)


@pytest.fixture
def generator() -> Iterator[Wordy]:
    generator = Wordy()
    generator.go.set()
    yield generator
    generator.go.set()


@pytest.fixture
def serving(generator: Wordy) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make() -> Pipeline:
        return pipeline_of(generator)

    def start(**settings: Any) -> Server:
        servers.append(Server(make, ServerConfig(port=0, **settings)))
        servers[-1].start(wait=True)
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def ask_blocking(url: str) -> list[AnswerEvent]:
    with Client(url, retry=QUICK) as client:
        return list(client.stream(QUESTION, id="q1"))


def ask_in_task(url: str) -> list[AnswerEvent]:
    async def main() -> list[AnswerEvent]:
        async with asyncio.timeout(20), AsyncClient(url, retry=QUICK) as client:
            return [event async for event in client.stream(QUESTION, id="q1")]

    return asyncio.run(main())


asking = pytest.mark.parametrize("ask", [ask_blocking, ask_in_task], ids=["threads", "tasks"])
Ask = Callable[[str], list[AnswerEvent]]


def untimed(events: list[AnswerEvent]) -> list[AnswerEvent]:
    """Leave out what differs between two runs: how long they took."""
    return [Done(event.query_id, event.finish_reason, {}) if isinstance(event, Done) else event for event in events]


class Wire(CuttingProxy):
    """A proxy whose next cut is told to it."""

    def __init__(self, port: int) -> None:
        self.cuts: list[int | None] = []
        super().__init__(port, iter(lambda: self.cuts.pop(0) if self.cuts else None, object()))


def ends_of_events(answer: bytes | bytearray) -> list[int]:
    """Return how many bytes of an answer have passed when each event has."""
    return [found.end() for found in re.finditer(rb"\ndata: .*\n\n", answer)]


@asking
def test_cut_anywhere_the_answer_is_that_of_a_clean_run(serving: Callable[..., Server], ask: Ask) -> None:
    server = serving()
    clean = untimed(ask(server.url))
    assert "".join(event.text for event in clean if isinstance(event, Token)) == "".join(TEXTS)
    with Wire(server.port) as wire:
        assert untimed(ask(wire.url)) == clean
        whole, ends = len(wire.seen), ends_of_events(wire.seen)
        assert len(ends) == 7
        for cut in sorted({*range(1, whole, 31), *ends, *(end - 1 for end in ends), *(end + 1 for end in ends)}):
            wire.cuts = [cut]
            before = wire.connections
            assert untimed(ask(wire.url)) == clean, cut
            if cut < ends[-2] + 50:  # behind that it depends on how many digits the timings have
                assert wire.connections == before + 2, cut


@asking
def test_cut_again_and_again_the_answer_is_that_of_a_clean_run(serving: Callable[..., Server], ask: Ask) -> None:
    server = serving()
    clean = untimed(ask(server.url))
    with Wire(server.port) as wire:
        ask(wire.url)
        sources, *_ = ends_of_events(wire.seen)
        for first, then in itertools.product((sources - 9, sources, sources + 40), (500, 530, 560)):
            wire.cuts = [10, sources - 1, sources + 3, first, *[then] * 40]
            assert untimed(ask(wire.url)) == clean, (first, then)


@asking
def test_what_is_made_while_nobody_reads_is_not_lost(
    serving: Callable[..., Server], generator: Wordy, ask: Ask
) -> None:
    server = serving()
    clean = untimed(ask(server.url))
    with Wire(server.port) as wire:
        ask(wire.url)
        ends = ends_of_events(wire.seen)
        for cut in (ends[0] + 1, ends[1], ends[2] - 1):
            generator.go.clear()
            wire.cuts = [cut]
            wire.when_cut = generator.go.set
            assert untimed(ask(wire.url)) == clean, cut


@asking
def test_what_the_server_has_not_kept_is_lost_and_said_to_be(serving: Callable[..., Server], ask: Ask) -> None:
    server = serving(kept_answers=0, grace=0.0)
    with Wire(server.port) as wire:
        ask(wire.url)
        wire.cuts = [ends_of_events(wire.seen)[-2] + 20]
        with pytest.raises(StreamLostError) as caught:
            ask(wire.url)
    assert caught.value.partial == "".join(TEXTS)


def test_documents_arrive_whatever_is_cut(serving: Callable[..., Server]) -> None:
    server = serving()
    documents = [Document(f"n{number}", f"Text number {number}.") for number in range(60)]
    with Wire(server.port) as wire, Client(wire.url, retry=QUICK) as client:
        for cut in (50, 250, 300, 700, 1500):
            wire.cuts = [cut, cut // 2]
            results = list(client.ingest(documents, batch=20))
            assert sorted(each.id for each in results) == sorted(each.id for each in documents), cut
            assert all(each.ok for each in results), cut
        assert client.stats()["documents"] == 60 + len(DOCUMENTS)
        assert client.query("Text number 7.", top_k=1).hits[0].id == "n7"


def test_a_standing_query_survives_a_cut(serving: Callable[..., Server]) -> None:
    server = serving()
    with Wire(server.port) as wire, Client(wire.url, retry=QUICK) as client:
        wire.cuts = [700]
        with contextlib.closing(client.subscribe("zebra crossing", per_minute=100)) as news:
            seen: list[str] = []
            told = threading.Thread(target=lambda: seen.extend(next(news).hit.id for _ in range(5)))  # type: ignore[union-attr]  # matches only
            subscribed = wire.awaiting(b"event: subscribed")
            told.start()
            assert subscribed.wait(10)
            with Client(server.url) as sender:
                for number in range(5):
                    assert [each.ok for each in sender.ingest([Document(f"z{number}", f"zebra crossing {number}")])]
            told.join(15)
            assert not told.is_alive()
    assert seen == [f"z{number}" for number in range(5)]
