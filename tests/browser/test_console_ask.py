"""Asking in the console: sources, answer, citations; stopped, refused, cut and gone on with."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

from niruhybrid.pipeline import Pipeline
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, Hit, IndexEntry, Query, Token, Vector
from tests.server.conftest import FirstSentences, pipeline_of

pytestmark = [pytest.mark.integration, pytest.mark.slow]

QUESTION = "Which module is a priority queue?"
PIECES = ("The heapq module", " is a priority queue", "[1]", ", and it works", " on lists", ".")


class Wordy:
    """Gives fixed pieces, and waits before the third until it may go on."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.closed = threading.Event()

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        try:
            for number, text in enumerate(PIECES):
                if number == 2:
                    await asyncio.to_thread(self.go.wait, 30)
                yield Token(text, hits[0].id if text == "[1]" else None)
        finally:
            self.closed.set()


@pytest.fixture
def wordy() -> Iterator[Wordy]:
    generator = Wordy()
    yield generator
    generator.go.set()


def test_sources_come_first_and_the_answer_says_where_each_sentence_is_from(reading: str, visit: Any) -> None:
    console = visit(reading)
    console.expect("#ask-empty", "Sources arrive first")
    console.ask(QUESTION)
    console.expect_done()
    console.expect_status("The answer is complete.")
    assert console.page.locator(".source .title").all_inner_texts()[0] == "heapq"
    assert "The heapq module is a priority queue." in console.expect("#answer").inner_text()
    console.page.get_by_role("button", name="Source 2").click()
    active = console.expect(".source.active")
    assert active.locator(".rank").inner_text() == "2"
    assert active.locator("mark.active").inner_text() == console.page.locator(".said.active").inner_text()
    console.snapshot("answer")


def test_a_chosen_source_stays_marked_when_the_mouse_leaves_its_citation(reading: str, visit: Any) -> None:
    console = visit(reading)
    console.ask(QUESTION)
    console.expect_done()
    cited = console.page.get_by_role("button", name="Source 2")
    cited.click()
    console.page.get_by_role("button", name="Source 1").hover()
    cited.evaluate("each => each.dispatchEvent(new MouseEvent('mouseleave'))")
    assert console.expect(".source.active").locator(".rank").inner_text() == "2"
    cited.press("Escape")
    assert console.page.locator(".active").count() == 0


def test_a_citation_is_followed_and_left_with_the_keyboard(reading: str, visit: Any) -> None:
    console = visit(reading)
    console.ask(QUESTION)
    console.expect_done()
    console.page.get_by_role("button", name="Source 1").focus()
    console.page.keyboard.press("Enter")
    assert console.page.evaluate("document.activeElement.querySelector('.rank').textContent") == "1"
    console.page.keyboard.press("Escape")
    assert console.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Source 1"
    assert console.page.locator(".source.active").count() == 0


def test_a_citation_of_a_model_leads_to_its_source(serving: Any, visit: Any, wordy: Wordy) -> None:
    wordy.go.set()
    console = visit(serving(lambda: pipeline_of(wordy)).url)
    console.ask(QUESTION)
    console.expect_done()
    assert console.expect("#answer").inner_text() == "The heapq module is a priority queue1, and it works on lists."
    console.page.get_by_role("button", name="Source 1").click()
    assert console.expect(".source.active mark.active").inner_text() == "The heapq module is a priority queue"


def test_an_answer_is_shown_as_it_arrives_and_can_be_stopped(serving: Any, visit: Any, wordy: Wordy) -> None:
    console = visit(serving(lambda: pipeline_of(wordy), grace=0.0).url)
    console.ask(QUESTION)
    console.expect("#answer", "The heapq module is a priority queue")
    console.expect_status("The answer is arriving")
    assert console.page.locator("#answer").get_attribute("aria-busy") == "true"
    console.snapshot("streaming")
    console.page.get_by_role("button", name="Stop").click()
    console.expect_status("Stopped. What is shown is not the whole answer.")
    console.expect("#answer", "Stopped here.")
    assert wordy.closed.wait(10)
    assert console.page.get_by_role("button", name="Stop").count() == 0


def test_a_new_question_takes_the_place_of_the_one_before(serving: Any, visit: Any, wordy: Wordy) -> None:
    console = visit(serving(lambda: pipeline_of(wordy)).url)
    console.ask(QUESTION)
    console.expect("#answer", "The heapq module")
    wordy.go.set()
    console.ask("What does csv read?")
    console.expect_done()
    assert console.page.locator("#answer").inner_text().count("The heapq module") == 1
    assert console.page.locator(".source .title").all_inner_texts()[0] == "csv"


def test_after_a_cut_the_answer_goes_on_where_it_was_and_says_so(
    serving: Any, visit: Any, wordy: Wordy, wire_to: Callable[[Any], Any]
) -> None:
    wire = wire_to(serving(lambda: pipeline_of(wordy), grace=30.0))
    console = visit(wire.url)
    console.expected.append("ERR_")  # the browser notes a broken connection
    console.ask(QUESTION)
    console.expect("#answer", "is a priority queue")
    console.page.route("**/stream/query", lambda route: route.abort())  # nothing gets through for now
    wire.cut()
    console.expect_status("Connection lost. Resuming where it broke")
    console.snapshot("resuming")
    console.page.unroute("**/stream/query")
    wordy.go.set()
    console.expect_done()
    console.expect_status("Resumed 1 time; nothing is missing or repeated.")
    assert console.expect("#answer").inner_text() == "The heapq module is a priority queue1, and it works on lists."


def test_what_the_server_has_not_kept_is_said_to_be_lost(
    serving: Any, visit: Any, wordy: Wordy, wire_to: Callable[[Any], Any]
) -> None:
    wire = wire_to(serving(lambda: pipeline_of(wordy), grace=0.0))
    console = visit(wire.url)
    console.expected.append("ERR_")
    console.ask(QUESTION)
    console.expect("#answer", "is a priority queue")
    wire.cut()
    console.expect(".problem", "The connection was lost, and the rest with it")
    console.expect("#answer", "The answer broke off here.")
    wordy.go.set()
    console.page.get_by_role("button", name="Try again").click()
    console.expect_done()


def test_a_refusal_is_shown_with_its_remedy(serving: Any, visit: Any) -> None:
    console = visit(serving(max_query_chars=20).url)
    console.expected.append("422")
    console.ask(QUESTION)
    console.expect(".problem", "characters")
    console.expect('#phases li[data-state="broken"]', "Queued")
    console.snapshot("refused")


def test_while_the_server_is_full_it_says_so_and_asks_again(serving: Any, visit: Any, wordy: Wordy) -> None:
    server = serving(lambda: pipeline_of(wordy), max_streams=1, grace=0.0)
    first, second = visit(server.url), visit(server.url)
    second.expected.append("503")
    first.ask(QUESTION)
    first.expect("#answer", "The heapq module")
    second.ask(QUESTION)
    second.expect_status("The server is busy. Asking again in")
    first.page.get_by_role("button", name="Stop").click()
    wordy.go.set()
    second.expect_done()


def test_a_key_is_asked_for_and_stays_in_the_tab(serving: Any, visit: Any) -> None:
    console = visit(serving(api_keys="me:read:a-secret-of-16-characters").url)
    console.expected.append("401")
    console.ask(QUESTION)
    console.expect(".problem", "This server needs an API key")
    console.page.get_by_role("button", name="Enter an API key").first.click()
    console.page.get_by_label("Key", exact=True).fill("a-secret-of-16-characters")
    console.snapshot("key")
    console.page.keyboard.press("Enter")
    console.page.get_by_role("button", name="Try again").first.click()
    console.expect_done()
    assert console.page.evaluate("JSON.stringify(localStorage)").count("secret") == 0
    console.page.reload()
    console.ask(QUESTION)
    console.expect_done()


class Gated(HashEncoder):
    """Encodes when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def encode(self, texts: Sequence[str], /) -> Vector:
        assert self.go.wait(20)
        return super().encode(texts)


@pytest.fixture
def gated() -> Iterator[Gated]:
    encoder = Gated()
    yield encoder
    encoder.go.set()


def test_word_matches_are_shown_as_provisional_until_the_search_is_done(serving: Any, visit: Any, gated: Gated) -> None:
    console = visit(serving(lambda: pipeline_of(encoder=gated)).url)
    console.page.get_by_text("Options").click()
    console.page.get_by_label("show word matches first").check()
    console.ask("csv tables")
    console.expect_status("1 source by words alone. Searching by meaning")
    console.expect(".sources[data-provisional] .title", "csv")
    console.snapshot("provisional")
    gated.go.set()
    console.expect_done()
    assert console.page.locator(".sources[data-provisional]").count() == 0
    assert console.page.locator(".source").count() == 3


def test_options_narrow_the_search_and_a_wrong_one_is_said(reading: str, visit: Any) -> None:
    console = visit(reading)
    console.page.get_by_text("Options").click()
    console.page.get_by_label("Metadata filter").fill("{page: 3}")
    console.ask(QUESTION)
    console.expect(".problem", "The filter is not JSON")
    console.page.get_by_label("Metadata filter").fill('{"eq": {"page": 3}}')
    console.page.get_by_label("Search by").select_option("lexical")
    console.ask(QUESTION)
    console.expect_done()
    assert console.page.locator(".source .title").all_inner_texts() == ["heapq"]
    assert console.page.locator(".problem").count() == 0


def test_a_server_that_starts_is_waited_for(serving: Any, visit: Any) -> None:
    go = threading.Event()

    def opened() -> Pipeline:
        assert go.wait(20)
        return pipeline_of()

    server = serving(opened, wait=False)
    try:
        console = visit(server.url)
        console.expected.append("503")
        console.expect("#health", "Starting")
        console.ask(QUESTION)
        console.expect_status("The server is starting. Asking again in")
        console.snapshot("starting")
    finally:
        go.set()
    console.expect_done()
    console.expect("#health", "Ready")


def test_the_theme_is_chosen_and_kept(reading: str, visit: Any) -> None:
    console = visit(reading)
    console.page.emulate_media(color_scheme="light")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = console.page.evaluate(background)
    for name in ("light", "dark"):
        console.page.get_by_role("button", name="Theme").click()
        console.expect("#theme", f"Theme: {name}")
    assert console.page.evaluate(background) != light
    console.page.reload()
    console.expect("#theme", "Theme: dark")
    console.page.get_by_role("button", name="Theme").click()
    console.expect("#theme", "Theme: auto")


def test_nothing_found_is_said(serving: Any, visit: Any) -> None:
    console = visit(serving(lambda: Pipeline(HashEncoder(), EmbeddedStore(), FirstSentences())).url)
    console.ask(QUESTION)
    console.expect_done()
    console.expect("#sources-note", "nothing in the index is like this")


HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def hostile_pipeline() -> Pipeline:
    encoder, store = HashEncoder(), EmbeddedStore()
    document = Document(f"id{HOSTILE}", f"{HOSTILE} is a priority queue. $& \\1 ", HOSTILE, {HOSTILE: [HOSTILE]})
    store.upsert([IndexEntry(document, encoder.encode([document.text])[0], encoder.terms(document.text))])
    return Pipeline(encoder, store, FirstSentences())


def test_what_is_stored_is_text_and_never_markup(serving: Any, visit: Any) -> None:
    console = visit(serving(hostile_pipeline).url)
    console.page.on("dialog", lambda dialog: console.complaints.append(f"dialog: {dialog.message}"))
    console.ask("Which one is a priority queue?")
    console.expect_done()
    assert HOSTILE in console.expect("#answer").inner_text()
    assert console.page.locator(".source .title").inner_text() == HOSTILE
    assert console.page.locator("main img, main script").count() == 0
    console.expected.append("TrustedHTML")
    with pytest.raises(Exception, match="TrustedHTML"):
        console.page.evaluate("document.body.innerHTML = '<b>no</b>'")
    console.snapshot("hostile")
