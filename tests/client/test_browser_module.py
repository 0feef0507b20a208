"""The browser's module, run by Node: the same wire, the same promises."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import orjson
import pytest

from tests.client.wire import CUT, Handler, Received, Reply, ScriptedServer, frame, in_order, scripted_servers

NODE = shutil.which("node")
MODULE = files("niruhybrid.server") / "static" / "niru-client.js"

pytestmark = [pytest.mark.integration, pytest.mark.skipif(NODE is None, reason="needs node")]

SSE = {"Content-Type": "text/event-stream"}
PROGRAM = """
import { ask } from "MODULE";
const events = [];
try {
  for await (const { event, data } of ask("URL", { query: "Why?" }, { wait: 0.001, maxWait: 0.002, OPTIONS })) {
    events.push([event, data]);
    if (event === "leave") break;
  }
  console.log(JSON.stringify({ events }));
} catch ({ name, code, message, partial, lastEventId, retryAfter }) {
  console.log(JSON.stringify({ events, name, code, message, partial, lastEventId, retryAfter }));
}
"""


def run(url: str, options: str = "") -> dict[str, Any]:
    program = PROGRAM.replace("MODULE", f"file://{MODULE}").replace("URL", url).replace("OPTIONS", options)
    done = subprocess.run(
        [str(NODE), "--input-type=module", "-e", program], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stderr == ""
    result: dict[str, Any] = orjson.loads(done.stdout)
    return result


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], ScriptedServer]]:
    with scripted_servers() as start:
        yield start


Serve = Callable[[Handler], ScriptedServer]


EVENTS = [
    ("sources", {"query_id": "q1", "hits": [], "watermark": 3}),
    ("token", {"text": "Niru "}),
    ("token", {"text": "\u00e9\n\nid: s:9\u2028."}),
    ("done", {"query_id": "q1", "finish_reason": "stop", "timings": {}}),
]
FRAMES = [frame(number, *event) for number, event in enumerate(EVENTS, 1)]
CLEAN = {"events": [list(event) for event in EVENTS]}


def test_an_answer_comes_as_events(serve: Serve) -> None:
    server = serve(in_order(Reply((b": keep-alive\n\n" + b"".join(FRAMES),), headers=SSE)))
    assert run(server.url, 'apiKey: "k-1"') == CLEAN
    [request] = server.requests
    assert (request.method, orjson.loads(request.body)["query"]) == ("POST", "Why?")
    assert request.headers["authorization"] == "Bearer k-1"


@pytest.mark.slow
@pytest.mark.parametrize("ends", [True, False], ids=["closed", "cut"])
def test_cut_again_and_again_the_events_are_those_of_a_clean_run(serve: Serve, ends: bool) -> None:
    def grudging(request: Received) -> Reply:
        """Let through one event and a part of the next, another part each time; refuse in between."""
        if len(server.requests) % 3 == 2:
            return Reply((b'{"code": "starting", "detail": "d"}',), 503)
        sent = int(request.headers.get("last-event-id", "s:0").removeprefix("s:"))
        body = b"".join(FRAMES[max(0, sent - 1) :])
        return Reply((body[: sum(map(len, FRAMES[max(0, sent - 1) : sent + 1])) + 7 * sent],), headers=SSE, ends=ends)

    server = serve(grudging)
    assert run(server.url) == CLEAN
    assert len(server.requests) > 4
    assert len({request.body for request in server.requests}) == 1


def test_a_stale_stream_is_lost_with_its_partial_text(serve: Serve) -> None:
    stale = Reply((frame(1, "stale", {"code": "stale", "detail": "d"}, "stale"),), headers=SSE)
    found = run(serve(in_order(Reply(FRAMES[:2], headers=SSE), stale)).url)
    assert (found["code"], found["partial"], found["lastEventId"]) == ("stream_lost", "Niru ", "s:2")
    assert found["events"] == CLEAN["events"][:2]


def test_an_error_is_thrown_after_the_events_before_it(serve: Serve) -> None:
    broke = frame(3, "error", {"code": "generation_failed", "detail": "it broke", "partial": True})
    found = run(serve(in_order(Reply([*FRAMES[:2], broke], headers=SSE))).url)
    assert (found["name"], found["code"], found["message"]) == ("NiruError", "generation_failed", "it broke")
    assert found["events"] == CLEAN["events"][:2]


def test_a_refusal_that_will_not_pass_is_thrown_at_once(serve: Serve) -> None:
    server = serve(in_order(Reply((b'{"code": "invalid_text", "detail": "query is empty"}',), 422)))
    assert run(server.url)["code"] == "invalid_text"
    assert len(server.requests) == 1


def test_tries_are_counted_and_silence_is_a_cut(serve: Serve) -> None:
    server = serve(in_order(CUT))
    assert run(server.url, "attempts: 3")["code"] == "unreachable"
    assert len(server.requests) == 3
    silent = serve(in_order(Reply(FRAMES[:2], headers=SSE, ends=False), Reply(FRAMES[2:], headers=SSE)))
    assert run(silent.url, "silence: 0.2") == CLEAN


def test_leaving_and_a_deadline_end_it(serve: Serve) -> None:
    left = serve(in_order(Reply((FRAMES[0], frame(2, "leave", {})), headers=SSE)))
    assert [event for event, _ in run(left.url)["events"]] == ["sources", "leave"]
    busy = serve(in_order(Reply((b"{}",), 429, {"Retry-After": "7"})))
    found = run(busy.url, "timeout: 1")
    assert (found["code"], found["retryAfter"]) == ("http_error", 7)
