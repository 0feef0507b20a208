"""The log of one answer and the shelf of ended ones, as pure decisions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.server.event_log import EventLog, Shelf, Window, position


def frame(number: int, size: int = 1) -> bytes:
    return b"%d" % number + b"." * size


@given(
    st.integers(1, 5),
    st.integers(1, 40),
    st.lists(st.tuples(st.sampled_from(["make", "fast", "slow", "late"]), st.integers(0, 12)), max_size=60),
)
def test_the_fastest_reader_loses_nothing_and_the_log_stays_within_its_window(
    events: int, size: int, steps: list[tuple[str, int]]
) -> None:
    log = EventLog(Window(events, size))
    made: list[bytes] = []
    cursors = {"fast": 0, "slow": 0}
    for step, amount in steps:
        if step == "make" and log.has_room():
            made.append(frame(log.last + 1, amount))
            log.append(made[-1])
        elif step in cursors:
            taken = log.read(cursors[step], max(1, amount))
            if taken is not None:
                assert taken == made[cursors[step] : cursors[step] + len(taken)]
                cursors[step] += len(taken)
                assert taken or cursors[step] == len(made)
            else:
                assert cursors[step] < max(cursors.values())
        elif step == "late":
            taken = log.read(amount, 10**6)
            assert taken is None or taken == made[amount:]
        furthest = max(cursors.values()) if step != "late" else len(made)
        cursors["fast"] = max(cursors["fast"], furthest) if step == "late" and amount <= len(made) else cursors["fast"]
        assert log.last - log.first + 1 <= events
        assert log.size <= size + max(map(len, made), default=0)
        assert log.last == len(made)


@given(st.integers(1, 6), st.integers(0, 20))
def test_nobody_who_reads_at_all_is_needed_for_the_first_window(window: int, more: int) -> None:
    log = EventLog(Window(window, 10**6))
    made = 0
    while log.has_room() and made < window + more:
        made += 1
        log.append(frame(made))
    assert made == window
    assert log.read(0, 1) == [frame(1)]
    assert log.has_room()
    log.append(frame(made + 1))
    assert log.read(0, 1) is None
    assert log.read(1, 1) == [frame(2)]


def test_what_was_read_is_kept_while_nothing_needs_its_room() -> None:
    log = EventLog(Window(10, 10**6))
    for number in range(1, 4):
        log.append(frame(number))
    assert log.read(0, 10**6) == log.read(0, 10**6) == [frame(1), frame(2), frame(3)]


def test_the_last_event_is_kept_even_when_there_is_no_room() -> None:
    log = EventLog(Window(1, 10**6))
    log.append(frame(1))
    assert not log.has_room()
    log.append(frame(2), ends=True)
    assert log.ended
    assert log.read(0, 10**6) == [frame(1), frame(2)]


def test_what_is_not_there_yet_was_never_there() -> None:
    log = EventLog(Window(4, 100))
    log.append(frame(1))
    assert log.read(1, 10) == []
    assert log.read(2, 10) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kX3:7", ("kX3", 7)),
        ("a:b:0", ("a:b", 0)),
        ("", None),
        ("kX3", None),
        (":3", None),
        ("kX3:", None),
        ("kX3:-1", None),
        ("kX3:+1", None),
        ("kX3:1.5", None),
        ("kX3:²", None),
        ("kX3:" + "9" * 13, None),
    ],
)
def test_an_event_id_is_a_stream_and_a_number(text: str, found: tuple[str, int] | None) -> None:
    assert position(text) == found


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 5)), max_size=30))
def test_a_shelf_keeps_no_more_and_no_longer_than_it_may(puts: list[tuple[int, float]]) -> None:
    shelf = Shelf(4.0, 3, 100)
    kept: dict[str, tuple[float, int]] = {}
    now = 0.0
    for number, (size, later) in enumerate(puts):
        now += later
        kept[str(number)] = (now, size)
        for name in shelf.put(str(number), size, now):
            del kept[name]
        assert len(kept) <= 3
        assert sum(size for _, size in kept.values()) <= 100
        assert all(now < put + 4.0 for put, _ in kept.values())
        assert shelf.due() == (min(put for put, _ in kept.values()) + 4.0 if kept else None)
    assert sorted(shelf.expire(now + 4.0)) == sorted(kept)


def test_a_shelf_gives_up_the_oldest_first() -> None:
    shelf = Shelf(60.0, 2, 100)
    assert shelf.put("a", 1, 0.0) == []
    assert shelf.put("b", 1, 1.0) == []
    assert shelf.put("c", 1, 2.0) == ["a"]
    assert shelf.put("d", 100, 3.0) == ["b", "c"]
    assert shelf.put("e", 101, 4.0) == ["d", "e"]
    assert shelf.due() is None
