"""What `niru top` shows is the difference of two looks."""

import copy
import io
from typing import Any

import pytest
from rich.console import Console

from niruhybrid.cli.top import shown
from niruhybrid.streaming.stream_processor import StreamProcessor
from niruhybrid.testing import HashEncoder


@pytest.fixture
def look() -> dict[str, Any]:
    """Return the counters of a server that has done nothing."""
    with StreamProcessor(HashEncoder()) as processor:
        stats = processor.stats().to_dict()
    answers = {"done": 0, "error": 0, "cancelled": 0}
    return {"documents": 0, "open_streams": 0, "answers": answers, "processor": stats}


def lines(now: dict[str, Any], before: dict[str, Any], seconds: float) -> dict[str, list[str]]:
    written = io.StringIO()
    Console(file=written, width=200).print(shown(now, before, seconds))
    rows = [line.split() for line in written.getvalue().splitlines() if line.strip()]
    return {row[0]: row[1:] for row in rows}


def test_rates_are_of_the_time_between_and_the_rest_is_as_it_is(look: dict[str, Any]) -> None:
    look["processor"]["interactive"] |= {"delivered": 10}
    look["processor"]["interactive"]["batch"]["encode"] |= {"sum": 0.5}
    now = copy.deepcopy(look)
    now |= {"documents": 1234, "open_streams": 2, "answers": {"done": 30, "error": 1, "cancelled": 4}}
    lane = now["processor"]["interactive"]
    lane |= {"delivered": 40, "waiting": 7, "in_flight": 3, "oldest_age": 0.25}
    lane |= {"rejected": {"queue_full": 5}, "dropped": {"deadline": 6}, "failed": {"store_error": 2}}
    lane["batch"]["items"] = 24
    lane["batch"]["encode"] |= {"sum": 0.56}
    lane["batch"]["encode"]["counts"] = [4, *lane["batch"]["encode"]["counts"][1:-1], 2]
    told = lines(now, look, 2.0)
    assert told["queries"] == ["15.0", "7", "3", "0.25", "4.0", "10.0", "11", "2"]
    assert told["data"] == ["0.0", "0", "0", "0.00", "0", "0"]
    assert told["1,234"][:4] == ["documents", "2", "streams", "open"]
    assert [word for word in told["1,234"] if word.isdigit()] == ["2", "30", "1", "4"]
    assert "degraded:" not in told


def test_nothing_between_two_looks_shows_no_rate_and_trouble_is_said(look: dict[str, Any]) -> None:
    look["processor"]["interactive"] |= {"delivered": 30, "rejected": {"invalid": 1}}
    look["processor"]["degraded"] = True
    told = lines(look, look, 1.0)
    assert told["queries"] == ["0.0", "0", "0", "0.00", "1", "0"]
    assert "degraded:" in told
