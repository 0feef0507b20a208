"""Streams that are read again, by the same reader or another: over a real server."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
import requests

from niruhybrid.pipeline import Pipeline
from niruhybrid.types import Hit, Query, Token

pytestmark = pytest.mark.integration

URL = "/stream/query"


class Stepwise:
    """Gives one token for each step it is allowed; tells when it was closed."""

    def __init__(self, tokens: int = 6) -> None:
        self.tokens = tokens
        self.allowed = threading.Semaphore(0)
        self.closed = threading.Event()
        self.runs = 0

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        self.runs += 1
        try:
            for number in range(self.tokens):
                assert await asyncio.to_thread(self.allowed.acquire, timeout=10)
                yield Token(f"{number} ")
        finally:
            self.closed.set()
            self.allowed.release()  # a thread may still wait for it


def blocks(text: str) -> list[str]:
    return [block for block in text.split("\n\n") if block and not block.startswith(":")]


def event_id(block: str) -> str:
    return block.partition("\n")[0].removeprefix("id: ")


def name(block: str) -> str:
    return block.split("\n")[1].removeprefix("event: ")


def read(response: requests.Response | Iterator[str], events: int) -> list[str]:
    """Read so many events of a stream, and no more."""
    found: list[str] = []
    lines: list[str] = []
    for raw in lines_of(response) if isinstance(response, requests.Response) else response:
        if raw:
            lines.append(raw)
        elif lines:
            found.append("\n".join(lines))
            lines = []
            if len(found) == events:
                break
    return found


def lines_of(response: requests.Response) -> Iterator[str]:
    return response.iter_lines(chunk_size=1, decode_unicode=True)


@contextlib.contextmanager
def served_requests() -> Iterator[threading.Semaphore]:
    """Yield what is released with each request that the server is done with: it logs them."""
    served, logger = threading.Semaphore(0), logging.getLogger("niruhybrid.server.access")
    handler, level = logging.Handler(), logger.level
    handler.emit = lambda _record: served.release()  # type: ignore[assignment]  # any callable will do
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield served
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.fixture
def stepwise() -> Stepwise:
    return Stepwise()


@pytest.mark.parametrize("cut", range(1, 8))
@pytest.mark.parametrize("by", ["post", "get", "stream"])
def test_an_answer_goes_on_where_it_broke_off(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline], stepwise: Stepwise, cut: int, by: str
) -> None:
    server = serving(lambda: make_pipeline(stepwise))
    for _ in range(cut - 1):
        stepwise.allowed.release()
    with requests.post(server.url + URL, json={"query": "json"}, stream=True, timeout=10) as first:
        before = read(first, cut)
    for _ in range(8):
        stepwise.allowed.release()
    headers = {"Last-Event-ID": event_id(before[-1])}
    stream = event_id(before[-1]).partition(":")[0]
    if by == "post":
        after = requests.post(server.url + URL, json={"query": "something else"}, headers=headers, timeout=10)
    elif by == "get":
        after = requests.get(f"{server.url}{URL}?query=json", headers=headers, timeout=10)
    else:
        after = requests.get(f"{server.url}/streams/{stream}", headers=headers, timeout=10)
    whole = before + blocks(after.text)
    assert [event_id(block) for block in whole] == [f"{stream}:{number}" for number in range(1, 9)]
    assert [name(block) for block in whole] == ["sources", *["token"] * 6, "done"]
    assert stepwise.runs == 1


def test_who_has_it_all_gets_no_content_and_who_has_nothing_gets_it_all(serving: Callable[..., Any]) -> None:
    url = serving().url
    whole = requests.post(url + URL, json={"query": "json"}, timeout=10).text
    last = event_id(blocks(whole)[-1])
    stream = last.partition(":")[0]
    assert requests.get(f"{url}/streams/{stream}", headers={"Last-Event-ID": last}, timeout=10).status_code == 204
    assert requests.get(f"{url}/streams/{stream}", timeout=10).text == whole
    assert requests.get(f"{url}/streams/{stream}", headers={"Last-Event-ID": f"{stream}:0"}, timeout=10).text == whole


@pytest.mark.parametrize("last", ["nonsense", "unknown:3", "{}:99", "other:1"])
def test_what_is_not_kept_is_stale_and_then_nothing(serving: Callable[..., Any], last: str) -> None:
    url = serving().url
    stream = event_id(blocks(requests.post(url + URL, json={"query": "json"}, timeout=10).text)[0]).partition(":")[0]
    headers = {"Last-Event-ID": last.format(stream)}
    for answer in (
        requests.get(f"{url}{URL}?query=json", headers=headers, timeout=10),
        requests.post(url + URL, json={"query": "json"}, headers=headers, timeout=10),
        requests.get(f"{url}/streams/{stream}", headers=headers, timeout=10),
    ):
        [block] = blocks(answer.text)
        assert (answer.status_code, name(block)) == (200, "stale")
        assert answer.headers["content-type"].startswith("text/event-stream")
        again = {"Last-Event-ID": event_id(block)}  # as an EventSource does
        assert requests.get(f"{url}{URL}?query=json", headers=again, timeout=10).status_code == 204


def test_two_readers_get_the_same(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline], stepwise: Stepwise
) -> None:
    server = serving(lambda: make_pipeline(stepwise))
    with requests.post(server.url + URL, json={"query": "json"}, stream=True, timeout=10) as first:
        lines = lines_of(first)
        before = read(lines, 1)
        stream = event_id(before[0]).partition(":")[0]
        with requests.get(f"{server.url}/streams/{stream}", stream=True, timeout=10) as second:
            for _ in range(6):
                stepwise.allowed.release()
            assert blocks(second.text) == before + read(lines, 7)
    assert stepwise.runs == 1


@pytest.mark.parametrize("grace", [0.0, 0.05])
def test_an_answer_that_nobody_comes_back_for_is_stopped_and_forgotten(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline], stepwise: Stepwise, grace: float
) -> None:
    server = serving(lambda: make_pipeline(stepwise), grace=grace)
    with requests.post(server.url + URL, json={"query": "json"}, stream=True, timeout=10) as first:
        [sources] = read(first, 1)
    stepwise.allowed.release()
    assert stepwise.closed.wait(5)
    stats = server.stats()
    assert (stats["open_streams"], stats["kept_streams"], stats["open_answers"]) == (0, 0, 0)
    back = requests.get(server.url + URL + "?query=json", headers={"Last-Event-ID": event_id(sources)}, timeout=10)
    assert name(blocks(back.text)[0]) == "stale"


def test_an_answer_that_nobody_reads_waits_when_its_log_is_full(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline]
) -> None:
    endless = Stepwise(10_000)
    server = serving(lambda: make_pipeline(endless), log_events=16, grace=30.0)
    with served_requests() as served:
        with requests.post(server.url + URL, json={"query": "json"}, stream=True, timeout=10) as first:
            [sources] = read(first, 1)
        assert served.acquire(timeout=5)  # until then it takes events that nobody gets
    for _ in range(100):
        endless.allowed.release()
    stream, after = event_id(sources).partition(":")[0], {"Last-Event-ID": event_id(sources)}  # which may be given up
    with requests.get(f"{server.url}/streams/{stream}", headers=after, stream=True, timeout=10) as rest:
        ids = [event_id(block) for block in read(rest, 60)]
    assert ids == [f"{stream}:{number}" for number in range(2, 62)]


def test_an_answer_is_kept_for_its_time_only(serving: Callable[..., Any]) -> None:
    url = serving(log_seconds=0.0).url
    whole = blocks(requests.post(url + URL, json={"query": "json"}, timeout=10).text)
    back = requests.get(url + URL + "?query=json", headers={"Last-Event-ID": event_id(whole[0])}, timeout=10)
    assert name(blocks(back.text)[0]) == "stale"
