"""When a load's requests are due."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.errors import InvalidSettingError
from niruhybrid.load.arrivals import poisson, read_trace, replayed


@given(rate=st.floats(1, 1000), seed=st.integers(0, 1000))
def test_random_arrivals_ascend_within_their_time_and_are_repeatable(rate: float, seed: int) -> None:
    times = list(poisson(rate, 2.0, seed))
    assert times == sorted(times) == list(poisson(rate, 2.0, seed))
    assert all(0 < time < 2 for time in times)


def test_random_arrivals_come_at_their_rate() -> None:
    assert len(list(poisson(1000, 20, 1))) == pytest.approx(20_000, rel=0.03)


@pytest.mark.parametrize(
    "lines",
    [
        ["TIMESTAMP,tokens", "2023-11-16 18:17:03.5000000,9", "2023-11-16 18:17:05.2500000,9", "2023-11-16 18:17:04,1"],
        ["at", "10.0", "11.75", "10.5", ""],
    ],
)
def test_a_trace_says_when_in_seconds_or_dates(lines: list[str]) -> None:
    assert read_trace(lines) == pytest.approx([0.0, 0.5, 1.75])


@pytest.mark.parametrize(
    ("lines", "said"), [(["at"], "no arrivals"), ([], "no arrivals"), (["at", "1", "x"], "line 3")]
)
def test_what_is_no_trace_is_refused(lines: list[str], said: str) -> None:
    with pytest.raises(InvalidSettingError, match=said):
        read_trace(lines)


def test_a_trace_is_replayed_faster_and_cut() -> None:
    assert list(replayed([0.0, 2.0, 4.0, 6.0], 2.0, 2.0)) == [0.0, 1.0]
