"""Every page that shows code, run as printed in an interpreter of its own, with warnings as errors."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.run_page import parse

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide.md"
PAGES = [
    page
    for page in sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
    if parse(page.read_text(encoding="utf-8"))
]

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(300)]


@dataclass(frozen=True, slots=True)
class Ran:
    """How a page went: outputs by the language of the block, and all that was said beside them."""

    outputs: list[tuple[str, str]]
    stderr: str
    code: int


def run_page(page: Path) -> Ran:
    command = (sys.executable, "-W", "error", str(ROOT / "tools" / "run_page.py"), str(page))
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return Ran([(line["language"], line["output"]) for line in lines], done.stderr, done.returncode)


@pytest.fixture(scope="module")
def guide() -> Ran:
    return run_page(GUIDE)


@pytest.mark.parametrize("page", [page for page in PAGES if page != GUIDE], ids=lambda page: page.name)
def test_page_runs_without_a_warning(page: Path) -> None:
    ran = run_page(page)
    assert (ran.code, ran.stderr) == (0, "")
    assert len(ran.outputs) == len(parse(page.read_text(encoding="utf-8")))


def test_guide_runs_without_a_warning(guide: Ran) -> None:
    assert (guide.code, guide.stderr) == (0, "")
    assert len(guide.outputs) == len(parse(GUIDE.read_text(encoding="utf-8")))


def test_guide_stream_prints_one_result_for_each_query(guide: Ran) -> None:
    results = [output for _, output in guide.outputs if "QueryResult(" in output]
    assert len(results) == 1
    assert results[0].count("QueryResult(") == 3
    assert "error=" not in results[0]


def test_guide_clients_receive_whole_streams(guide: Ran) -> None:
    streams = [output for _, output in guide.outputs if "event: sources" in output]
    assert len(streams) == 2, "the curl command and the requests client"
    for stream in streams:
        events = [line.removeprefix("event: ") for line in stream.splitlines() if line.startswith("event: ")]
        assert events[0] == "sources"
        assert events[-1] == "done"
        assert set(events[1:-1]) <= {"token"}


def test_the_guide_is_the_one_that_was_given_with_additions() -> None:
    given = (Path(__file__).parent / "guide_as_given.md").read_text(encoding="utf-8")
    page = GUIDE.read_text(encoding="utf-8")
    parts = re.findall(r"(?s:^```.*?^```)$|^.+(?:\n.+)*", given, re.MULTILINE)  # blocks, paragraphs, lists
    assert sum(part.startswith("```") for part in parts) == 7
    place = 0
    for part in parts:
        found = f"\n{page}\n".find(f"\n{part}\n\n", place)
        assert found >= 0, part
        place = found + len(part)
