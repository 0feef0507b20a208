"""Who is told of what: the cap, receivers that misbehave, subscriptions that come and go."""

import gc
import logging
import threading
import tracemalloc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.errors import InvalidVectorError
from niruhybrid.retrieval import standing
from niruhybrid.retrieval.quota import Quotas
from niruhybrid.retrieval.snapshot import Additions, Snapshot
from niruhybrid.retrieval.standing import News, StandingQueries
from niruhybrid.testing import ManualClock
from niruhybrid.types import Document, IndexEntry, Match, StandingQuery, Vector

SCORES = st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 1.0)), max_size=200)


def at(cosine: float) -> Vector:
    return np.array([cosine, np.sqrt(1.0 - cosine * cosine)], np.float32)


def waiting(name: str = "q", min_score: float | None = 0.5, cap: int | None = None) -> StandingQuery:
    return StandingQuery(name, at(1.0), (), min_score, cap)


def news(*cosines: float, watermark: int = 1) -> News:
    entries = [IndexEntry(Document(f"d{n}", f"{cosine}"), at(cosine), ()) for n, cosine in enumerate(cosines)]
    vectors = np.array([entry.vector for entry in entries])
    added = Additions(range(1, len(entries) + 1), vectors, [()] * len(entries), [{}] * len(entries))
    return News(entries, vectors, added.terms, watermark, Snapshot.empty(0).changed(watermark, {}, added).lexical)


class Listener:
    """Standing queries with a clock of ours, and what they were told."""

    def __init__(self) -> None:
        self.clock = ManualClock(1000.0)
        self.queries = StandingQueries(0.7, self.clock)
        self.told: list[Match] = []

    def hears(self, *cosines: float) -> list[str]:
        self.told.clear()
        self.queries.note(news(*cosines))
        self.queries.tell()
        return [match.hit.text for match in self.told]


@pytest.fixture
def listener() -> Listener:
    return Listener()


def test_one_that_raises_is_ended_and_logged_once(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[Match] = []

    def fails(match: Match) -> None:
        calls.append(match)
        raise RuntimeError("broken receiver")

    listener.queries.add(waiting("bad"), fails, 2)
    listener.queries.add(waiting("good"), listener.told.append, 2)
    assert listener.hears(0.9, 0.8) == ["0.9", "0.8"]
    assert listener.hears(0.9) == ["0.9"]
    assert len(calls) == 1
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "standing_query_ended id=bad reason=raised")


def test_one_that_is_slow_is_ended_and_logged_once(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[float] = []

    def dawdles(match: Match) -> None:
        calls.append(listener.clock.advance(1.0 if match.hit.text == "0.9" else 1.5))

    listener.queries.add(waiting("slow"), dawdles, 2)
    listener.queries.add(waiting("good"), listener.told.append, 2)
    assert listener.hears(0.9, 0.8, 0.7) == ["0.9", "0.8", "0.7"]
    assert len(calls) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "standing_query_ended id=slow reason=slow seconds=1.5"
    ]


def test_a_receiver_may_end_itself_and_write(listener: Listener) -> None:
    ends: list[Callable[[], None]] = []

    def ends_itself(match: Match) -> None:
        listener.told.append(match)
        if match.hit.text == "0.8":
            ends[0]()
        listener.queries.note(news(0.6))
        listener.queries.tell()

    ends.append(listener.queries.add(waiting(), ends_itself, 2))
    assert listener.hears(0.9, 0.8, 0.7) == ["0.9", "0.8"]
    assert listener.hears(0.9) == []


def test_subscribers_may_come_while_others_are_told(listener: Listener) -> None:
    late: list[str] = []

    def brings(match: Match) -> None:
        listener.queries.add(waiting("late"), lambda heard: late.append(heard.hit.text), 2)
        listener.told.append(match)

    listener.queries.add(waiting(), brings, 2)
    assert (listener.hears(0.9), late) == (["0.9"], [])
    assert (listener.hears(0.8), late) == (["0.8"], ["0.8"])


def test_writes_are_told_in_their_order_whoever_tells(listener: Listener) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def holds(match: Match) -> None:
        listener.told.append(match)
        entered.set()
        assert go_on.wait(10)

    listener.queries.add(waiting(), holds, 2)
    listener.queries.note(news(0.9, watermark=1))
    first = threading.Thread(target=listener.queries.tell)
    first.start()
    assert entered.wait(10)
    listener.queries.note(news(0.8, watermark=2))
    second = threading.Thread(target=listener.queries.tell)
    second.start()
    go_on.set()
    for thread in (first, second):
        thread.join()
    assert [match.watermark for match in listener.told] == [1, 2]


def test_slots_of_those_who_left_are_closed_up(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "_FEWEST_OVER", 2)
    least = [0.3, 0.5, 0.7, 0.9]
    names = [f"q{n}" for n in range(40)]
    ends = [
        listener.queries.add(waiting(name, least[n % 4], 100 if n % 3 else None), listener.told.append, 2)
        for n, name in enumerate(names)
    ]
    for end in ends[:30]:
        end()
        end()
    for _ in range(3):
        assert listener.hears(0.6) == ["0.6"] * len([n for n in range(30, 40) if least[n % 4] < 0.6])
        assert {match.query_id for match in listener.told} == {names[n] for n in range(30, 40) if least[n % 4] < 0.6}
        listener.clock.advance(60)


def test_queries_agree_on_a_dimension(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    listener.queries.add(StandingQuery("q", np.ones(3, np.float32), (), 0.1), listener.told.append, None)
    with pytest.raises(InvalidVectorError, match=r"\(2,\).* 3"):
        listener.queries.add(waiting(), listener.told.append, None)
    listener.queries.add(StandingQuery("w", None, ["x"], 0.1), listener.told.append, None)
    assert listener.hears(0.9) == []
    assert [record.getMessage() for record in caplog.records] == ["standing_query_ended id=q reason=dimension store=2"]


def test_a_cap_takes_the_best_of_what_comes_at_once(listener: Listener) -> None:
    listener.queries.add(waiting(cap=1), listener.told.append, 2)
    assert listener.hears(0.6, 0.9, 0.8) == ["0.9"]


def test_a_cap_without_a_score_begins_in_the_middle(listener: Listener) -> None:
    listener.queries.add(waiting(min_score=None, cap=10), listener.told.append, 2)
    assert listener.hears(0.4) == []
    listener.clock.advance(15)
    assert listener.hears(0.4) == ["0.4"]
    listener.clock.advance(600)
    assert listener.hears(-0.1, 0.1) == ["0.1"]


@given(cap=st.integers(1, 5), scores=SCORES)
def test_no_minute_has_more_than_the_cap(cap: int, scores: list[tuple[float, float]]) -> None:
    quotas, now, passed = Quotas(), 0.0, list[float]()
    quotas.add(0.2, cap, now)
    for seconds, score in scores:
        now += seconds
        if quotas.admit(0, score, now):
            assert score >= 0.2
            passed.append(now)
    assert all(sum(first <= one < first + 60.0 for one in passed) <= cap for first in passed)


def test_what_is_passed_on_is_among_the_best() -> None:
    quotas, rng = Quotas(), np.random.default_rng(0)
    quotas.add(0.0, 10, 0.0)
    scores = rng.random(36_000)
    passed = [score for n, score in enumerate(scores.tolist()) if quotas.admit(0, score, n / 10)]  # 600 a minute
    assert 540 <= len(passed) <= 600  # in an hour
    assert np.mean(passed) > 0.97
    assert np.mean(np.array(passed[10:]) > 0.9) > 0.99


def test_a_quiet_minute_lets_anything_pass_again() -> None:
    quotas = Quotas()
    quotas.add(0.1, 3, 0.0)
    assert [quotas.admit(0, 0.9, 0.0) for _ in range(4)] == [True, True, True, False]
    assert not quotas.admit(0, 0.2, 30.0)
    assert quotas.admit(0, 0.2, 120.0)
    assert quotas.least(400.0).tolist() == [0.1]


def test_those_who_left_leave_nothing_behind(listener: Listener) -> None:
    listener.queries.add(waiting(), listener.told.append, 2)

    def come_and_go(names: range) -> int:
        for n in names:
            terms = [f"{n} {word}" for word in range(20)]
            listener.queries.add(StandingQuery(f"q{n}", at(1.0), terms, 0.5), listener.told.append, 2)()
        listener.hears(0.9)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first = come_and_go(range(100))
        assert come_and_go(range(100, 1100)) < first + 200_000
    finally:
        tracemalloc.stop()


def test_when_all_have_left_their_functions_are_let_go() -> None:
    queries = StandingQueries(0.7)

    def hears(match: Match) -> None:
        raise AssertionError(match)

    known = weakref.ref(hears)
    end = queries.add(waiting(), hears, 2)
    end()
    del end, hears
    gc.collect()
    assert known() is None
