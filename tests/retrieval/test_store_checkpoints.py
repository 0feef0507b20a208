"""What a store keeps beside its log, and what it does when that is gone, damaged or of another time."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from niruhybrid.retrieval.recovery import Recovery
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.types import Document, IndexEntry, SearchRequest, Vector

COUNT = 2500
DIM = 16


def vector(seed: int) -> Vector:
    made: Vector = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
    return made


def entry(n: int, *more: str) -> IndexEntry:
    metadata = {"n": n, "third": n % 3, "tags": [f"t{n % 5}", None], "deep": {"name": f"N{n % 7}"}}
    return IndexEntry(Document(f"d{n}", f"text {n}", metadata=metadata), vector(n), ["common", f"w{n}", *more])


def answers(store: EmbeddedStore) -> list[tuple[tuple[str, float], ...]]:
    requests = [
        SearchRequest(vector(7), ["w8", "common"], 20),
        SearchRequest(None, ["w40", "late", "common"], 20),
        SearchRequest(vector(9), ["common"], 20, filter={"range": {"n": {"gte": 100, "lt": 2600}}}),
        SearchRequest(vector(9), ["common"], 20, filter={"and": [{"eq": {"tags": "t2"}}, {"eq": {"deep.name": "N3"}}]}),
    ]
    return [tuple((hit.id, round(hit.score, 5)) for hit in found.hits) for found in store.search(requests)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with EmbeddedStore(tmp_path / "store.niru") as store:
        store.upsert([entry(n) for n in range(COUNT)])
        store.delete(["d3", "d2499"])
    return tmp_path / "store.niru"


def files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.index-*"))


def rebuilt(path: Path, folder: Path) -> list[tuple[tuple[str, float], ...]]:
    """Return what a store answers whose indexes are all made from the log."""
    shutil.copy(path, folder / "copy")
    with EmbeddedStore(folder / "copy") as store:
        assert store.recovery.checkpoint is None
        return answers(store)


def test_a_large_store_is_opened_from_its_checkpoint(path: Path, tmp_path: Path) -> None:
    expected = rebuilt(path, tmp_path)
    with EmbeddedStore(path) as store:
        assert (store.recovery.checkpoint or 0) > 0
        assert (store.recovery.added, store.recovery.problem) == (0, "")
        assert store.count() == COUNT - 2
        assert answers(store) == expected


def test_what_came_after_the_checkpoint_is_caught_up_with(path: Path, tmp_path: Path) -> None:
    with EmbeddedStore(path) as store:
        store.upsert([entry(n, "late") for n in (5, 40, 9000)])
        assert store.delete(["d50", "d51"])[0] == 2
        expected = answers(store)
    assert len(files(path)) == 1
    with EmbeddedStore(path) as store:
        assert (store.recovery.checkpoint or 0) > 0
        assert (store.recovery.added, store.recovery.problem) == (3, "")
        assert store.recovery.removed >= 4
        assert answers(store) == expected == rebuilt(path, tmp_path)
        store.upsert([entry(40, "later")])
        assert store.count() == COUNT - 3


def damaged(path: Path) -> Iterator[tuple[str, bytes]]:
    content = path.read_bytes()
    yield "cut", content[: len(content) // 2]
    yield "empty", b""
    yield "old format", b"NIRUIX00" + content[8:]
    yield "header", content[:60] + b"\xa5" * 8 + content[68:]
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.999):
        at = int(len(content) * share)
        yield f"a byte at {share}", content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_never_used_and_told(path: Path, tmp_path: Path) -> None:
    expected = rebuilt(path, tmp_path)
    [file] = files(path)
    for what, content in list(damaged(file)):
        [present] = files(path)
        present.write_bytes(content)
        with EmbeddedStore(path) as store:
            assert store.recovery.checkpoint is None, what
            assert store.recovery.added == COUNT - 2
            assert "built from the log" in store.recovery.problem
            assert answers(store) == expected


def test_a_missing_checkpoint_is_told_and_written_again(path: Path) -> None:
    files(path)[0].unlink()
    with EmbeddedStore(path) as store:
        assert "not used" in store.recovery.problem
    with EmbeddedStore(path) as store:
        assert store.recovery == Recovery(2, 0, 0, "")


@pytest.mark.slow
def test_a_log_put_back_does_not_meet_a_checkpoint_of_another_history(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "backup")
    with EmbeddedStore(path) as store:
        store.upsert([entry(n, "lost") for n in range(3000, 6000)])
    shutil.copy(tmp_path / "backup", path)
    with EmbeddedStore(path) as store:
        assert "not used" in store.recovery.problem
        store.upsert([entry(n, "kept") for n in range(7000, 9000)])
        assert store.search([SearchRequest(None, ["lost"])])[0].hits == ()
        assert store.count() == COUNT - 2 + 2000


@pytest.mark.slow
def test_only_the_newest_checkpoint_is_kept(path: Path) -> None:
    path.with_name(f"{path.name}.index-000000000001-aaaaaaaa.draft").write_bytes(b"left by a killed process")
    with EmbeddedStore(path) as store:
        store.upsert([entry(n) for n in range(3000, 6000)])
    assert len(files(path)) == 1


def test_a_small_store_needs_no_checkpoint(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "store") as store:
        store.upsert([entry(1)])
    assert files(tmp_path / "store") == []


def test_a_store_with_brackets_in_its_name_leaves_the_index_of_another_alone(tmp_path: Path) -> None:
    paths = [tmp_path / "notes1.db", tmp_path / "notes[1].db"]
    for path in (*paths, paths[1]):
        with EmbeddedStore(path) as store:
            store.upsert([IndexEntry(Document(f"d{n}", "x"), vector(0), ["x"]) for n in range(1100)])
    assert [len(list(tmp_path.glob(f"{name}.index-*"))) for name in ("notes1.db", "notes[[]1[]].db")] == [1, 1]
