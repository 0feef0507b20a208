"""The counters as a stream: now, then again and again, for as long as somebody watches."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import orjson
import pytest
import requests

from niruhybrid.server import live

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def events(response: requests.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in response.iter_lines(chunk_size=None):
        field, _, value = line.decode().partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, orjson.loads(value)


def watch(url: str) -> requests.Response:
    return requests.get(f"{url}/stats/stream", stream=True, timeout=10)


def test_counters_come_at_once_and_then_every_second(serving: Callable[..., Any]) -> None:
    server = serving()
    with closing(watch(server.url)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        told = events(response)
        name, first = next(told)
        assert requests.post(f"{server.url}/query", json={"query": "lanes"}, timeout=30).ok
        _, second = next(told)
    assert name == "stats"
    assert set(server.stats()) | {"at"} == set(first)
    assert (first["documents"], first["processor"]["interactive"]["offered"]) == (3, 0)
    assert second["processor"]["interactive"]["offered"] == 1
    assert live.SECONDS * 0.9 < second["at"] - first["at"] < live.SECONDS * 3


def test_two_who_watch_are_told_the_same_and_one_goes_on_alone(serving: Callable[..., Any]) -> None:
    url = serving().url
    with closing(watch(url)) as one:
        told = events(one)
        with closing(watch(url)) as other:
            also = events(other)
            next(told), next(also)
            assert next(told)[1]["at"] == next(also)[1]["at"]
        assert next(told)[0] == "stats"


def test_one_too_many_is_refused(serving: Callable[..., Any]) -> None:
    url = serving(max_subscribers=1).url
    with closing(watch(url)) as response:
        told = events(response)
        next(told)
        refused = watch(url)
        next(told)
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert "max_subscribers" in refused.json()["detail"]


def test_the_stream_ends_with_the_server(serving: Callable[..., Any]) -> None:
    server = serving()
    with closing(watch(server.url)) as response:
        told = events(response)
        next(told)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        rest = list(told)
        stopping.join()
    assert (rest[-1][0], rest[-1][1]["code"]) == ("error", "shutting_down")
