"""Copies of a store that is in use: whole, one state, and never half-made."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from niruhybrid.errors import ClosedError, StoreError, StoreLockedError, StoreVersionError
from niruhybrid.retrieval.backup import back_up
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, IndexEntry, SearchRequest

ENCODER = HashEncoder(dimension=16)


def entry(name: str, text: str = "text") -> IndexEntry:
    return IndexEntry(Document(name, text), ENCODER.encode([text])[0], ENCODER.terms(text))


def found(store: EmbeddedStore) -> set[str]:
    return {hit.id for hit in store.search([SearchRequest(None, ["text"], 1000)])[0].hits}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes.db"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups" / "notes.db"


@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_copy_has_all_up_to_its_watermark_and_opens_as_a_store(path: Path, target: Path, where: str) -> None:
    with EmbeddedStore(path if where == "file" else None) as store:
        store.upsert([entry("a"), entry("b")])
        store.delete(["a"])
        made = store.backup(target)
        assert (made.watermark, made.documents, made.size) == (2, 1, target.stat().st_size)
        store.upsert([entry("late")])
    assert list(target.parent.iterdir()) == [target]
    with EmbeddedStore(target) as copy:
        assert (copy.upsert([]), found(copy), copy.recovery.problem) == (2, {"b"}, "")


@pytest.mark.slow
def test_a_copy_of_a_large_store_does_not_look_for_the_index_of_the_first(path: Path, target: Path) -> None:
    with EmbeddedStore(path) as store:
        store.upsert([entry(f"d{n}") for n in range(1100)])
    with EmbeddedStore(path) as store:
        assert store.recovery.checkpoint is not None
        store.backup(target)
    with EmbeddedStore(target) as copy:
        assert (copy.count(), copy.recovery.checkpoint, copy.recovery.problem) == (1100, None, "")


@pytest.mark.slow
def test_copies_that_are_made_beside_writes_end_and_each_is_one_state(path: Path, target: Path) -> None:
    done, written = threading.Event(), [0]

    def write() -> None:
        while not done.is_set():
            n = written[0]
            store.upsert([entry(f"a{n}"), entry(f"b{n}")])
            written[0] += 1

    with EmbeddedStore(path) as store:
        store.upsert([entry(f"first{n}", "filler " * 200) for n in range(2000)])
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for round_ in range(5):
                before, copy_of = written[0], target.with_name(f"{round_}.db")
                made = store.backup(copy_of)
                with EmbeddedStore(copy_of) as copy:
                    ids = {name for name in copy.ids() if not name.startswith("first")}
                    pairs = made.watermark - 1
                    assert before <= pairs <= written[0] + 1
                    assert ids == {f"{side}{n}" for side in "ab" for n in range(pairs)}
                    assert (copy.upsert([]), copy.count()) == (made.watermark, made.documents)
        finally:
            done.set()
            writer.join()


def taken(target: Path) -> str:
    target.write_text("mine")
    return "there already"


def left_behind(target: Path) -> str:
    target.with_name(target.name + "-wal").write_text("of another time")  # it would be read with the copy
    return "there already"


def dangling(target: Path) -> str:
    target.symlink_to(target.with_name("nowhere"))
    return "there already"


def no_folder(target: Path) -> str:
    target.parent.rmdir()
    return "make the folder"


@pytest.mark.parametrize("spoil", [taken, left_behind, dangling, no_folder])
def test_a_copy_takes_the_place_of_nothing(path: Path, target: Path, spoil: Callable[[Path], str]) -> None:
    told = spoil(target)
    before = sorted(target.parent.iterdir()) if target.parent.exists() else None
    with EmbeddedStore(path) as store:
        store.upsert([entry("a")])
        with pytest.raises(StoreError, match=told):
            store.backup(target)
    assert (sorted(target.parent.iterdir()) if target.parent.exists() else None) == before
    assert spoil is not taken or target.read_text() == "mine"


def test_a_copy_that_fails_leaves_nothing_behind(path: Path, target: Path) -> None:
    EmbeddedStore(path).close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))
    with pytest.raises(StoreError, match="damaged"):
        back_up(path, target)
    assert list(target.parent.iterdir()) == []


def test_what_is_no_store_is_not_copied(path: Path, target: Path) -> None:
    with pytest.raises(StoreError, match="is not there"):
        back_up(path, target)
    path.touch()
    with pytest.raises(StoreError, match="empty"):
        back_up(path, target)
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE mine (x)")
    raw.close()
    with pytest.raises(StoreError, match="another kind"):
        back_up(path, target)
    assert list(target.parent.iterdir()) == []


def test_a_closed_store_is_not_copied(path: Path, target: Path) -> None:
    store = EmbeddedStore(path)
    store.close()
    with pytest.raises(ClosedError):
        store.backup(target)
    assert list(target.parent.iterdir()) == []


def test_the_process_that_has_a_store_open_copies_it_itself(path: Path, target: Path) -> None:
    with EmbeddedStore(path) as store:
        store.upsert([entry("a")])
        with pytest.raises(StoreLockedError):
            back_up(path, target)
    assert back_up(path, target).documents == 1


def test_a_store_of_an_earlier_format_is_copied_as_it_is(path: Path, target: Path) -> None:
    with EmbeddedStore(path) as store:
        store.upsert([entry("a"), entry("b")])
    with sqlite3.connect(path) as raw:
        raw.executescript("""
            CREATE TABLE documents (
                row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, metadata BLOB NOT NULL,
                text TEXT NOT NULL, terms TEXT NOT NULL
            );
            INSERT INTO documents SELECT row, id, title, metadata, text, terms FROM passages;
            DROP TABLE passages;
            ALTER TABLE state DROP COLUMN documents;
            PRAGMA user_version = 2;
        """)
    raw.close()
    made = back_up(path, target)
    assert (made.watermark, made.documents) == (1, 2)
    with sqlite3.connect(target) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (2,)
    raw.close()
    with EmbeddedStore(target) as copy:
        assert found(copy) == {"a", "b"}


def test_a_store_of_a_newer_format_is_left_to_the_newer_version(path: Path, target: Path) -> None:
    EmbeddedStore(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(StoreVersionError):
        back_up(path, target)


def run(code: str, *args: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    program = [*before, sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.run(program, capture_output=True, text=True, check=False, timeout=50)


COMMAND = (sys.executable, "-c", "from niruhybrid.cli import main; main()")
SERVING = """
    import sys
    from niruhybrid.retrieval.store import EmbeddedStore
    from niruhybrid.testing import HashEncoder
    from niruhybrid.types import Document, IndexEntry
    encoder, n = HashEncoder(dimension=16), 0
    vector = encoder.encode(["text"])[0]
    store = EmbeddedStore(sys.argv[1])
    while True:
        store.upsert([IndexEntry(Document(f"d{n}", "text " * 500), vector, ["text"])])
        n += 1
        print(n, flush=True)
"""


@pytest.mark.integration
def test_a_store_that_another_process_writes_to_is_copied_by_the_command(path: Path, target: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVING), str(path)], stdout=subprocess.PIPE, text=True
    ) as serving:
        try:
            assert serving.stdout is not None
            for line in serving.stdout:
                if int(line) == 200:
                    break
            rest = threading.Thread(target=serving.stdout.read)  # or it would wait for room in the pipe
            rest.start()
            program = [*COMMAND, "backup", str(path), str(target)]
            done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=50)
            again = subprocess.run(program, capture_output=True, text=True, check=False, timeout=50)
        finally:
            serving.send_signal(signal.SIGKILL)
    rest.join()
    assert done.returncode == 0, done.stderr
    assert (again.returncode, again.stdout) == (1, "")
    assert "there already" in again.stderr
    with EmbeddedStore(target) as copy:
        count = copy.count()
        assert count >= 200
        assert set(copy.ids()) == {f"d{n}" for n in range(count)}
        assert done.stdout.startswith(f"{count:,} documents, up to watermark {count}, are in {target} (")
    # and of the store that was killed, all is there
    made = back_up(path, target.with_name("again.db"))
    with EmbeddedStore(path) as store:
        assert made.documents == store.count() >= count


IN_A_SPACE_OF_ITS_OWN = """
    import os, subprocess, sys
    from niruhybrid.errors import StoreError
    from niruhybrid.retrieval.backup import back_up
    from niruhybrid.retrieval.store import EmbeddedStore
    path, target = sys.argv[1:3]
    subprocess.run(["mount", "-t", "tmpfs", "-o", sys.argv[3], "none", os.path.dirname(target)], check=True)
    try:
        back_up(path, target)
    except StoreError as err:
        print(type(err).__name__, os.listdir(os.path.dirname(target)))
"""


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "told"),
    [("size=100k", "StoreFullError []"), ("ro", "StoreReadOnlyError []")],
    ids=["full", "read-only"],
)
def test_a_disk_that_has_no_place_for_a_copy_is_told(path: Path, target: Path, options: str, told: str) -> None:
    apart = ("unshare", "--user", "--map-root-user", "--mount")
    if not shutil.which("unshare") or run("", before=apart).returncode:
        pytest.skip("needs a mount namespace of its own")
    with EmbeddedStore(path) as store:
        store.upsert([entry(f"d{n}", "text " * 500) for n in range(200)])
    result = run(IN_A_SPACE_OF_ITS_OWN, str(path), str(target), options, before=apart)
    assert result.stdout == f"{told}\n", result.stderr
