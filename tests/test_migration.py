"""From one store to another and back: nothing is lost, nothing is encoded again, and what is not the same is said."""

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from niruhybrid.errors import StoreError
from niruhybrid.migration import Movable, move
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, IndexEntry, SearchRequest
from tests.servers.postgres import PostgresServer

ENCODER = HashEncoder(dimension=16)


def entry(name: str, text: str, **more: Any) -> IndexEntry:
    return IndexEntry(Document(name, text, **more), ENCODER.encode([text])[0], ENCODER.terms(text))


def filled() -> EmbeddedStore:
    """Return a store of 510 documents, more than are moved at once, one of several passages, some odd."""
    store = EmbeddedStore()
    store.upsert([entry(f"d{n}", f"word{n} river", metadata={"n": n}) for n in range(510)])
    store.upsert([replace(entry("ä", f"part {n} ", title="T"), part=n, start=7 * n) for n in range(5)])
    vector = ENCODER.encode(["v"])[0]
    store.upsert([IndexEntry(Document("blank", "", embedding=vector), vector, ["a\0b", "x", "x"])])
    store.upsert([entry("odd", "“\0” 日本", metadata={"deep": {"\0": ["\x01", None, 1.0]}})])
    return store


def everything(store: Movable) -> list[IndexEntry]:
    found = store.entries(10_000)
    assert [(one.document.id, one.part) for one in found] == sorted((one.document.id, one.part) for one in found)
    return found


def assert_same(one: Movable, other: Movable) -> None:
    ours, theirs = everything(one), everything(other)
    assert [(a.document, a.part, a.start, a.terms) for a in ours] == [
        (b.document, b.part, b.start, b.terms) for b in theirs
    ]
    np.testing.assert_array_equal([a.vector for a in ours], [b.vector for b in theirs])


class Interrupted:
    """A store that fails after so many writes."""

    def __init__(self, store: EmbeddedStore, writes: int) -> None:
        self._store = store
        self._left = writes
        self.entries = store.entries

    def upsert(self, entries: Sequence[IndexEntry], /) -> int:
        self._left -= 1
        if self._left < 0:
            raise StoreError("no more")
        return self._store.upsert(entries)


def test_all_that_a_store_has_is_moved() -> None:
    with filled() as source, EmbeddedStore() as target:
        seen: list[int] = []
        moved = move(source, target, seen.append)
        assert (moved.contents.documents, moved.contents.passages, moved.already) == (513, 517, 0)
        assert seen == [500, 517]
        assert_same(source, target)
        request = SearchRequest(ENCODER.encode(["word3 river"])[0], ENCODER.terms("word3 river"))
        assert target.search([request])[0].hits[0] == source.search([request])[0].hits[0]


def test_an_interrupted_move_goes_on_where_it_was() -> None:
    with filled() as source, EmbeddedStore() as target:
        with pytest.raises(StoreError, match="no more"):
            move(source, Interrupted(target, 1))
        target.upsert(source.entries(10, _key(target.entries(10_000)[-1])))  # as another size of page would
        assert move(source, target).already == 510
        assert_same(source, target)
        assert move(source, target).already == 517


def test_a_target_that_has_something_else_is_left_alone() -> None:
    with filled() as source:
        for other in (entry("d3", "changed"), entry("another", "document"), entry("日", "behind all")):
            with EmbeddedStore() as target:
                target.upsert([other])
                with pytest.raises(StoreError, match="give an empty store"):
                    move(source, target)


def test_a_target_that_keeps_something_else_is_found_out() -> None:
    class Careless(Interrupted):
        def upsert(self, entries: Sequence[IndexEntry], /) -> int:
            return super().upsert([replace(one, terms=[]) for one in entries])

    with filled() as source, EmbeddedStore() as target, pytest.raises(StoreError, match="after the move"):
        move(source, Careless(target, 99))


def test_an_empty_store_is_moved() -> None:
    with EmbeddedStore() as source, EmbeddedStore() as target:
        assert move(source, target).contents.passages == 0


def _key(one: IndexEntry) -> tuple[str, int]:
    return one.document.id, one.part


@pytest.mark.integration
@pytest.mark.slow
def test_a_store_is_moved_to_postgresql_and_back(postgres_server: PostgresServer) -> None:
    from niruhybrid.retrieval.postgres import PostgresStore

    with filled() as source, PostgresStore(postgres_server.new_database()) as middle, EmbeddedStore() as target:
        assert move(source, middle).contents == move(middle, target).contents
        assert_same(source, middle)
        assert_same(source, target)


@pytest.fixture
def niru(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        program = "import sys; from niruhybrid.cli import main; sys.argv[0] = 'niru'; main()"
        return subprocess.run(
            (sys.executable, "-c", program, *words), capture_output=True, text=True, cwd=tmp_path, check=False
        )

    return run


@pytest.mark.integration
@pytest.mark.slow
def test_the_command_moves_a_file_to_a_server_and_says_what_is_there(
    postgres_server: PostgresServer, tmp_path: Path, niru: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    url = postgres_server.new_database().replace("postgres@", "postgres:s3cret@")
    with EmbeddedStore(tmp_path / "notes.db") as store:
        store.upsert([entry("a", "river"), entry("b", "lake")])
    done = niru("migrate", "notes.db", url)
    assert (done.returncode, done.stdout[:68]) == (
        0, "2 documents in 2 passages are in both stores (0 passages were there ",
    ), done.stderr  # fmt: skip
    with EmbeddedStore(tmp_path / "other.db") as store:
        store.upsert([entry("c", "sea")])
    refused = niru("migrate", "other.db", url)
    assert (refused.returncode, "give an empty store" in refused.stderr) == (1, True)
    assert "s3cret" not in done.stdout + done.stderr + refused.stderr


@pytest.mark.integration
@pytest.mark.slow
def test_an_interrupted_move_says_how_to_go_on(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "notes.db") as store:
        for page in range(20):
            store.upsert([entry(f"d{page:02}-{n:03}", f"word{n} river") for n in range(500)])
    program = "import sys; from niruhybrid.cli import main; sys.argv[0] = 'niru'; main()"
    command = (sys.executable, "-c", program, "migrate", "notes.db", "copy.db")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as moving:
        assert moving.stderr is not None
        assert moving.stderr.readline() == "500 passages are there\n"
        moving.send_signal(signal.SIGINT)
        said, wrong = moving.communicate(timeout=60)
    assert (moving.returncode, said) == (130, "")
    assert "passages in the target: run the same command again to go on" in wrong.strip().splitlines()[-1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60)
    assert (done.returncode, done.stdout[:15]) == (0, "10,000 document"), done.stderr
