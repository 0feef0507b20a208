"""Adding documents in the console, and being told of those that match."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests

from niruhybrid.testing import HashEncoder
from niruhybrid.types import Vector
from tests.server.conftest import pipeline_of

pytestmark = [pytest.mark.integration, pytest.mark.slow]

KEY = "a-secret-of-16-characters"
HOSTILE = "<img src=x onerror=alert(1)> green tea"


def drop(console: Any, name: str, text: str) -> None:
    """Drop a file on the page, as the pointer would."""
    console.page.evaluate(
        """([name, text]) => {
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([text], name));
          for (const kind of ["dragenter", "dragover", "drop"])
            document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        [name, text],
    )


def choose(console: Any, *paths: Path) -> None:
    console.page.locator("#files").set_input_files(list(paths))


def watch(console: Any, query: str, least: str = "") -> None:
    console.page.get_by_label("Tell me when something arrives about").fill(query)
    console.page.get_by_label("Least score").fill(least)
    console.page.keyboard.press("Enter")
    console.expect(".watch", "Listening")


def test_a_pasted_text_is_stored_and_found(serving: Any, visit: Any) -> None:
    url = serving().url
    console = visit(url)
    console.page.get_by_label("Or paste a text").fill("Green tea is brewed at 80 degrees. It is not boiled.")
    console.page.get_by_label("Id, if any").fill("tea")
    console.page.get_by_role("button", name="Add text").click()
    console.expect(".job", "1 document stored. Searchable now.")
    assert requests.get(url + "/data/tea", timeout=30).json()["text"].startswith("Green tea")
    console.ask("How is green tea brewed?")
    console.expect_done()
    assert console.page.locator(".source .title").all_inner_texts()[0] == "tea"


class Gated(HashEncoder):
    """Encodes documents only once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def encode(self, texts: Sequence[str], /) -> Vector:
        assert "slow" not in texts[0] or self.go.wait(20)
        return super().encode(texts)


def test_a_document_that_takes_long_is_waited_for(serving: Any, visit: Any) -> None:
    encoder = Gated()
    server = serving(lambda: pipeline_of(encoder=encoder), keep_alive=0.05)
    console = visit(server.url)
    sent: list[str] = []
    console.page.on("request", lambda request: sent.append(request.url))
    with console.page.expect_response("**/stream/data"):  # it begins with a blank line: nothing is stored yet
        console.page.get_by_label("Or paste a text").fill("A slow text.")
        console.page.get_by_role("button", name="Add text").click()
    assert server.stats()["documents"] == 3
    encoder.go.set()
    console.expect(".job", "1 document stored. Searchable now.")
    assert [url.endswith("/stream/data") for url in sent].count(True) == 1


def test_a_dropped_file_of_lines_is_stored_line_by_line_and_what_is_wrong_is_listed(serving: Any, visit: Any) -> None:
    server = serving()
    console = visit(server.url)
    lines = [orjson.dumps({"id": f"n{number}", "text": f"Note {number} on tea."}).decode() for number in range(450)]
    lines[7], lines[300] = "not JSON", '{"id": "empty", "text": ""}'
    drop(console, "notes.jsonl", "\n".join([*lines, "", '"a bare text"', ""]))
    console.expect(".job", "449 documents stored, 2 refused. Searchable now.")
    console.page.get_by_text("What was refused, and why").click()
    console.expect(".reasons li", "line 8")
    console.expect(".reasons li", "empty")
    assert server.stats()["documents"] == 3 + 449
    assert console.page.locator(".job progress").evaluate("bar => bar.value") == 1
    console.snapshot("added")


def test_files_are_chosen_and_taken_one_after_the_other(serving: Any, visit: Any, tmp_path: Path) -> None:
    server = serving()
    console = visit(server.url)
    contents = {
        "plain.md": b"# Tea\n\nGreen tea.",
        "many.json": b'[{"id": "j1", "text": "one"}, "two"]',
        "broken.json": b"{",
        "picture.txt": b"\x89PNG\xff\x00",
        "page.html": b"<p>no</p>",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    choose(console, *(tmp_path / name for name in contents))
    console.expect(".job", "page.html").locator(".problem").wait_for()
    said = {name: console.page.locator(".job", has_text=name).inner_text() for name in contents}
    assert "1 document stored" in said["plain.md"]
    assert "2 documents stored" in said["many.json"]
    assert "is not JSON" in said["broken.json"]
    assert "is not UTF-8 text" in said["picture.txt"]
    assert "use niru ingest" in said["page.html"]
    assert requests.get(server.url + "/data/plain.md", timeout=30).json()["metadata"] == {"source": "plain.md"}
    console.snapshot("files")


def test_what_a_cut_left_open_is_sent_again_and_nothing_is_stored_twice(
    serving: Any, visit: Any, wire_to: Callable[[Any], Any]
) -> None:
    server = serving()
    wire = wire_to(server)
    console = visit(wire.url)
    console.expected.append("ERR_")
    tries = []

    def second_try(route: Any) -> None:
        """Let the server store everything, and lose its answer."""
        tries.append(route.request)
        if len(tries) > 1:
            route.continue_()
            return
        requests.post(server.url + "/stream/data", data=route.request.post_data_buffer, headers=route.request.headers)  # noqa: S113  # its own server
        route.abort()

    console.page.route("**/stream/data", second_try)
    drop(console, "notes.jsonl", "\n".join(f'"tea number {number}"' for number in range(50)))
    console.expect(".job", "50 documents stored. Searchable now.")
    assert len(tries) == 2
    assert server.stats()["documents"] == 3 + 50


def test_an_addition_can_be_stopped(reading: str, visit: Any) -> None:
    console = visit(reading)
    held: list[Any] = []
    console.page.route("**/stream/data", lambda route: held.append(route))  # noqa: PLW0108  # it stays under way
    drop(console, "first.txt", "Green tea.")
    drop(console, "second.txt", "Black tea.")
    console.expect(".job", "Waits for those before it.")
    console.page.get_by_role("button", name="Stop adding second.txt").click()
    console.page.get_by_role("button", name="Stop adding first.txt").click()
    console.expect(".job:nth-child(1)", "Stopped")
    console.expect(".job:nth-child(2)", "Stopped")
    assert len(held) == 1


def test_a_key_that_may_only_read_is_told_so(serving: Any, visit: Any) -> None:
    console = visit(serving(api_keys=f"me:read:{KEY}").url)
    console.expected.append("40[13]")
    console.page.get_by_role("button", name="API key", exact=True).click()
    console.page.get_by_label("Key", exact=True).fill(KEY)
    console.page.keyboard.press("Enter")
    drop(console, "tea.txt", "Green tea.")
    console.expect(".job .problem", "This API key is not for this")


def test_a_standing_query_is_told_of_what_arrives(serving: Any, visit: Any) -> None:
    url = serving().url
    console = visit(url)
    console.page.on("dialog", lambda dialog: console.complaints.append(f"dialog: {dialog.message}"))
    watch(console, "green tea", "0.3")
    for number, text in enumerate([HOSTILE, "Gravel and sand."]):
        assert requests.post(url + "/stream/data", json={"id": f"d{number}", "text": text}, timeout=30).ok
    console.expect(".watch", "1 match")
    assert console.page.locator(".match .text").all_inner_texts() == [HOSTILE]
    console.snapshot("watched")
    console.page.get_by_role("button", name="Stop watching green tea").click()
    console.expect("#watch-empty", "Nothing is watched")


def test_a_standing_query_goes_on_after_a_cut_without_missing_any(
    serving: Any, visit: Any, wire_to: Callable[[Any], Any]
) -> None:
    server = serving(grace=30.0)
    wire = wire_to(server)
    console = visit(wire.url)
    console.expected.append("ERR_")
    watch(console, "green tea")
    console.page.route("**/stream/subscribe", lambda route: route.abort())
    wire.cut()
    console.expect(".watch", "Connection lost. Resuming")
    assert requests.post(server.url + "/stream/data", json={"id": "t", "text": "green tea"}, timeout=30).ok
    console.page.unroute("**/stream/subscribe")
    console.expect(".watch", "1 match")


def test_a_fourth_standing_query_would_starve_the_page(reading: str, visit: Any) -> None:
    console = visit(reading)
    for query in ("one", "two", "three"):
        watch(console, query)
        console.expect(".watch", query)
    console.expect("#watch-limit", "Three at a time")
    assert console.page.get_by_role("button", name="Watch", exact=True).is_disabled()
    console.ask("Which module is a priority queue?")
    console.expect_done()


def test_no_room_for_a_standing_query_is_said_and_tried_again(serving: Any, visit: Any) -> None:
    console = visit(serving(max_subscribers=1, grace=0.0).url)
    console.expected.append("503")
    console.expect("#health", "Ready")  # the counters count apart
    watch(console, "one")
    console.page.get_by_label("Tell me when something arrives about").fill("two")
    console.page.keyboard.press("Enter")
    console.expect(".watch", "The server is busy. Asking again")
    console.page.get_by_role("button", name="Stop watching one").click()
    console.expect(".watch", "Listening")
