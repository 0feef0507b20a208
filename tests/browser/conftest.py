"""A real browser in front of a real server, and the console as a person uses it."""

import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from niruhybrid.config import ServerConfig
from tests.client.wire import CuttingProxy
from tests.server.conftest import Server, pipeline_of, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request

__all__ = ("serving",)  # fixtures of the server's tests

ARTEFACTS = Path(__file__).parents[2] / "artefacts" / "console"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 30_000
FLAGS = (
    "--no-sandbox",  # it needs rights that containers rarely give; the pages are our own
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",  # like the next two: it asks for nothing but our own server
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


@pytest.fixture(scope="module")  # while it is there, no event loop can be run in this thread: others need it
def browser() -> Iterator["Browser"]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: install the system's package `chromium`")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@dataclass
class Console:
    """The page, by what a person sees and does."""

    page: "Page"
    url: str
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)  # patterns of what the browser may say

    def open(self, path: str = "/") -> None:
        self.page.goto(self.url + path)

    def ask(self, question: str) -> None:
        self.page.get_by_label("Question").fill(question)
        self.page.keyboard.press("Enter")

    def expect(self, selector: str, text: str | None = None) -> "Locator":
        """Return what is there, perhaps by its text, once it is seen."""
        found = self.page.locator(selector) if text is None else self.page.locator(selector, has_text=text)
        found.first.wait_for(state="visible", timeout=PATIENCE_MS)
        return found

    def expect_status(self, text: str) -> None:
        """Wait until the panel's status line says so."""
        self.expect("#ask-status", text)

    def expect_done(self) -> None:
        self.expect('#phases li[data-state="done"]', "Done")

    def refuse_elsewhere(self, request: "Request") -> None:
        """Complain of a request to another server: the console works without a network."""
        if not request.url.startswith(self.url + "/"):
            self.complaints.append(f"asked elsewhere: {request.url}")

    def snapshot(self, name: str) -> None:
        """Keep a picture of the whole page."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)

    def surprises(self) -> list[str]:
        """Return what the browser complained of and was not expected to."""
        return [line for line in self.complaints if not any(re.search(known, line) for known in self.expected)]


class Wire(CuttingProxy):
    """Lets everything through, until it is cut."""

    def __init__(self, port: int) -> None:
        super().__init__(port, itertools.repeat(None))

    def cut(self) -> None:
        """Break the connections that there are now."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._connections])


Serving = Callable[..., Server]
Visit = Callable[..., Console]


@pytest.fixture
def wire_to() -> Iterator[Callable[[Server], Wire]]:
    """Put a wire before a server."""
    with ExitStack() as wires:
        yield lambda server: wires.enter_context(Wire(server.port))


@pytest.fixture(scope="module")
def reading() -> Iterator[str]:
    """Return the address of a server for tests that only read: the browser has its files after the first of them."""
    server = Server(pipeline_of, ServerConfig(port=0))
    server.start(wait=True)
    yield server.url
    server.stop()


@pytest.fixture(scope="module")
def window(browser: "Browser") -> Iterator["BrowserContext"]:
    made = browser.new_context(viewport={"width": 1280, "height": 860})
    made.set_default_timeout(PATIENCE_MS)
    yield made
    made.close()


@pytest.fixture
def visit(window: "BrowserContext") -> Iterator[Visit]:
    """Open the console of a server in a tab of its own; at the end, none may have complained."""
    with ExitStack() as tabs:
        consoles: list[Console] = []

        def go(url: str, path: str = "/") -> Console:
            console = Console(window.new_page(), url)
            tabs.callback(console.page.close)
            console.page.on("console", lambda told: console.complaints.append(f"{told.type}: {told.text}"))
            console.page.on("request", console.refuse_elsewhere)
            console.page.on("pageerror", lambda error: console.complaints.append(f"thrown: {error}"))
            consoles.append(console)
            console.open(path)
            return console

        yield go
        surprises = [line for console in consoles for line in console.surprises()]
    assert surprises == []


@pytest.fixture
def axe() -> str:
    """Return axe-core, which looks for what keeps people out."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    return (Path(os.fspath(package.__path__[0])) / "axe.min.js").read_text(encoding="utf-8")
