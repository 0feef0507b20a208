"""Standing queries over a real server."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

pytestmark = pytest.mark.integration


class News:
    """A subscription's events, one by one."""

    def __init__(self, answer: requests.Response) -> None:
        self._lines: Iterator[str] = answer.iter_lines(chunk_size=1, decode_unicode=True)
        self.last_id = ""

    def next(self) -> tuple[str, dict[str, Any]]:
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line and fields:
                self.last_id = fields["id"]
                return fields["event"], json.loads(fields["data"])
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
        raise EOFError


def add(server: Any, *texts: str) -> None:
    answer = requests.post(f"{server.url}/stream/data", json=[{"id": text, "text": text} for text in texts], timeout=10)
    assert json.loads(answer.text.splitlines()[-1])["stored"] == len(texts)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_one_is_told_of_what_arrives_and_matches(serving: Callable[..., Any], method: str) -> None:
    server = serving()
    add(server, "zebras were here before")
    asked: dict[str, Any] = {"query": "zebras", "id": "z", "min_score": 0.3}
    params, body = (asked, None) if method == "GET" else (None, asked)
    url = f"{server.url}/stream/subscribe"
    with requests.request(method, url, params=params, json=body, stream=True, timeout=10) as answer:
        news = News(answer)
        name, data = news.next()
        assert (name, data["query_id"]) == ("subscribed", "z")
        add(server, "lions have manes", "zebras have stripes")
        name, match = news.next()
        assert (name, match["query_id"], match["hit"]["id"]) == ("match", "z", "zebras have stripes")
        assert match["watermark"] > data["watermark"]
        server.stop()
        name, last = news.next()
        assert (name, last["code"]) == ("error", "shutting_down")
        with pytest.raises(EOFError):
            news.next()


def test_a_subscription_goes_on_with_what_came_meanwhile(serving: Callable[..., Any]) -> None:
    server = serving()
    url = f"{server.url}/stream/subscribe"
    asked = {"query": "zebras", "min_score": 0.3}
    with requests.post(url, json=asked, stream=True, timeout=10) as answer:
        news = News(answer)
        news.next()
        last = news.last_id
    add(server, "zebras have stripes")
    with requests.post(url, json=asked, headers={"Last-Event-ID": last}, stream=True, timeout=10) as answer:
        news = News(answer)
        assert news.next()[1]["hit"]["id"] == "zebras have stripes"
        assert news.last_id.partition(":")[0] == last.partition(":")[0]


def test_a_subscription_that_is_not_kept_begins_anew(serving: Callable[..., Any]) -> None:
    headers = {"Last-Event-ID": "unknown:3"}
    asked: dict[str, Any] = {"query": "zebras", "per_minute": 5}
    with requests.get(
        f"{serving().url}/stream/subscribe", params=asked, headers=headers, stream=True, timeout=10
    ) as answer:
        assert News(answer).next()[0] == "subscribed"


@pytest.mark.parametrize("asked", [{"query": "x", "per_minute": 0}, {"query": " ", "min_score": 1}, {"min_score": 1}])
def test_what_can_not_be_waited_for_is_refused(serving: Callable[..., Any], asked: dict[str, Any]) -> None:
    answer = requests.post(f"{serving().url}/stream/subscribe", json=asked, timeout=10)
    assert answer.status_code == 422


def test_subscriptions_have_a_bound_of_their_own(serving: Callable[..., Any]) -> None:
    server = serving(max_subscribers=1)
    asked: dict[str, Any] = {"query": "zebras", "min_score": 0.3}
    with requests.post(f"{server.url}/stream/subscribe", json=asked, stream=True, timeout=10) as answer:
        News(answer).next()
        refused = requests.post(f"{server.url}/stream/subscribe", json=asked, timeout=10)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert requests.post(f"{server.url}/query", json={"query": "json"}, timeout=10).ok
