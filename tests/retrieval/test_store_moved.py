"""A store whose file is moved, deleted, replaced or changed by another program while it is open."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

import apsw
import pytest

from niruhybrid.errors import StoreCorruptError, StoreError
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, IndexEntry, SearchRequest

ENCODER = HashEncoder(dimension=16)


def entry(name: str, text: str = "text") -> IndexEntry:
    return IndexEntry(Document(name, text), ENCODER.encode([text])[0], ENCODER.terms(text))


def found(store: EmbeddedStore) -> set[str]:
    return {hit.id for hit in store.search([SearchRequest(None, ["text"], 100)])[0].hits}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes.db"


def rename(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    with EmbeddedStore(path.with_name("backup.db")) as store:
        store.upsert([entry("old")])
    path.with_name("backup.db").replace(path)


def move_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


@pytest.mark.parametrize("move", [rename, delete, replace, move_the_folder])
def test_nothing_is_acknowledged_once_the_file_has_been_moved(tmp_path: Path, move: Callable[[Path], None]) -> None:
    path = tmp_path / "folder" / "notes.db"
    path.parent.mkdir()
    store = EmbeddedStore(path)
    store.upsert([entry("a"), entry("b")])
    assert found(store) == {"a", "b"}
    move(path)
    for attempt in (
        lambda: store.upsert([entry("late")]),
        lambda: store.delete(["a"]),
        lambda: store.get(["a"]),
        lambda: found(store),
        store.count,
    ):
        with pytest.raises(StoreError, match="while it was open"):
            attempt()
    store.close()


def test_a_file_that_is_put_back_serves_again_with_all_it_had(path: Path) -> None:
    away = path.with_name("away.db")
    with EmbeddedStore(path) as store:
        store.upsert([entry("a")])
        path.rename(away)
        with pytest.raises(StoreError, match="put the file back"):
            store.upsert([entry("late")])
        away.rename(path)
        store.upsert([entry("b")])
        assert found(store) == {"a", "b"}
    with EmbeddedStore(path) as store:
        assert sorted(store.ids()) == ["a", "b"]


def test_a_store_that_was_moved_opens_where_it_is_with_its_last_writes(path: Path) -> None:
    away = path.with_name("away.db")
    with EmbeddedStore(path) as store:
        store.upsert([entry("a")])
        path.rename(away)
        with pytest.raises(StoreError, match=r"notes\.db-wal"):
            store.count()
    path.with_name("notes.db-wal").rename(away.with_name("away.db-wal"))
    with EmbeddedStore(away) as store:
        assert store.ids() == ["a"]


def test_a_large_store_that_was_moved_is_closed_without_an_error(path: Path) -> None:
    store = EmbeddedStore(path)
    store.upsert([entry(f"d{n}") for n in range(1100)])  # so many that it would keep its indexes in a file
    path.unlink()
    store.close()
    assert not path.exists()


def test_a_write_ahead_log_that_is_deleted_is_told_and_saved_by_closing(path: Path) -> None:
    with EmbeddedStore(path) as store:
        store.upsert([entry("a")])
        path.with_name("notes.db-wal").unlink()
        with pytest.raises(StoreError, match="close the store, which saves it"):
            store.upsert([entry("late")])
    with EmbeddedStore(path) as store:
        assert store.ids() == ["a"]


def test_a_copy_that_is_written_over_an_open_file_is_told(path: Path) -> None:
    old = path.with_name("old.db")
    with EmbeddedStore(old) as store:
        store.upsert([entry("old")])
    with EmbeddedStore(path) as store:
        store.upsert([entry(f"d{n}", "text " * 500) for n in range(100)])
    store = EmbeddedStore(path)
    store.upsert([entry("a")])
    path.write_bytes(old.read_bytes())
    for _ in range(3):
        with pytest.raises(StoreCorruptError):
            store.upsert([entry("late")])
    store.close()


def test_a_file_that_sqlite_has_made_smaller_is_no_reason_to_refuse_writes(path: Path) -> None:
    with EmbeddedStore(path) as store:
        store.upsert([entry(f"d{n}", "text " * 500) for n in range(100)])
    before = path.stat().st_size
    with EmbeddedStore(path) as store:
        store.delete([f"d{n}" for n in range(100)])
        other = apsw.Connection(str(path))
        other.execute("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
        assert path.stat().st_size < before
        store.upsert([entry("a")])
        assert found(store) == {"a"}


def test_a_new_reader_does_not_open_what_has_taken_the_place_of_the_file(path: Path) -> None:
    with EmbeddedStore(path) as store:
        store.upsert([entry("a")])
        shutil.move(path, path.with_name("away.db"))
        with pytest.raises(StoreError, match="moved or deleted"):
            found(store)
        assert not path.exists()
        os.replace(path.with_name("away.db"), path)  # noqa: PTH105  # over nothing
        assert found(store) == {"a"}


def test_changes_of_another_program_are_told_to_readers_and_writers(path: Path) -> None:
    with EmbeddedStore(path) as store:
        store.upsert([entry("a")])
        other = apsw.Connection(str(path))
        other.execute("UPDATE state SET watermark = watermark + 1")
        other.close()
        for attempt in (lambda: found(store), lambda: store.upsert([entry("b")])):
            with pytest.raises(StoreError, match="changed by another program"):
                attempt()
    with EmbeddedStore(path) as store:
        assert found(store) == {"a"}


class Terms(Sequence[str]):
    """Terms of a question that have something happen as soon as a search looks at them."""

    def __init__(self, terms: Sequence[str], happen: Callable[[], object]) -> None:
        self._terms = terms
        self._happen: Callable[[], object] | None = happen

    def __len__(self) -> int:
        return len(self._terms)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        happen, self._happen = self._happen, None
        if happen is not None:
            happen()
        return self._terms[at]


@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_document_that_is_replaced_while_a_search_ranks_is_found_as_it_is_now(path: Path, where: str) -> None:
    with EmbeddedStore(path if where == "file" else None) as store:
        store.upsert([entry("a", "text before"), entry("b", "text")])
        terms = Terms(["text"], lambda: store.upsert([entry("a", "text after")]))
        [answer] = store.search([SearchRequest(None, terms, 10)])
        assert {hit.id: hit.text for hit in answer.hits} == {"a": "text after", "b": "text"}
        assert answer.watermark == 2


def test_a_document_that_is_added_while_a_search_ranks_is_for_the_next_search(path: Path) -> None:
    with EmbeddedStore(path) as store:
        store.upsert([entry("a")])
        [answer] = store.search([SearchRequest(None, Terms(["text"], lambda: store.upsert([entry("b")])), 10)])
        assert ([hit.id for hit in answer.hits], answer.watermark) == (["a"], 1)
        assert found(store) == {"a", "b"}


def test_a_search_in_progress_outlives_the_store(path: Path) -> None:
    store = EmbeddedStore(path)
    store.upsert([entry("a")])
    [answer] = store.search([SearchRequest(None, Terms(["text"], store.close), 10)])
    assert [hit.id for hit in answer.hits] == ["a"]
    EmbeddedStore(path).close()
