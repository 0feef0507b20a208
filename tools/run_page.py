"""Run every block of a Markdown page as its reader would: `python tools/run_page.py docs/guide.md`.

`python` blocks share one namespace and may await at top level; `bash` blocks run in bash; a `text` block right after
either holds what the block must print. Blocks in other languages are only shown. A page that talks to localhost:8000
finds a real server there, which has indexed two pages of this project's documentation.

Needs nothing but the library, so it also runs in an environment in which only the wheel is installed. For each block
one line of JSON is printed: its line, language and output. The first failing block ends the run.
"""

import ast
import asyncio
import contextlib
import fcntl
import inspect
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import types
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ("Block", "PageError", "main", "parse", "run")

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "localhost:8000"
READY = "ready"
READY_URL = "http://127.0.0.1:8000/readyz"
SERVED = ("guide.md", "scheduling.md")  # few, so that they are searchable soon, and nothing is refused for their sake
SERVE = (
    *("-c", "from niruhybrid.cli import main; main()", "serve"),
    *(part for name in SERVED for part in ("--data", str(ROOT / "docs" / name))),
)
PROGRAMS = str(Path(sys.executable).parent)  # where `niru` is, in whichever environment this runs
BASH = ("bash", "-euo", "pipefail", "-c")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# The guide speaks of an `encoder` and an `input_stream` that its reader already has.
BEFOREHAND = {
    "guide.md": """
from niruhybrid import HybridEncoder

encoder = HybridEncoder()


async def questions():
    for text in ("What is a buffer?", "How do I tune the timeout?", "Which errors can be retried?"):
        yield text


input_stream = questions()
"""
}


class PageError(Exception):
    """A page does not do what it says."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: what follows the opening fence, or "".
        code: the text between the fences.
        line: number of the first line of `code` in the page, from 1.
        expected: what it must print, or None.
    """

    language: str
    code: str
    line: int
    expected: str | None = None


def parse(text: str) -> list[Block]:
    """Return the blocks that are run, in order, each with the output that the page shows for it."""
    blocks: list[Block] = []
    end = 0
    for fence in FENCE.finditer(text):
        language, code = fence.groups()
        follows = not text[end : fence.start()].strip()
        if language in {"python", "bash"}:
            blocks.append(Block(language, code, text.count("\n", 0, fence.start(2)) + 1))
        elif language == "text" and blocks and follows:
            last = blocks.pop()
            blocks.append(Block(last.language, last.code, last.line, code))
        end = fence.end()
    return blocks


def run(blocks: list[Block], page: str, beforehand: str = "") -> Iterator[tuple[Block, str]]:
    """Run the blocks in order in one namespace and one event loop; yield each with what it printed.

    Raises:
        PageError: a bash block failed, or a block's output is not what the page shows.
        Exception: whatever a Python block raises; the traceback points into the page.
    """
    with _module() as namespace, asyncio.Runner() as runner:
        _run_python(Block("python", beforehand, 1), f"before {page}", namespace, runner)
        for block in blocks:
            output = _run_bash(block, page) if block.language == "bash" else _run_python(block, page, namespace, runner)
            if block.expected is not None and block.expected.strip() != output.strip():
                raise PageError(f"{page}:{block.line} printed {output!r}: the page shows {block.expected!r}")
            yield block, output


@contextlib.contextmanager
def _module() -> Iterator[dict[str, object]]:
    """Lend the namespace of a registered module, which dataclasses and pickling look up by name."""
    page = types.ModuleType("page")
    sys.modules["page"] = page
    try:
        yield page.__dict__
    finally:
        del sys.modules["page"]


def _run_python(block: Block, page: str, namespace: dict[str, object], runner: asyncio.Runner) -> str:
    padded = "\n" * (block.line - 1) + block.code
    code = compile(padded, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        outcome = types.FunctionType(code, namespace)()
        if inspect.iscoroutine(outcome):
            runner.run(outcome)
    return printed.getvalue()


def _run_bash(block: Block, page: str) -> str:
    with tempfile.TemporaryDirectory(prefix="niruhybrid-page-") as cache:  # what a command keeps for later is not kept
        environment = os.environ | {"PATH": os.pathsep.join((PROGRAMS, os.environ["PATH"])), "XDG_CACHE_HOME": cache}
        done = subprocess.run(
            (*BASH, block.code), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    if done.returncode:
        raise PageError(f"{page}:{block.line} exited with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def server() -> Iterator[None]:
    """Serve on port 8000 while the block runs; waits for another run of this program to be done with the port.

    Raises:
        PageError: the port is taken, or the server did not start.
    """
    with (Path(tempfile.gettempdir()) / "niruhybrid-port-8000.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        _refuse_taken_port()
        process = subprocess.Popen(
            (sys.executable, *SERVE),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        log: list[str] = []
        heard = threading.Event()
        reader = threading.Thread(target=_listen, args=(process, log, heard))
        reader.start()
        try:
            if not heard.wait(60) or not any(line.startswith(READY) for line in log):
                raise PageError(f"the server did not start: it said {''.join(log)!r}")
            urllib.request.urlopen(READY_URL, timeout=30).close()
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            finally:
                process.kill()
                reader.join()


def _refuse_taken_port() -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8000))
        except OSError as err:
            raise PageError("port 8000 is taken and the guide's snippets use it: stop what listens there") from err


def _listen(process: subprocess.Popen[str], log: list[str], heard: threading.Event) -> None:
    """Read the server's words until it ends, and tell when it has said that it is ready or has ended."""
    assert process.stdout is not None  # noqa: S101 - it was opened with a pipe
    with process.stdout as lines:
        for line in lines:
            log.append(line)
            if line.startswith(READY):
                heard.set()
    heard.set()


def main(page: str) -> None:
    """Run a page by its path and print one line of JSON for each block."""
    path = Path(page).resolve()
    text = path.read_text(encoding="utf-8")
    with server() if ADDRESS in text else contextlib.nullcontext():
        for block, output in run(parse(text), str(path), BEFOREHAND.get(path.name, "")):
            print(json.dumps({"line": block.line, "language": block.language, "output": output}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
