"""A load on real servers, and what is made of it."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from niruhybrid.config import ServerConfig
from niruhybrid.errors import InvalidSettingError, UnreachableError
from niruhybrid.load.connection import Address
from niruhybrid.load.drive import UNSENT, Kind, Load, Sample, drive_closed, drive_open
from niruhybrid.load.summary import recent, summary
from tests.client.wire import CUT, Reply, ScriptedServer, in_order, scripted_servers
from tests.server.conftest import Server, pipeline_of

pytestmark = pytest.mark.integration

DONE = b"event: token\ndata: {}\n\nid: s:2\nevent: done\ndata: {}\n\n"
Run = Callable[..., list[Sample]]


def requests_to(url: str) -> Iterator[bytes]:
    body = orjson.dumps({"query": "Which module is a priority queue?"})
    return itertools.repeat(Address(url).request("/stream/query", body, None))


def opened(url: str, arrivals: Iterator[float], most: int = 8) -> list[Sample]:
    async def main() -> list[Sample]:
        samples: list[Sample] = []
        load = Load(Address(url), most, samples.append)
        await drive_open(load, "query", requests_to(url), arrivals)
        load.close()
        return samples

    return asyncio.run(main())


def test_waiting_counts_from_when_a_request_was_due_not_from_when_it_could_be_sent() -> None:
    stalled = threading.Event()

    def arrivals() -> Iterator[float]:
        yield 0.0
        yield 0.05
        stalled.set()  # both are under way, or wait for the one connection

    with scripted_servers() as start:
        server = start(in_order(Reply((b"", stalled, DONE)), Reply((DONE,))))
        first, second = opened(server.url, arrivals(), most=1)
    assert (first.due, second.due) == (0.0, 0.05)
    assert second.sent >= first.last >= 0.05
    figures = summary([first, second], 1.0)["query"]
    assert figures["done_ms"]["max"] >= (first.last - first.due) * 1e3 - 0.001
    assert figures["late_ms"]["max"] == pytest.approx((second.sent - 0.05) * 1e3, abs=0.01)


def test_while_too_many_are_under_way_those_that_come_due_are_noted_and_not_sent() -> None:
    stalled = threading.Event()
    samples: list[Sample] = []

    def arrivals() -> Iterator[float]:
        yield from (0.0, 0.001, 0.002, 0.003, 0.004)
        stalled.set()
        while not any(sample.complete for sample in samples):
            yield max((sample.due for sample in samples), default=0.0) + 0.01
        yield max(sample.due for sample in samples) + 0.01  # there is room again

    async def main(url: str) -> None:
        load = Load(Address(url), 1, samples.append)
        await drive_open(load, "query", requests_to(url), arrivals(), most=3)
        load.close()

    with scripted_servers() as start:
        server = start(in_order(Reply((b"", stalled, DONE)), Reply((DONE,))))
        asyncio.run(main(server.url))
        sent = len(server.requests)
    assert sent in {4, 5}  # one may have come due just when there was room
    unsent = [sample for sample in samples if sample.status == UNSENT]
    assert [sample.due for sample in unsent[:2]] == [0.003, 0.004]
    assert max(samples, key=lambda sample: sample.due).complete
    found = summary(samples, 1.0)["query"]
    assert (found["sent"], found["unsent"], found["complete"]) == (sent, len(samples) - sent, sent)
    assert found["status"] == {"200": sent}
    assert len(unsent) == len(samples) - sent


def test_what_is_told_meanwhile_is_of_the_latest_queries() -> None:
    def took(kind: Kind, seconds: float, status: int = 200) -> Sample:
        return Sample(kind, 1.0, 1.0, 1.0, 1.0 + seconds, status, complete=status == 200)

    assert recent([]) == "0 ended"
    assert recent([took("ingest", 9.0), took("query", 9.0, 503)]) == "2 ended"
    slow, quick = [took("query", 2.0)] * 5, [took("query", 0.02)] * 9
    told = recent([*slow, *quick, took("query", 0.5, 429), took("query", 1.5)], last=11)
    assert told == "16 ended; the latest queries: p50 20.0 ms, p90 168.0 ms, p99 1,366.8 ms"


def test_an_answer_that_is_not_whole_is_counted_and_has_no_latency() -> None:
    cut = Reply((DONE[:20],), ends=False)
    replies = (Reply((DONE,)), Reply((DONE[:20],)), Reply((DONE,), 429), cut, CUT, Reply((DONE,)))
    with scripted_servers() as start:
        samples = opened(start(in_order(*replies)).url, iter([0.0] * 6), most=1)
    found = summary(samples, 2.0)["query"]
    assert (found["sent"], found["complete"], found["incomplete"]) == (6, 2, 1)
    assert found["status"] == {"200": 3, "429": 1, "broken": 2}
    assert found["complete_per_second"] == 1.0


def test_percentiles_are_those_of_the_samples() -> None:
    samples = [Sample("query", float(at), at, at + 0.001, at + at / 1000, 200, complete=True) for at in range(101)]
    found = summary(samples, 101.0)
    assert found["query"]["done_ms"] == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
    assert [second["sent"] for second in found["query"]["course"]] == [1] * 101
    assert found["ingest"]["sent"] == 0


@pytest.mark.slow
def test_each_client_of_a_closed_loop_asks_again_when_it_has_its_answer() -> None:
    server = Server(pipeline_of, ServerConfig(port=0))
    server.start(wait=True)

    async def main() -> list[Sample]:
        samples: list[Sample] = []
        load = Load(Address(server.url), 8, samples.append)
        await load.reach()
        await drive_closed(load, "query", requests_to(server.url), clients=3, seconds=0.3)
        load.close()
        return samples

    try:
        samples = asyncio.run(main())
        assert server.stats()["answers"]["done"] == len(samples)
    finally:
        server.stop()
    assert max(sample.last for sample in samples) > 0.25
    assert all(sample.complete for sample in samples)
    ends = sorted((sample.sent, 1) for sample in samples) + sorted((sample.last, -1) for sample in samples)
    assert max(itertools.accumulate(change for _, change in sorted(ends))) == 3


def test_nobody_there_is_said_at_once() -> None:
    with ScriptedServer(in_order(CUT)) as server:
        url = server.url

    async def main() -> None:
        await Load(Address(url), 1, lambda _: None).reach()

    with pytest.raises(UnreachableError, match="nothing listens"):
        asyncio.run(main())
    with pytest.raises(InvalidSettingError, match="give a URL"):
        Address("127.0.0.1:8000")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["load.html", "load.svg"])
def test_a_picture_needs_no_other_file(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra `eval`")
    from niruhybrid.load.plot import checked_plot, plot

    samples = [
        Sample("query", at / 10, at / 10, at / 10 + 0.01, at / 10 + 0.02, 200, complete=True) for at in range(20)
    ]
    plot(samples, checked_plot(tmp_path / name))
    drawn = (tmp_path / name).read_text(encoding="utf-8")
    assert "<svg" in drawn
    assert "<script" not in drawn
    with pytest.raises(InvalidSettingError, match=r"html or \.svg"):
        checked_plot(tmp_path / "load.gif")
