"""The command in processes of its own, as users run it."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(120)]

Run = Callable[..., "subprocess.CompletedProcess[str]"]

_MAIN = [sys.executable, "-c", "from niruhybrid.cli import main; main()"]


def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NIRU_")}
    return kept | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def niru(tmp_path: Path) -> Run:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # our own words
            [*_MAIN, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=tmp_path,
            env=environment(tmp_path),
        )

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    processes: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(  # our own words
            [*_MAIN, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=tmp_path,
            env=environment(tmp_path) | {"PYTHONUNBUFFERED": "1"},
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "one.md").write_text("# Queues\n\nThe heapq module implements a priority queue on a list.\n")
    (folder / "two.txt").write_text("The csv module reads and writes tables in text files.\n")
    return folder


def until(process: "subprocess.Popen[str]", pattern: str) -> "re.Match[str]":
    """Return the first match of `pattern` in a line of the output."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"the command ended without {pattern!r}")


def test_documents_are_ingested_once_and_found(niru: Run, notes: Path) -> None:
    first = niru("ingest", str(notes), "--store", "s.db")
    assert (first.returncode, first.stdout) == (0, "2 stored, 0 unchanged, 0 failed\n")
    again = niru("ingest", str(notes), "--store", "s.db")
    assert (again.returncode, again.stdout) == (0, "0 stored, 2 unchanged, 0 failed\n")

    told = niru("query", "Which module has a priority queue?", "--store", "s.db")
    assert told.returncode == 0
    assert told.stdout.startswith("[1] ")
    assert "heapq module implements a priority queue" in told.stdout

    lines = [orjson.loads(line) for line in niru("query", "tables", "--store", "s.db", "--json").stdout.splitlines()]
    assert [lines[0]["event"], lines[-1]["event"]] == ["sources", "done"]
    assert len(lines[0]["data"]["hits"]) == 2

    assert orjson.loads(niru("stats", "--store", "s.db").stdout)["documents"] == 2


def test_bad_files_are_listed_and_never_fatal(niru: Run, notes: Path) -> None:
    (notes / "broken.txt").write_bytes(b"\xff\xfe\xfa not text")
    done = niru("ingest", str(notes), "absent.txt", "--store", "s.db")
    assert done.returncode == 0
    assert "2 stored" in done.stdout
    assert "2 failed" in done.stdout
    assert "broken.txt" in done.stderr
    assert "absent.txt" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["query", "x", "--store", "absent.db"], 1, "absent.db"),
        (["query", "x"], 2, "--store"),
        (["query", "x", "--filter", "{lang}"], 2, "--filter is not JSON"),
        (["query", "x", "--filter", "{}"], 1, "give one operator"),
        (["query"], 2, "TEXT"),
        (["ingest", "absent.txt", "--store", "s.db"], 1, "absent.txt"),
        (["serve", "--demo", "--data", "x"], 2, "--demo"),
        (["serve", "--port", "99999"], 1, "99999"),
        (["serve", "--port", "0", "--model", "/absent/model"], 1, "/absent/model"),
        (["--config", "absent.toml", "serve"], 1, "absent.toml"),
        (["stats", "--url", "ftp://x"], 2, "http"),
        (["stats", "--url", "http://127.0.0.1:9"], 1, "127.0.0.1:9"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_an_error_is_said_in_a_line_and_never_a_traceback(
    niru: Run, arguments: list[str], code: int, said: str
) -> None:
    done = niru(*arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said(niru: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = niru("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "niru: can't listen on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_told_at_once(niru: Run) -> None:
    done = niru("--version")
    assert (done.returncode, done.stdout.split(",")[0]) == (0, "niru")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_it_serves_files_until_it_is_told_to_stop(
    start: Callable[..., Any], niru: Run, notes: Path, number: int
) -> None:
    process = start("serve", "--data", str(notes), "--port", "0")
    url = until(process, r"http://\S+")[0]
    until(process, r"all 2 documents are searchable")
    answer = requests.post(f"{url}/stream/query", json={"query": "priority queue"}, timeout=10)
    assert answer.ok
    assert "heapq" in answer.text
    assert orjson.loads(niru("stats", "--url", url).stdout)["documents"] == 2
    process.send_signal(number)
    assert process.wait(20) == 0


def test_the_demo_can_be_asked_while_it_is_indexed(start: Callable[..., Any], tmp_path: Path) -> None:
    process = start("serve", "--demo", "--port", "0")
    url = until(process, r"http://\S+")[0]
    until(process, r"ready after")
    assert requests.get(f"{url}/readyz", timeout=10).ok
    until(process, r"indexing: [1-9]")
    events = requests.post(f"{url}/stream/query", json={"query": "function"}, timeout=30).text
    assert "event: done" in events
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert list((tmp_path / "cache" / "niruhybrid").glob("demo-*.db"))
    assert not list((tmp_path / "cache" / "niruhybrid").glob("*.complete"))
