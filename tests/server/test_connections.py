"""Bounds on connections: which are let in, which are closed, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.config import ServerConfig
from niruhybrid.errors import InvalidSettingError
from niruhybrid.server.connections import ConnectionLimits, ConnectionTable, limits, peer_of


def table_of(total: int = 4, per_peer: int = 2, serving: int = 3, head_timeout: float = 10.0) -> ConnectionTable[str]:
    return ConnectionTable(ConnectionLimits(total, per_peer, serving, head_timeout))


def test_no_more_connections_are_let_in_than_there_is_room_for() -> None:
    table = table_of()
    assert [table.admit(None) for _ in range(5)] == [True] * 4 + [False]
    table.release(None)
    assert table.admit("a")


def test_one_address_has_a_bound_of_its_own_and_this_machine_has_none() -> None:
    table = table_of()
    assert [table.admit("a") for _ in range(3)] == [True, True, False]
    assert table.admit("b")
    table.release("a")
    assert table.admit("a")
    assert [table.admit(None), table.admit(None)] == [True, False]
    assert table.open == 4


def test_the_connection_that_has_waited_longest_comes_first() -> None:
    table = table_of()
    for second, name in enumerate("abc"):
        table.wait(name, second)
    table.wait("a", 3)  # it waits anew
    assert table.longest_waiting() == "b"
    table.stop_waiting("b")
    assert table.longest_waiting() == "c"
    assert table.due() == 12
    assert table.take_overdue(11.9, 9) == []
    assert table.take_overdue(12.0, 9) == ["c"]
    assert table.take_overdue(20.0, 9) == ["a"]
    assert table.due() is None
    assert table.longest_waiting() is None


def test_the_last_connections_serve_health_checks_only() -> None:
    table = table_of()
    for _ in range(4):
        table.admit(None)
    table.wait("idle", 0)
    assert not table.is_busy
    table.stop_waiting("idle")
    assert table.is_busy


@given(st.lists(st.tuples(st.sampled_from(["wait", "stop", "tick"]), st.integers(0, 9), st.integers(0, 4))))
def test_each_connection_is_overdue_exactly_when_its_time_is_up(steps: list[tuple[str, int, int]]) -> None:
    table: ConnectionTable[int] = ConnectionTable(ConnectionLimits(100, 100, 100, 3.0))
    now, since = 0.0, dict[int, float]()
    for what, name, seconds in steps:
        now += seconds
        if what == "wait":
            table.wait(name, now)
            since.pop(name, None)
            since[name] = now
        elif what == "stop":
            table.stop_waiting(name)
            since.pop(name, None)
        else:
            overdue = [each for each, begun in since.items() if begun + 3.0 <= now][:seconds]
            assert table.take_overdue(now, seconds) == overdue
            since = {each: begun for each, begun in since.items() if each not in overdue}
        assert table.due() == (min(since.values()) + 3.0 if since else None)


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("127.0.0.1", None),
        ("127.9.9.9", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "20010db800010002"),
        ("2001:db8:1:2::ffff%eth0", "20010db800010002"),
        ("", None),
    ],
)
def test_an_address_is_what_a_peer_has_one_of(host: str, peer: str | None) -> None:
    assert peer_of(host) == peer


@pytest.mark.parametrize(
    ("open_files", "total"), [(256, 192), (1024, 768), (100, 36), (40, 16), (1 << 20, 20_000), (None, 20_000)]
)
def test_connections_leave_files_for_the_store(open_files: int | None, total: int) -> None:
    found = limits(ServerConfig(), open_files)
    assert (found.total, found.per_peer) == (total, total // 2)
    assert 0 < found.serving < total


def test_the_settings_win_over_what_fits() -> None:
    found = limits(ServerConfig(max_connections=5, max_connections_per_peer=9, head_timeout=1.5), 1024)
    assert found == ConnectionLimits(5, 9, 5, 1.5)
    for wrong in ({"max_connections": 0}, {"max_connections_per_peer": "many"}, {"head_timeout": 0}):
        with pytest.raises(InvalidSettingError, match=next(iter(wrong))):
            ServerConfig(**wrong)
