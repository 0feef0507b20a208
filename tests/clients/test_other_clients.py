"""Clients that others wrote: npm's `eventsource`, a browser's own EventSource, and in it this library's module."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from niruhybrid.config import ServerConfig
from niruhybrid.pipeline import Pipeline
from tests.client.wire import CuttingProxy
from tests.server.conftest import Server, pipeline_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(120)]

HERE = Path(__file__).parent
_HALF = 1500  # bytes: the head and about half of the answer
QUESTION = "Which module is a priority queue?"
READ = """
const events = [];
const source = new EventSource("URL/stream/query?query=" + encodeURIComponent("QUESTION"));
const done = new Promise((resolve) => {
  let opened = 0;
  source.onopen = () => { opened += 1; };
  for (const name of ["sources", "token", "done", "stale"]) {
    source.addEventListener(name, ({ data, lastEventId }) => {
      events.push([name, JSON.parse(data), lastEventId]);
      if (name === "done" || name === "stale") { source.close(); resolve({ events, opened }); }
    });
  }
});
"""


@pytest.fixture
def served() -> Iterator[Server]:
    def make() -> Pipeline:
        return pipeline_of()

    server = Server(make, ServerConfig(port=0, cors_origins="*"))  # a page may ask by way of a wire
    server.start(wait=True)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with npm's packages in it, as the lock names them."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    if done.returncode:
        pytest.skip(f"npm can't fetch the package eventsource: {done.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    window = browser.new_context()
    yield window.new_page()
    window.close()


def expect_whole(found: dict[str, Any]) -> None:
    """Check that the events are those of one answer, none twice and none left out."""
    names = [name for name, _, _ in found["events"]]
    assert names[0] == "sources"
    assert names[-1] == "done"
    assert set(names[1:-1]) == {"token"}
    numbers = [int(event_id.rpartition(":")[2]) for _, _, event_id in found["events"]]
    assert numbers == list(range(1, len(names) + 1))
    text = "".join(data["text"] for name, data, _ in found["events"] if name == "token")
    assert "heapq module is a priority queue" in text


def in_node(folder: Path, url: str) -> dict[str, Any]:
    program = READ.replace("URL", url).replace("QUESTION", QUESTION)
    source = f'import {{ EventSource }} from "eventsource";{program}console.log(JSON.stringify(await done));'
    done = subprocess.run(
        [str(shutil.which("node")), "--input-type=module", "-e", source],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    found: dict[str, Any] = orjson.loads(done.stdout)
    return found


def in_page(page: "Page", url: str, asked: str = "") -> dict[str, Any]:
    page.goto(f"{url}/healthz")  # any page of the server's
    program = READ.replace("URL", asked).replace("QUESTION", QUESTION)
    found: dict[str, Any] = page.evaluate(f"async () => {{ {program} return await done; }}")
    return found


def test_npms_eventsource_reads_an_answer(served: Server, packages: Path) -> None:
    found = in_node(packages, served.url)
    expect_whole(found)
    assert found["opened"] == 1


def test_npms_eventsource_goes_on_where_the_connection_broke(served: Server, packages: Path) -> None:
    with CuttingProxy(served.port, iter([_HALF])) as wire:
        found = in_node(packages, wire.url)
        assert wire.connections == 2
    expect_whole(found)
    assert found["opened"] == 2


def test_a_browsers_eventsource_reads_an_answer(served: Server, page: "Page") -> None:
    found = in_page(page, served.url)
    expect_whole(found)
    assert found["opened"] == 1


def test_a_browsers_eventsource_goes_on_where_the_connection_broke(served: Server, page: "Page") -> None:
    with CuttingProxy(served.port, iter([_HALF])) as wire:
        found = in_page(page, served.url, asked=wire.url)
        assert wire.connections == 2
    expect_whole(found)
    assert found["opened"] == 2


def test_a_browser_imports_our_module_from_the_server(served: Server, page: "Page") -> None:
    page.goto(f"{served.url}/healthz")
    program = """async (query) => {
      const { ask } = await import("/niru-client.js");
      const events = [];
      for await (const { event, data } of ask("/stream/query", { query })) events.push([event, data]);
      return events;
    }"""
    events = page.evaluate(program, QUESTION)
    assert [events[0][0], events[-1][0]] == ["sources", "done"]
    assert "heapq" in "".join(data["text"] for name, data in events if name == "token")
