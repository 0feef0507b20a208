"""A pipeline on Ray Serve, on two nodes: what holds of one process holds over the hop, and when processes die."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from tests.cluster.reading import Event, events
from tests.cluster.replicas import HELD, Gate, Led
from tests.cluster.served import Served

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def one(served: Served) -> Served:
    """One replica behind one HTTP server, over twenty documents."""
    served.run(replicas=1)
    body = "\n".join(json.dumps({"id": f"d{n}", "text": f"Document {n} is about tea."}) for n in range(20))
    answer = requests.post(f"{served.url}/stream/data", data=body, headers=LINES, timeout=30)
    assert json.loads(answer.text.splitlines()[-1])["stored"] == 20
    return served


@pytest.fixture(scope="module")
def two(one: Served) -> Served:
    """Two replicas behind two HTTP servers, over the same documents."""
    one.run(replicas=2, ingress=2)
    return one


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def ask(served: Served, gate: Gate | None = None, *, tokens: int = 3, **more: Any) -> requests.Response:
    """Ask for a streamed answer; one that is led asks the gate before each token."""
    led = {} if gate is None else {"gate": list(gate.address)}
    body = {"query": "tea", "metadata": {"tokens": tokens, **led}, **more}
    return requests.post(f"{served.url}/stream/query", json=body, stream=True, timeout=120)


def last_event(served: Served, **more: Any) -> str:
    """Ask, and return the name of the last event."""
    with ask(served, **more) as response:
        return list(events(response))[-1].name


def hold(served: Served, gate: Gate, documents: int) -> requests.Response:
    """Send documents whose encoding the gate holds, four at a time."""
    texts = (json.dumps({"text": f"{HELD}{gate.address[0]} {gate.address[1]} number {n}"}) for n in range(documents))
    return requests.post(f"{served.url}/stream/data", data="\n".join(texts), headers=LINES, timeout=120)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that nobody tells of."""
    for _ in range(600):
        if holds():
            return
        threading.Event().wait(0.1)
    raise AssertionError(f"it does not come to hold: {holds.__qualname__}")


def hold_both(
    served: Served, gate: Gate, pool: ThreadPoolExecutor
) -> tuple[list[Future[requests.Response]], list[Led]]:
    """Hold documents at each of two replicas: which one gets a request is chance, so send until both are held.

    Returns:
        The requests, the first of which is at the first replica. What each replica holds.
    """
    sent = [pool.submit(hold, served, gate, 1)]
    made = [gate.begun()]
    for _ in range(8):  # fewer than a replica keeps waiting
        sent.append(pool.submit(hold, served, gate, 1))
        until(lambda: gate.asked() or taken(served) == len(sent))
        if gate.asked():
            made.append(gate.begun())
            assert made[0].pid != made[1].pid
            return sent, made
    raise AssertionError(f"all of {len(sent)} requests went to one replica")


def taken(served: Served) -> int:
    """Return how many documents wait or are being encoded, at all replicas together."""
    bulk = requests.get(f"{served.url}/stats", timeout=30).json()["processor"]["bulk"]
    number: int = bulk["waiting"] + bulk["in_flight"]
    return number


def waiting(served: Served) -> int:
    """Return how many queries wait, at all replicas together."""
    counters = requests.get(f"{served.url}/stats", timeout=30).json()
    number: int = counters["processor"]["interactive"]["waiting"]
    return number


def going(served: Served) -> bool:
    """Whether a replica is about to go."""
    return any("STOPPING" in states for states in served.states())


def test_the_application_can_be_imported_by_name() -> None:
    serve: Any = pytest.importorskip("ray.serve", reason="the extra `ray` is not installed")
    from niruhybrid.cluster import ray

    assert isinstance(ray.app, serve.Application)


def test_an_answer_comes_event_by_event(one: Served, gate: Gate) -> None:
    with ask(one, gate, tokens=2) as response:
        stream = events(response)
        assert len(next(stream).data["hits"]) == 5
        led = gate.begun()
        for number in range(2):
            led.step()
            assert next(stream).data["text"] == f"{number} "
        assert [event.name for event in stream] == ["done"]


def test_a_query_behind_bulk_is_answered_after_the_batch_under_way(
    one: Served, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    sent = pool.submit(hold, one, gate, 32)
    first = gate.begun()
    answer = pool.submit(last_event, one, query="a new question")
    until(lambda: waiting(one) == 1)
    first.step()
    assert answer.result(60) == "done"
    assert not sent.done()
    gate.open()
    assert json.loads(sent.result(60).text.splitlines()[-1])["stored"] == 32


def test_a_refusal_keeps_its_status_and_says_when_to_try_again(
    one: Served, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    sent = pool.submit(hold, one, gate, 4)
    held = gate.begun()
    waits = [pool.submit(last_event, one, query=f"question {n}") for n in range(8)]
    until(lambda: waiting(one) == 8)
    with ask(one, query="one too many") as refused:
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
        assert "\n" not in refused.json()["detail"]  # the scheduler's own words, without Ray's
    held.step()
    gate.open()
    assert sent.result(60).status_code == 200
    assert {each.result(60) for each in waits} == {"done"}
    ahead = requests.post(f"{one.url}/query", json={"query": "tea", "min_watermark": 10**9}, timeout=30)
    assert (ahead.status_code, ahead.json()["code"]) == (409, "unknown_watermark")


def test_an_answer_whose_client_has_left_is_stopped_where_it_is_made(one: Served, gate: Gate) -> None:
    with ask(one, gate) as response:
        assert next(events(response)).name == "sources"
        led = gate.begun()
    assert led.stopped.wait(60)
    until(lambda: requests.get(f"{one.url}/stats", timeout=30).json()["open_answers"] == 0)


def test_documents_are_read_and_removed_and_standing_queries_told(one: Served) -> None:
    body = {"query": "coffee beans", "min_score": 0.1}
    with requests.post(f"{one.url}/stream/subscribe", json=body, stream=True, timeout=30) as response:
        told = events(response)
        assert next(told).name == "subscribed"
        sent = requests.post(f"{one.url}/stream/data", json={"id": "new", "text": "coffee beans"}, timeout=30)
        assert json.loads(sent.text.splitlines()[0])["id"] == "new"
        assert next(told).data["hit"]["id"] == "new"
    assert requests.get(f"{one.url}/data/new", timeout=30).json()["text"] == "coffee beans"
    assert requests.delete(f"{one.url}/data/new", timeout=30).status_code == 200
    assert requests.get(f"{one.url}/data/new", timeout=30).status_code == 404
    vectors = requests.post(f"{one.url}/v1/embeddings", json={"input": ["a", "b"], "model": "m"}, timeout=30).json()
    assert [len(each["embedding"]) for each in vectors["data"]] == [64, 64]


def test_an_answer_whose_connection_broke_goes_on_wherever_its_reader_comes_back(two: Served, gate: Gate) -> None:
    for _ in range(4):  # each time at one of two servers
        with ask(two, gate, tokens=2) as response:
            first = next(events(response))
        led, name = gate.begun(), first.id.partition(":")[0]
        headers = {"Last-Event-ID": first.id}
        with requests.get(f"{two.url}/streams/{name}", headers=headers, stream=True, timeout=30) as response:
            led.step(2)
            rest = list(events(response))
        assert [event.id for event in rest] == [f"{name}:{number}" for number in (2, 3, 4)]
        assert [event.name for event in rest] == ["token", "token", "done"]


def test_a_query_whose_replica_dies_before_its_answer_begins_is_answered_by_another(
    two: Served, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    sent, made = hold_both(two, gate, pool)
    answers = [pool.submit(last_event, two, query=f"while held {n}") for n in range(6)]
    until(lambda: waiting(two) == 6)
    os.kill(made[0].pid, signal.SIGKILL)
    made[1].step()
    gate.open()
    assert [answer.result(60) for answer in answers] == ["done"] * 6
    ends = [each.result(60) for each in sent]
    lost = [end for end in ends if end.status_code != 200]
    assert ends[0] in lost
    assert {(end.status_code, end.json()["code"]) for end in lost} == {(503, "replica_lost")}
    kept = [json.loads(end.text.splitlines()[-1])["stored"] for end in ends if end not in lost]
    assert kept
    assert set(kept) == {1}


def test_where_a_replica_dies_its_answers_end_with_an_error_and_all_others_go_on(
    two: Served, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    with ExitStack() as stack:
        streams = [events(stack.enter_context(ask(two, gate, tokens=2))) for _ in range(6)]
        assert {next(stream).name for stream in streams} == {"sources"}
        made = [gate.begun() for _ in streams]
        for led in made:
            led.step()
        assert {next(stream).name for stream in streams} == {"token"}
        os.kill(made[0].pid, signal.SIGKILL)
        late = [pool.submit(last_event, two, query=f"late {n}") for n in range(6)]
        for led in made:
            led.step()
        ends = [list(stream)[-1] for stream in streams]
    lost = [end.data for end in ends if end.name == "error"]
    assert len(lost) == sum(led.pid == made[0].pid for led in made)
    assert {(each["code"], each["partial"]) for each in lost} == {("replica_lost", True)}
    assert {end.name for end in ends} <= {"done", "error"}
    assert [each.result(60) for each in late] == ["done"] * 6


def test_an_answer_goes_on_at_another_server_and_where_its_own_has_died_it_is_stale(two: Served, gate: Gate) -> None:
    until(lambda: len(two.pids("ingress")) == 2)
    with ExitStack() as stack:
        streams = [events(stack.enter_context(ask(two, gate, tokens=2))) for _ in range(6)]
        before = [next(stream) for stream in streams]
        made = [gate.begun() for _ in streams]
        os.kill(min(two.pids("ingress")), signal.SIGKILL)
        for led in made:
            led.step(2)
        ends = [_end(two, stream, first) for stream, first in zip(streams, before, strict=True)]
    assert {name for name, _ in ends} <= {"done", "stale"}
    for name, ids in ends:
        assert ids == list(range(2, 5 if name == "done" else 2 + len(ids)))


def _end(served: Served, stream: Iterator[Event], last: Event) -> tuple[str, list[int]]:
    """Read a stream to its true end, going on at whatever server is there when a connection breaks."""
    ids: list[int] = []
    name = last.id.partition(":")[0]
    with ExitStack() as stack:
        while True:
            try:
                for event in stream:
                    if event.name == "stale":
                        return "stale", ids
                    last = event
                    ids.append(int(event.id.rpartition(":")[2]))
            except requests.RequestException:
                pass
            if last.name == "done":
                return "done", ids
            headers = {"Last-Event-ID": last.id}
            again = requests.get(f"{served.url}/streams/{name}", headers=headers, stream=True, timeout=120)
            stream = events(stack.enter_context(again)) if again.status_code == 200 else iter(())


def test_an_update_lets_open_answers_come_to_their_end(two: Served, gate: Gate, pool: ThreadPoolExecutor) -> None:
    until(lambda: len(two.pids("ingress")) == len(two.pids("pipeline")) == 2)
    with ExitStack() as stack:
        streams = [events(stack.enter_context(ask(two, gate, tokens=2))) for _ in range(6)]
        assert {next(stream).name for stream in streams} == {"sources"}
        made = [gate.begun() for _ in streams]
        smaller = pool.submit(two.run, replicas=1, ingress=1)
        until(lambda: going(two))
        for led in made:
            led.step(2)
        assert [[event.name for event in stream] for stream in streams] == [["token", "token", "done"]] * 6
    smaller.result(60)
    until(lambda: len(two.pids("ingress")) == len(two.pids("pipeline")) == 1)
