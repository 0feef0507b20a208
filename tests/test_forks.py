"""What becomes of parts that were made before their process forked."""

import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import asyncio, os, sys, threading, warnings
warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads, which is the subject here
from niruhybrid import Document, EmbeddedStore, ExtractiveGenerator, HybridEncoder, Pipeline, Query, StreamProcessor
from niruhybrid.errors import ClosedError
from niruhybrid.testing import HashEncoder


def in_child(call):
    "Return what a forked child prints: the result, or the error; HANGS after forty seconds."
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = f"returned {call()}"
        except BaseException as err:
            said = f"{type(err).__name__}: {err}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    killer = threading.Timer(40, os.kill, (pid, 9))
    killer.start()
    said = os.read(reading, 4000).decode()
    killer.cancel()
    os.waitpid(pid, 0)
    os.close(reading)
    print(said or "HANGS", flush=True)

"""


def said_by(program: str, folder: Path) -> list[str]:
    """Return the lines that a program prints, which runs in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM + program, str(folder / "notes.db")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


pytestmark = [pytest.mark.slow, pytest.mark.integration]


def test_a_processor_in_use_is_refused_in_the_child_and_goes_on_in_the_parent(tmp_path: Path) -> None:
    program = """
processor = StreamProcessor(HashEncoder())
processor.process_query("warm", "made in the parent")
in_child(lambda: processor.process_query("q", "asked in the child", timeout=1.0))
in_child(lambda: list(processor.process_data_stream(["a text"])))
in_child(processor.stats)
in_child(processor.close)
print(processor.process_query("q", "asked in the parent").ok)
"""
    *children, closed, parent = said_by(program, tmp_path)
    assert len(children) == 3
    for line in children:
        assert line.startswith("ClosedError: this processor was made before this process")
        assert line.endswith("make it after the fork, in each process")
    assert closed == "returned None"
    assert parent == "True"


def test_a_processor_that_was_not_used_before_works_in_every_child(tmp_path: Path) -> None:
    program = """
processor = StreamProcessor(HybridEncoder())
for _ in range(2):
    in_child(lambda: processor.process_query("q", "asked in the child").ok)
print(processor.process_query("q", "asked in the parent").ok)
"""
    assert said_by(program, tmp_path) == ["returned True", "returned True", "True"]


def test_an_embedded_store_is_refused_in_the_child_and_unharmed_in_the_parent(tmp_path: Path) -> None:
    program = """
store = EmbeddedStore(sys.argv[1])
encoder = HashEncoder()
with StreamProcessor(encoder, store=store) as processor:
    processor.process_data("a", "green tea")
    in_child(lambda: store.get(["a"]))
    in_child(lambda: store.search([]))
    in_child(lambda: store.delete(["a"]))
    in_child(store.count)
    in_child(store.ids)
    in_child(store.close)
    print(processor.process_data("b", "black tea").watermark, store.count())
store.close()
store = EmbeddedStore(sys.argv[1])
print(sorted(store.ids()))
"""
    *children, closed, written, read = said_by(program, tmp_path)
    assert len(children) == 5
    assert all(line.startswith("ClosedError: store ") and "in its parent only" in line for line in children)
    assert (closed, written, read) == ("returned None", "2 2", "['a', 'b']")


def test_a_child_that_lives_on_does_not_keep_the_store_locked(tmp_path: Path) -> None:
    program = """
store = EmbeddedStore(sys.argv[1])
reading, writing = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(writing)
    os.read(reading, 1)  # until the parent is done
    os._exit(0)
store.close()
with EmbeddedStore(sys.argv[1]) as again:
    print(again.count())
os.close(writing)
os.waitpid(pid, 0)
"""
    assert said_by(program, tmp_path) == ["0"]


def test_a_child_that_ends_as_programs_do_leaves_the_parents_write_alone(tmp_path: Path) -> None:
    program = """
store = EmbeddedStore(sys.argv[1])
with StreamProcessor(HashEncoder(), store=store) as processor:
    for number in range(20):
        processor.process_data(f"d{number}", "green tea")
        pid = os.fork()
        if pid == 0:
            sys.exit(0)  # with all that an interpreter does at its end
        assert os.waitpid(pid, 0)[1] == 0
    print(store.count(), len(processor.process_query("q", "tea", top_k=50).hits))
store.close()
print(EmbeddedStore(sys.argv[1]).count())
"""
    assert said_by(program, tmp_path) == ["20 20", "20"]


def test_a_pipeline_is_refused_in_the_child(tmp_path: Path) -> None:
    program = """
async def main():
    pipeline = Pipeline(HashEncoder(), EmbeddedStore(sys.argv[1]), ExtractiveGenerator())
    await pipeline.search(Query("q", "warm"))
    return pipeline

pipeline = asyncio.run(main())
in_child(lambda: asyncio.run(pipeline.search(Query("q", "tea"))))
in_child(lambda: asyncio.run(pipeline.get(["a"])))
in_child(lambda: asyncio.run(pipeline.aclose()))
in_child(pipeline.ready)
"""
    searched, got, closed, ready = said_by(program, tmp_path)
    assert searched.startswith("ClosedError: this pipeline was made before this process")
    assert got == searched.replace(searched.split("pid ")[1].split(")")[0], got.split("pid ")[1].split(")")[0])
    assert closed == "returned None"
    assert "made before the process was forked" in ready


def test_an_encoder_works_in_the_child_unless_it_was_encoding(tmp_path: Path) -> None:
    program = """
encoder = HybridEncoder()
in_child(lambda: encoder.encode(["green tea"]).shape)
ended = threading.Event()

def work():
    while not ended.is_set():
        encoder.encode(["green tea " * 100] * 8)

thread = threading.Thread(target=work)
thread.start()
encoder.encode(["one turn of this thread, after one of the other"])
for _ in range(5):
    in_child(lambda: encoder.encode(["green tea"]).shape)
ended.set()
thread.join()
print(encoder.encode(["green tea"]).shape)
"""
    idle, *busy, parent = said_by(program, tmp_path)
    assert idle == "returned (1, 384)"
    assert len(busy) == 5
    for line in busy:
        assert line == "returned (1, 384)" or line.startswith("ClosedError: this encoder, which was encoding")
    assert parent == "(1, 384)"
