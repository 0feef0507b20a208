"""What comes next after a cut, a refusal, a lost stream: the client's decisions, without a socket."""

import random
from collections.abc import Callable, Iterator

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.client.backoff import PATIENT, Backoff
from niruhybrid.client.calls import asking
from niruhybrid.client.events import AnswerEvent, Done, Sources, answer_event
from niruhybrid.client.resume import ResumedStream
from niruhybrid.config import RetryPolicy
from niruhybrid.errors import (
    DeadlineExceededError,
    GenerationError,
    InvalidTextError,
    OverloadedError,
    QueueFullError,
    StreamLostError,
    UnreachableError,
)
from niruhybrid.types import Token

Answer = ResumedStream[AnswerEvent]


def answer(*, deadline: float | None = None, policy: RetryPolicy = PATIENT) -> Answer:
    backoff = Backoff(policy, deadline, jitter=lambda: 0.0)
    return ResumedStream(asking("/stream/query", "q", {}), answer_event, frozenset({"done", "error"}), backoff)


def frame(number: int, event: str, data: object, stream: str = "s") -> bytes:
    return b"id: %b:%d\nevent: %b\ndata: %b\n\n" % (stream.encode(), number, event.encode(), orjson.dumps(data))


TEXTS = ["Ni", "ru \u00e9", "", "\n\n", "id: s:9"]
FRAMES = [
    frame(1, "sources", {"query_id": "q1", "hits": [], "watermark": 3}),
    *[frame(number, "token", {"text": text}) for number, text in enumerate(TEXTS, 2)],
    frame(7, "done", {"query_id": "q1", "finish_reason": "stop", "timings": {}}),
]
CLEAN = [Sources("q1", (), 3), *[Token(text) for text in TEXTS], Done("q1", "stop", {})]


def test_one_connection_brings_all() -> None:
    stream = answer()
    assert "Last-Event-ID" not in stream.call().headers
    assert list(stream.received(b": keep-alive\n\n".join(FRAMES), 0.0)) == CLEAN
    assert stream.finished
    assert stream.partial == "".join(TEXTS)
    assert stream.lost(None, 0.0) is None


CUTS = st.lists(st.tuples(st.integers(0, 400), st.booleans(), st.integers(0, 3)), max_size=12)


@given(CUTS)
def test_however_the_connections_are_cut_the_events_are_those_of_a_clean_run(cuts: list[tuple[int, bool, int]]) -> None:
    """A server that keeps its events, behind a wire that is cut, refuses, and repeats what had come."""
    stream, got, policy = answer(policy=RetryPolicy(100, 0.1, 1.0, PATIENT.on)), list[AnswerEvent](), list(cuts)
    while not stream.finished:
        headers = stream.call().headers
        sent = int(headers.get("Last-Event-ID", "s:0").removeprefix("s:"))
        assert sent == len(got)
        allowed, refused, repeated = policy.pop(0) if policy else (10_000, False, 0)
        if refused:
            assert stream.refused(503, {"Retry-After": "2", "retry-after": "2"}, b"busy", 0.0) >= 2.0
            continue
        body = b"".join(FRAMES[max(0, sent - repeated) :])
        got += stream.received(body[:allowed], 0.0)
        assert stream.partial == "".join(event.text for event in got if isinstance(event, Token))
        if not stream.finished:
            assert stream.lost(None if allowed % 2 else ConnectionResetError(), 0.0) is not None
    assert got == CLEAN


def test_half_an_event_is_forgotten_with_its_connection() -> None:
    stream = answer()
    stream.call()
    assert len(list(stream.received(FRAMES[0] + FRAMES[1][:-1], 0.0))) == 1
    assert stream.lost(None, 0.0) == pytest.approx(0.1)
    assert stream.call().headers["Last-Event-ID"] == "s:1"
    assert list(stream.received(FRAMES[1], 0.0)) == [Token("Ni")]


@pytest.mark.parametrize(
    ("then", "why"),
    [
        (frame(1, "stale", {"code": "stale", "detail": "d"}, "stale"), "has not kept"),
        (frame(1, "sources", {"query_id": "q1", "hits": [], "watermark": 3}, "other"), "another stream"),
        (FRAMES[4], "event 3 is missing"),
        (b"data: {}\n\n", "no id"),
        (frame(3, "token", {"txt": "x"}), "can't be read"),
        (b"id: s:3\nevent: token\ndata: [\n\n", "can't be read"),
    ],
    ids=["stale", "another stream", "gap", "no id", "no text", "not json"],
)
def test_what_can_not_go_on_is_lost_with_what_came_of_it(then: bytes, why: str) -> None:
    stream = answer()
    list(stream.received(FRAMES[0] + FRAMES[1], 0.0))
    with pytest.raises(StreamLostError, match=why) as caught:
        list(stream.received(then, 0.0))
    assert (caught.value.partial, caught.value.last_event_id) == ("Ni", "s:2")


def test_events_before_a_failure_are_not_lost_with_it() -> None:
    stream = answer()
    broke = frame(3, "error", {"code": "generation_failed", "detail": "it broke", "status": 502})
    events = stream.received(FRAMES[0] + FRAMES[1] + broke, 0.0)
    got = [next(events), next(events)]
    with pytest.raises(GenerationError, match="it broke"):
        next(events)
    assert got == CLEAN[:2]
    assert stream.finished


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (422, b'{"code": "invalid_text", "detail": "query is empty: give some text"}', InvalidTextError),
        (404, b"<html>", ValueError),
        (504, b"", DeadlineExceededError),
    ],
)
def test_a_refusal_that_will_not_pass_is_raised_as_the_librarys_own(
    status: int, body: bytes, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        answer().refused(status, {}, body, 0.0)


def test_a_stream_that_may_not_go_on_is_lost() -> None:
    stream = answer()
    list(stream.received(FRAMES[0] + FRAMES[1], 0.0))
    with pytest.raises(StreamLostError, match="taken up") as caught:
        stream.refused(401, {}, b'{"code": "unauthorized", "detail": "a key is needed"}', 0.0)
    assert caught.value.partial == "Ni"


def waits_of(fail: Callable[[], float | None]) -> Iterator[float | None]:
    """Yield the waits between failures until one of them is final."""
    for _ in range(20):
        try:
            yield fail()
        except (OverloadedError, UnreachableError, StreamLostError):
            return


def test_waits_double_up_to_their_bound_and_the_tries_are_counted() -> None:
    stream = answer(policy=RetryPolicy(6, 0.1, 0.5, PATIENT.on))
    assert list(waits_of(lambda: stream.lost(None, 0.0))) == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])


def test_progress_begins_the_count_anew() -> None:
    stream = answer(policy=RetryPolicy(3, 0.1, 0.5, PATIENT.on))
    for piece in FRAMES[:-1]:
        assert stream.lost(None, 0.0) == pytest.approx(0.1)
        assert stream.lost(None, 0.0) == pytest.approx(0.2)
        assert list(stream.received(piece, 0.0))
    assert len(list(waits_of(lambda: stream.lost(None, 0.0)))) == 2


def test_a_server_that_says_when_is_not_asked_before() -> None:
    problem = orjson.dumps({"code": "queue_full", "detail": "d", "retry_after": 7})
    assert answer().refused(429, {}, problem, 0.0) == 7.0
    with pytest.raises(QueueFullError) as caught:
        answer(deadline=5.0).refused(429, {}, problem, 0.0)
    assert caught.value.retry_after == 7.0


def test_after_the_deadline_nothing_is_waited_for() -> None:
    stream = answer(deadline=10.0)
    assert list(stream.received(FRAMES[0], 9.0)) == CLEAN[:1]
    with pytest.raises(StreamLostError, match="taken up"):
        stream.lost(None, 9.95)
    with pytest.raises(DeadlineExceededError, match="timeout"):
        stream.left(10.0)
    with pytest.raises(DeadlineExceededError, match="timeout"):
        list(stream.received(b": keep-alive\n\n", 10.0))


def test_jitter_adds_to_the_wait() -> None:
    backoff = Backoff(PATIENT, None, jitter=random.Random(1).random)
    assert 0.1 <= backoff.failed(UnreachableError("gone"), 0.0) <= 0.2
