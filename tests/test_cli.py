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

from tests.client.wire import Received, Reply, in_order, scripted_servers
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(120)]

Run = Callable[..., "subprocess.CompletedProcess[str]"]

_MAIN = [sys.executable, "-c", "from niruhybrid.cli import main; main()"]


def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NIRU_")}
    return kept | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def niru(tmp_path: Path) -> Run:
    def run(*arguments: str, api_key: str = "", piped: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # our own words
            [*_MAIN, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=tmp_path,
            env=environment(tmp_path) | ({"NIRU_API_KEY": api_key} if api_key else {}),
            input=piped,
        )

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    processes: list[subprocess.Popen[str]] = []

    def begin(
        *arguments: str, first: str = "", errors: int = subprocess.DEVNULL, **variables: str
    ) -> "subprocess.Popen[str]":
        process = subprocess.Popen(  # our own words
            [*_MAIN[:-1], first + _MAIN[-1], *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=tmp_path,
            env=environment(tmp_path) | {"PYTHONUNBUFFERED": "1"} | variables,
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


def test_what_reads_its_number_of_threads_is_not_loaded_before_it_is_set() -> None:
    asked = "import sys, niruhybrid.cli; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


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


def test_a_store_on_a_server_is_used_as_a_file_is(niru: Run, notes: Path, postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    first = niru("ingest", str(notes), "--store", url)
    assert (first.returncode, first.stdout) == (0, "2 stored, 0 unchanged, 0 failed\n"), first.stderr
    told = niru("query", "Which module has a priority queue?", "--store", url)
    assert "heapq module implements a priority queue" in told.stdout
    assert orjson.loads(niru("stats", "--store", url).stdout) == {"documents": 2}


def test_bad_files_are_listed_and_never_fatal(niru: Run, notes: Path) -> None:
    (notes / "broken.txt").write_bytes(b"\xff\xfe\xfa not text")
    done = niru("ingest", str(notes), "absent.txt", "--store", "s.db")
    assert (done.returncode, done.stdout) == (1, "2 stored, 0 unchanged, 2 failed\n")
    assert "broken.txt" in done.stderr
    assert "absent.txt" in done.stderr


def failures_in(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


TOO_LONG = "x" * 200


def test_all_failures_are_listed_in_a_file_and_the_last_line_and_the_status_say_so(niru: Run, tmp_path: Path) -> None:
    records = [{"id": f"d{number}", "text": TOO_LONG if number % 2 else "short"} for number in range(20)]
    lines = [orjson.dumps(record) for record in records]
    (tmp_path / "records.jsonl").write_bytes(b"\n".join([*lines, b"no JSON"]))
    (tmp_path / "niru.toml").write_text("[streaming]\nmax_text_chars = 100\n")
    arguments = ("--config", "niru.toml", "ingest", "records.jsonl", "--store", "s.db")

    done = niru(*arguments, "--failures", "failed.jsonl")
    assert (done.returncode, done.stdout) == (1, "10 stored, 0 unchanged, 11 failed\n")
    assert done.stderr.splitlines()[-1] == "Error: 11 of 21 documents failed: see failed.jsonl"
    assert done.stderr.count("not stored: ") == 5
    listed = failures_in(tmp_path / "failed.jsonl")
    assert {each["line"] for each in listed} == {*range(2, 21, 2), 21}
    assert {each["id"] for each in listed} == {*(f"d{number}" for number in range(1, 20, 2)), None}
    assert {(each["path"], each["code"]) for each in listed} == {
        ("records.jsonl", "invalid_text"),
        ("records.jsonl", "source_unreadable"),
    }
    assert all(each["reason"] for each in listed)

    again = niru(*arguments)
    assert (again.returncode, again.stdout) == (1, "0 stored, 10 unchanged, 11 failed\n")
    where = again.stderr.splitlines()[-1].removeprefix("Error: 11 of 21 documents failed: see ")
    assert len(failures_in(Path(where))) == 11
    Path(where).unlink()

    refused = niru(*arguments, "--failures", "absent/failed.jsonl")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--failures 'absent/failed.jsonl' can't be written (No such file or directory)" in refused.stderr


def test_an_interrupted_ingest_says_what_was_done(start: Callable[..., Any], tmp_path: Path) -> None:
    words = " ".join(f"word{number}" for number in range(100))
    lines = (f'{{"id": "d{number}", "text": "Note {number}. {words}"}}\n' for number in range(5000))
    (tmp_path / "notes.jsonl").write_text("".join(lines))
    terminal, errors = os.openpty()
    try:
        process = start("ingest", "notes.jsonl", "--store", "s.db", errors=errors, TERM="xterm")
        seen = b""
        while not re.search(rb"[1-9]\d* stored", seen):
            seen += os.read(terminal, 4096)
        process.send_signal(signal.SIGINT)
        while b"stopped before the end: run the same command again to go on" not in seen:
            seen += os.read(terminal, 4096)
        assert process.wait(30) == 130
    finally:
        os.close(errors)
        os.close(terminal)
    assert re.fullmatch(r"[1-9][\d,]* stored, 0 unchanged, 0 failed\n", process.stdout.read())


def test_a_server_never_says_that_all_documents_are_searchable_when_some_failed(
    start: Callable[..., Any], notes: Path, tmp_path: Path
) -> None:
    (notes / "records.jsonl").write_bytes(b'{"id": "a", "text": "' + TOO_LONG.encode() + b'"}\nno JSON\n')
    (tmp_path / "niru.toml").write_text("[streaming]\nmax_text_chars = 100\n")
    process = start("--config", "niru.toml", "serve", "--data", str(notes), "--port", "0")
    said = until(process, r"documents are searchable \(.*")
    assert said.string.startswith("2 documents are searchable (2 new); 2 of 4 documents failed: see ")
    assert len(failures_in(Path(said.string.strip().rpartition(" see ")[2]))) == 2


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
        (["query", "x", "--store", "s.db", "--url", "http://127.0.0.1:9"], 2, "--store can't be used together"),
        (["query", "x", "--url", "127.0.0.1:9"], 1, "base_url"),
        (["query", "x", "--url", "http://127.0.0.1:9"], 1, "can't be reached"),
        (["ingest", "-", "--store", "s.db"], 2, "add --url URL"),
        (["ingest", "x", "--store", "s.db", "--url", "http://127.0.0.1:9"], 2, "--store can't be used together"),
        (["serve", "--llm-url", "http://127.0.0.1:9/v1"], 1, "give both"),
        (
            ["serve", "--port", "0", "--llm-url", "http://x/v1", "--llm-model", "m", "--llm-key-env", "ABSENT"],
            1,
            "ABSENT",
        ),
        (["stats", "--url", "ftp://x"], 2, "http"),
        (["serve", "--port", "0", "--tls-cert", "nofile", "--tls-key", "nokey"], 1, "nofile"),
        (["stats", "--url", "http://user:s3cret@127.0.0.1:9"], 1, "http://127.0.0.1:9"),
        (["bench", "--clients", "1", "--rate", "1"], 2, "--clients and --rate"),
        (["bench", "--url", "http://127.0.0.1:9"], 1, "nothing listens there"),
        (["bench", "--plot", "x.gif"], 1, ".html or .svg"),
        (["top", "--url", "http://127.0.0.1:9"], 1, "127.0.0.1:9"),
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
    assert "s3cret" not in done.stderr + done.stdout


def test_several_workers_are_refused_and_the_reason_is_true(niru: Run) -> None:
    done = niru("serve", "--workers", "2")
    assert done.returncode == 2
    assert "its encoder uses one core" in done.stderr
    assert "every core" not in done.stderr + niru("serve", "--help").stdout


def test_a_port_in_use_is_said(niru: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = niru("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "niru: can't listen on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_told_at_once(niru: Run) -> None:
    done = niru("--version")
    assert (done.returncode, done.stdout.split(",")[0]) == (0, "niru")


def test_a_server_is_fed_and_asked_as_a_store_is(start: Callable[..., Any], niru: Run, notes: Path) -> None:
    keys = notes.parent / "keys.txt"
    keys.write_text("reader:read:r-secret-that-is-long-enough\nwriter:read+write:w-secret-that-is-long-enough\n")
    process = start("serve", "--port", "0", "--api-keys-file", str(keys))
    url = until(process, r"http://\S+")[0]
    until(process, r"ready after")
    fed = niru(
        "ingest",
        str(notes),
        "-",
        "--url",
        url,
        api_key="w-secret-that-is-long-enough",
        piped='{"text": "Tea."}\nnonsense\n',
    )
    assert (fed.returncode, fed.stdout) == (1, "3 stored, 0 unchanged, 1 failed\n")
    assert "not stored: stdin:2: line is not JSON" in fed.stderr
    assert "Error: 1 of 4 documents failed: see " in fed.stderr

    told = niru("query", "Which module has a priority queue?", "--url", url, api_key="r-secret-that-is-long-enough")
    assert told.returncode == 0
    assert told.stdout.startswith("[1] ")
    assert "heapq module implements a priority queue" in told.stdout
    lines = [
        orjson.loads(line)
        for line in niru(
            "query", "tables", "--url", url, "--top-k", "2", "--json", api_key="r-secret-that-is-long-enough"
        ).stdout.splitlines()
    ]
    assert [lines[0]["event"], lines[-1]["event"]] == ["sources", "done"]
    assert len(lines[0]["data"]["hits"]) == 2
    assert orjson.loads(niru("stats", "--url", url, api_key="r-secret-that-is-long-enough").stdout)["documents"] == 3

    for refused in (niru("stats", "--url", url), niru("query", "x", "--url", url), niru("ingest", "-", "--url", url)):
        assert refused.returncode == 1
    assert niru("ingest", str(notes), "--url", url, api_key="r-secret-that-is-long-enough").returncode == 1


def test_a_server_whose_model_breaks_off_says_so(start: Callable[..., Any], niru: Run, notes: Path) -> None:
    def broken(request: Received) -> Reply:
        piece = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        first = piece | {"choices": [{"index": 0, "delta": {"content": "The heapq"}, "finish_reason": None}]}
        assert orjson.loads(request.body)["model"] == "m"
        return Reply(
            (b"data: " + orjson.dumps(first) + b"\n\n",), headers={"Content-Type": "text/event-stream"}, ends=False
        )

    with scripted_servers() as scripted:
        endpoint = f"{scripted(broken).url}/v1"
        process = start("serve", "--data", str(notes), "--port", "0", "--llm-url", endpoint, "--llm-model", "m")
        url = until(process, r"http://\S+")[0]
        until(process, r"all 2 documents are searchable")
        told = niru("query", "Which module has a priority queue?", "--url", url)
    assert told.returncode == 1
    assert told.stdout.endswith("The heapq\n")
    assert "the answer is not complete" in told.stderr


def test_spans_are_sent_to_a_collector(start: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra `otel`")
    with scripted_servers() as scripted:
        collector = scripted(in_order(Reply((b"",), headers={"Content-Type": "application/x-protobuf"})))
        (tmp_path / "niru.toml").write_text('[observe]\ntraces = "otlp"\n')
        process = start("--config", "niru.toml", "serve", "--port", "0", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        url = until(process, r"http://\S+")[0]
        until(process, r"ready after")
        assert requests.post(f"{url}/stream/query", json={"query": "priority queue"}, timeout=10).ok
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert {request.path for request in collector.requests} == {"/v1/traces"}
    sent = b"".join(request.body for request in collector.requests)
    assert all(name in sent for name in (b"niru.query", b"POST /stream/query", b"niru.encode_batch", b"niruhybrid"))
    assert b"priority queue" not in sent


def test_a_server_is_put_under_load_and_watched(
    start: Callable[..., Any], niru: Run, notes: Path, tmp_path: Path
) -> None:
    process = start("serve", "--data", str(notes), "--port", "0")
    url = until(process, r"http://\S+")[0]
    until(process, r"all 2 documents are searchable")
    (tmp_path / "trace.csv").write_text("at\n0\n0.1\n0.2\n9\n")
    arguments = ("--trace", "trace.csv", "--seconds", "0.5", "--ingest", str(notes), "--ingest-rate", "20")
    done = niru("bench", "--url", url, *arguments, "--json", "found.json", "--plot", "found.svg")
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert done.stdout.startswith("query   3 sent, 3 whole")
    found = orjson.loads((tmp_path / "found.json").read_bytes())
    assert found["query"]["complete"] == 3
    assert found["ingest"]["complete"] == found["ingest"]["sent"] > 0
    assert (tmp_path / "found.svg").read_text().startswith("<?xml")
    watched = niru("top", "--url", url, "--count", "1", "--every", "0.1")
    assert (watched.returncode, watched.stderr.strip()) == (0, "")
    assert "2 documents" in watched.stdout
    assert "3 answers whole" in watched.stdout
    unwritable = niru("bench", "--url", url, "--seconds", "0.1", "--json=absent/found.json")
    assert unwritable.returncode == 1
    assert "niru: --json 'absent/found.json': No such file or directory" in unwritable.stderr


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


def test_what_a_server_has_loaded_is_no_garbage_to_be_looked_at(start: Callable[..., Any], notes: Path) -> None:
    """A collection that looks at all of it stops every thread for a tenth of a second."""
    told = "import atexit, gc; atexit.register(lambda: print('left:', gc.get_freeze_count(), gc.isenabled())); "
    process = start("serve", "--data", str(notes), "--port", "0", first=told)
    until(process, r"all 2 documents are searchable")
    process.send_signal(signal.SIGTERM)
    left = until(process, r"left: (\d+) (\w+)")
    assert int(left[1]) > 10_000
    assert left[2] == "True"


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
