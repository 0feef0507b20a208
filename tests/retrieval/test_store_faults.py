"""What the store does when the file, the disk or the process fails it."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from niruhybrid.config import StoreConfig
from niruhybrid.errors import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreVersionError,
)
from niruhybrid.retrieval.salvage import Salvage, salvage
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, IndexEntry, SearchRequest

ENCODER = HashEncoder(dimension=16)


def entry(name: str, text: str) -> IndexEntry:
    return IndexEntry(Document(name, text), ENCODER.encode([text])[0], ENCODER.terms(text))


def by_words(store: EmbeddedStore, text: str) -> list[str]:
    return [hit.id for hit in store.search([SearchRequest(None, ENCODER.terms(text), 1000)])[0].hits]


def by_meaning(store: EmbeddedStore, text: str) -> list[str]:
    return [hit.id for hit in store.search([SearchRequest(ENCODER.encode([text])[0], [], 1000)])[0].hits]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.niru"


@pytest.fixture
def filled(path: Path) -> Path:
    with EmbeddedStore(path) as store:
        store.upsert([entry(f"d{n}", f"word{n} common {'filler ' * 40}") for n in range(200)])
    return path


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_reopened_store_is_as_it_was(path: Path, durability: str) -> None:
    config = StoreConfig(path=str(path), durability=durability)  # type: ignore[arg-type]  # from parametrize
    with EmbeddedStore(config=config) as store:
        store.upsert([entry("a", "river"), entry("b", "lake")])
        _, watermark = store.delete(["a"])
    with EmbeddedStore(path, config=config) as store:
        assert (store.count(), store.upsert([])) == (1, watermark)
        assert by_words(store, "river lake") == by_meaning(store, "river lake") == ["b"]
        assert store.upsert([entry("c", "sea")]) == watermark + 1


FORMAT_2 = """
    CREATE TABLE documents (
        row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, metadata BLOB NOT NULL,
        text TEXT NOT NULL, terms TEXT NOT NULL
    );
    INSERT INTO documents SELECT row, id, title, metadata, text, terms FROM passages;
    DROP TABLE passages;
    ALTER TABLE state DROP COLUMN documents;
    PRAGMA user_version = 2;
"""
FORMAT_1 = """
    ALTER TABLE vectors DROP COLUMN checksum;
    DROP TABLE checkpoint;
    UPDATE documents SET terms = replace(terms, char(31), ' ');
    PRAGMA user_version = 1;
"""


@pytest.mark.parametrize("earlier", [FORMAT_2, FORMAT_2 + FORMAT_1], ids=["2", "1"])
def test_a_store_of_an_earlier_format_is_taken_over(filled: Path, earlier: str) -> None:
    with sqlite3.connect(filled) as raw:
        raw.executescript(earlier)
    raw.close()
    for round_ in range(2):
        with EmbeddedStore(filled) as store:
            assert by_words(store, "word7") == ["d7"]
            assert len(by_words(store, "common")) == len(by_meaning(store, "common")) == 200
            assert store.count() == len(store.ids()) == 200
            assert store.upsert([]) == 1 + round_
            store.upsert([replace(entry("d7", " more"), part=1, start=len(f"word7 common {'filler ' * 40}"))])


@pytest.mark.parametrize("earlier", [FORMAT_2, FORMAT_2 + FORMAT_1], ids=["2", "1"])
def test_an_upgrade_that_finds_no_room_leaves_the_earlier_format_and_can_be_repeated(
    filled: Path, earlier: str
) -> None:
    with sqlite3.connect(filled) as raw:
        raw.executescript(f"{earlier} VACUUM;")
        [version, pages] = [raw.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "page_count")]
    raw.close()

    def limit(connection: apsw.Connection) -> None:
        connection.pragma("max_page_count", pages + 1)

    apsw.connection_hooks.append(limit)
    try:
        with pytest.raises(StoreFullError):
            EmbeddedStore(filled)
    finally:
        apsw.connection_hooks.remove(limit)
    with sqlite3.connect(filled) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (version,)
        assert raw.execute("SELECT count(*) FROM documents").fetchone() == (200,)
    raw.close()
    with EmbeddedStore(filled) as store:
        assert len(by_words(store, "common")) == store.count() == 200


def test_an_open_store_can_not_be_opened_again(path: Path) -> None:
    with EmbeddedStore(path), pytest.raises(StoreLockedError, match="open already"):
        EmbeddedStore(path)
    EmbeddedStore(path).close()


@pytest.mark.slow
def test_a_file_that_another_program_writes_to_is_reported(filled: Path) -> None:
    with EmbeddedStore(filled) as store:
        other = apsw.Connection(str(filled))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLockedError, match="another program"):
            store.upsert([entry("new", "x")])
        other.close()
        store.upsert([entry("new", "x")])


def overwrite(path: Path, start: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * size)


def test_a_damaged_header_is_reported(filled: Path) -> None:
    overwrite(filled, 0, 100)
    with pytest.raises(StoreCorruptError, match="damaged"):
        EmbeddedStore(filled)


def test_damaged_pages_are_reported(filled: Path) -> None:
    overwrite(filled, 4096, filled.stat().st_size - 4096)
    with pytest.raises(StoreCorruptError, match="damaged"):
        EmbeddedStore(filled)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
def test_a_truncated_file_is_reported(filled: Path, share: float) -> None:
    os.truncate(filled, int(filled.stat().st_size * share))
    with pytest.raises(StoreCorruptError, match="damaged"):
        EmbeddedStore(filled)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("DELETE FROM vectors WHERE row = 7", "row 7 has no vector"),
        ("UPDATE vectors SET vector = x'00' WHERE row = 7", "vector of row 7 is damaged"),
        ("UPDATE vectors SET vector = zeroblob(64) WHERE row = 7", "vector of row 7 is damaged"),
    ],
)
def test_damaged_vectors_are_reported(filled: Path, damage: str, told: str) -> None:
    with sqlite3.connect(filled) as raw:
        raw.execute(damage)
    raw.close()
    with pytest.raises(StoreCorruptError, match=told):
        EmbeddedStore(filled)


def test_what_can_be_read_of_a_damaged_store_is_saved(filled: Path, tmp_path: Path) -> None:
    with sqlite3.connect(filled) as raw:
        raw.execute("UPDATE vectors SET vector = zeroblob(64) WHERE row IN (7, 9)")
    raw.close()
    assert salvage(filled, tmp_path / "saved") == Salvage(198, 2)
    with EmbeddedStore(tmp_path / "saved") as store:
        assert by_words(store, "word7") == ["d7"]
        assert by_words(store, "word6 word8") == []
    with pytest.raises(StoreError, match="there already"):
        salvage(filled, tmp_path / "saved")


@pytest.mark.parametrize("lost", [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)], ids=str)
def test_passages_that_can_be_read_keep_their_place(path: Path, tmp_path: Path, lost: tuple[int, ...]) -> None:
    texts = ["river ", "delta ", "mouth "]
    with EmbeddedStore(path) as store:
        store.upsert([entry("other", "x")])
        store.upsert([replace(entry("a", text), part=part, start=6 * part) for part, text in enumerate(texts)])
    with sqlite3.connect(path) as raw:
        raw.executemany("UPDATE vectors SET vector = zeroblob(64) WHERE row = ?", [(part + 2,) for part in lost])
    raw.close()
    assert salvage(path, tmp_path / "saved") == Salvage(2 - (len(lost) == 3), len(lost))
    kept = [text if part not in lost else "\ufffd" * 6 for part, text in enumerate(texts)]
    while kept and "\ufffd" in kept[-1]:
        kept.pop()
    with EmbeddedStore(tmp_path / "saved") as store:
        [document] = store.get(["a"])
        assert (document.text if document else "") == "".join(kept)
        for part, text in enumerate(texts):
            hits = store.search([SearchRequest(None, ENCODER.terms(text))])[0].hits
            assert [hit.span for hit in hits] == ([] if part in lost else [(6 * part, 6 * part + 6)])


@pytest.mark.parametrize("page", [12, 20, 30])
def test_damaged_pages_cost_the_documents_on_them(filled: Path, tmp_path: Path, page: int) -> None:
    overwrite(filled, 4096 * page, 4096)
    done = salvage(filled, tmp_path / "saved")
    assert 100 <= done.saved < 200
    assert done.saved + done.lost == 200
    with EmbeddedStore(tmp_path / "saved") as store:
        assert store.count() == done.saved == len(by_words(store, "common"))


def test_a_store_that_is_not_there_is_not_saved(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not there"):
        salvage(path, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_what_a_killed_process_had_acknowledged_is_saved(filled: Path, tmp_path: Path) -> None:
    code = """
        import os, sys
        from niruhybrid.retrieval.store import EmbeddedStore
        store = EmbeddedStore(sys.argv[1])
        store.delete(["d0"])
        os.kill(os.getpid(), 9)
    """
    assert run(code, str(filled)).returncode == -signal.SIGKILL
    assert filled.with_name(filled.name + "-wal").stat().st_size > 0
    assert salvage(filled, tmp_path / "saved") == Salvage(199, 0)


def test_of_a_file_that_can_not_be_opened_nothing_is_saved(filled: Path, tmp_path: Path) -> None:
    overwrite(filled, 0, 100)
    with pytest.raises(StoreCorruptError):
        salvage(filled, tmp_path / "saved")


def test_a_text_file_is_not_a_store(path: Path) -> None:
    path.write_text("no database\n" * 100)
    with pytest.raises(StoreCorruptError):
        EmbeddedStore(path)
    assert path.read_text() == "no database\n" * 100


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE mine (x)")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(StoreCorruptError, match="another kind"):
        EmbeddedStore(path)
    assert path.read_bytes() == before


def test_a_newer_format_is_refused(filled: Path) -> None:
    with sqlite3.connect(filled) as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(StoreVersionError, match="99"):
        EmbeddedStore(filled)


def test_a_path_that_can_not_be_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="make the folder"):
        EmbeddedStore(tmp_path / "missing" / "store")
    with pytest.raises(StoreError, match="can't be"):
        EmbeddedStore(tmp_path)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Let every database grow to 100 pages only."""

    def limit(connection: apsw.Connection) -> None:
        connection.pragma("max_page_count", 100)

    apsw.connection_hooks.append(limit)
    yield
    apsw.connection_hooks.remove(limit)


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_full_disk_leaves_the_old_state(path: Path, where: str) -> None:
    with EmbeddedStore(path if where == "file" else None) as store:
        watermark = store.upsert([entry("a", "river"), entry("b", "lake")])
        with pytest.raises(StoreFullError, match="free some disk space"):
            store.upsert([entry("a", "replaced"), *(entry(f"big{n}", f"river {n} " * 100) for n in range(500))])
        assert (store.count(), store.upsert([])) == (2, watermark)
        assert by_words(store, "river") == ["a"]
        assert sorted(by_meaning(store, "river")) == ["a", "b"]
        assert store.upsert([entry("c", "sea")]) == watermark + 1
        assert sorted(by_meaning(store, "river")) == ["a", "b", "c"]


def run(code: str, *args: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    program = [*before, sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.run(program, capture_output=True, text=True, check=False, timeout=50)  # our own code


@pytest.mark.integration
def test_a_second_process_is_told_that_the_store_is_open(path: Path) -> None:
    code = """
        import sys
        from niruhybrid.errors import StoreLockedError
        from niruhybrid.retrieval.store import EmbeddedStore
        try:
            EmbeddedStore(sys.argv[1])
        except StoreLockedError as err:
            print(err)
    """
    with EmbeddedStore(path):
        assert "open already" in run(code, str(path)).stdout


READ_ONLY = """
    import os, sys
    import numpy as np
    from niruhybrid.errors import StoreReadOnlyError
    from niruhybrid.retrieval.store import EmbeddedStore
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        EmbeddedStore(sys.argv[1])
    except StoreReadOnlyError as err:
        print("refused:", err)
"""


@pytest.mark.integration
@pytest.mark.parametrize("left", ["nothing", "the file", "the file and its claim"])
def test_a_read_only_folder_is_reported(path: Path, left: str) -> None:
    folder = Path("/tmp") / f"niru-read-only-{os.getpid()}"  # noqa: S108  # pytest's own folders are closed to others
    folder.mkdir()
    try:
        target = folder / path.name
        if left != "nothing":
            EmbeddedStore(target).close()
            target.chmod(0o444)
        beside = folder / (path.name + ".lock")
        if left == "the file":
            beside.unlink()
        elif left == "the file and its claim":
            beside.chmod(0o666)
        folder.chmod(0o555)
        result = run(READ_ONLY, str(target))
        assert "refused: store" in result.stdout, result.stderr
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


READ_ONLY_MEDIUM = """
    import subprocess, sys
    from niruhybrid.errors import StoreReadOnlyError
    from niruhybrid.retrieval.store import EmbeddedStore
    subprocess.run(["mount", "-t", "tmpfs", "none", sys.argv[1]], check=True)
    if sys.argv[2] != "nothing":
        EmbeddedStore(sys.argv[1] + "/store").close()
    subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
    try:
        EmbeddedStore(sys.argv[1] + "/store")
    except StoreReadOnlyError as err:
        print("refused:", err)
"""


@pytest.mark.integration
@pytest.mark.parametrize("left", ["nothing", "a store"])
def test_a_read_only_medium_is_reported(tmp_path: Path, left: str) -> None:
    apart = ("unshare", "--user", "--map-root-user", "--mount")
    if not shutil.which("unshare") or run("", before=apart).returncode:
        pytest.skip("needs a mount namespace of its own")
    result = run(READ_ONLY_MEDIUM, str(tmp_path), left, before=apart)
    assert "refused: store" in result.stdout, result.stderr


FULL_DISK = """
    import subprocess, sys
    import numpy as np
    from niruhybrid.errors import StoreFullError
    from niruhybrid.retrieval.store import EmbeddedStore
    from niruhybrid.types import Document, IndexEntry
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", sys.argv[1]], check=True)
    vector = np.ones(16, np.float32)
    store, kept = EmbeddedStore(sys.argv[1] + "/store"), 0
    try:
        while True:
            store.upsert([IndexEntry(Document(f"d{kept}", "x" * 5000), vector, ["x", f"t{kept}"])])
            kept += 1
    except StoreFullError:
        assert store.count() == kept > 5, kept
    store.close()
    store = EmbeddedStore(sys.argv[1] + "/store")
    assert store.count() == kept, (store.count(), kept)
    print("kept")
"""


@pytest.mark.integration
def test_a_file_system_without_room_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    apart = ("unshare", "--user", "--map-root-user", "--mount")
    if not shutil.which("unshare") or run("", before=apart).returncode:
        pytest.skip("needs a mount namespace of its own")
    result = run(FULL_DISK, str(tmp_path), before=apart)
    assert result.stdout == "kept\n", result.stderr


WRITER = """
    import sys
    from dataclasses import replace
    from niruhybrid.retrieval import dense, keeper, recovery, sieve, snapshot
    from niruhybrid.retrieval.store import EmbeddedStore
    from niruhybrid.testing import HashEncoder
    from niruhybrid.types import Document, IndexEntry
    # so small that merges, sieves, closed gaps and checkpoints go on all the time
    dense.EXACT, dense._TAIL, snapshot._UNMERGED, snapshot._FEWEST_DEAD, recovery._FEWEST = 60, 20, 50, 15, 20
    encoder, first = HashEncoder(dimension=16), int(sys.argv[2])
    store = EmbeddedStore(sys.argv[1])
    for batch in range(first, first + 100_000):
        names = [f"d{batch}-{n}" for n in range(5)]
        texts = [f"batch{batch} text{n}" for n in range(5)]
        made = zip(names, texts, encoder.encode(texts), strict=True)
        entries = [IndexEntry(Document(i, t), v, encoder.terms(t)) for i, t, v in made]
        # of every document a second passage, and of some a third, in a write of its own
        more = [replace(one, part=1, start=len(one.document.text)) for one in entries]
        store.upsert([*entries, *more])
        store.upsert([replace(one, part=2, start=2 * one.start) for one in more[::2]])
        removed = batch % 3 == 0 and store.delete([f"d{batch}-0"])
        if batch % 4 == 3 and batch - 2 >= first:
            store.delete([f"d{batch - 2}-{n}" for n in range(1, 5)])
        print(batch, flush=True)
"""


def possible(batch: int, first: int, acknowledged: int) -> list[set[str]]:
    """Return what may be there of an acknowledged batch: the next one, not acknowledged, may have removed more."""
    whole, rest = ({f"d{batch}-{n}" for n in range(batch % 3 == 0, end)} for end in (5, 1))
    removable = batch % 4 == 1 and batch >= first
    if removable and batch + 2 <= acknowledged:
        return [rest]
    return [whole, rest] if removable and batch + 2 == acknowledged + 1 else [whole]


@pytest.mark.integration
@pytest.mark.parametrize("rounds", [5, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_what_was_acknowledged_survives_kill_9(path: Path, rounds: int) -> None:
    acknowledged, before = -1, set[str]()
    for round_ in range(rounds):
        first = acknowledged + 1_000
        program = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(first)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as writer:  # our own code
            assert writer.stdout is not None
            for line in writer.stdout:
                if int(line) >= first + 10 + 37 * (round_ % 5):
                    break
            writer.send_signal(signal.SIGKILL)
            acknowledged = max([int(line), *(int(rest) for rest in writer.stdout if rest.endswith("\n"))])
        before = checked(path, first, acknowledged, before)


def checked(path: Path, first: int, acknowledged: int, before: set[str]) -> set[str]:
    """Look for what was lost and what has come back; return the ids that there are."""
    with EmbeddedStore(path) as store:
        ids = set(store.ids())
        assert {name for name in ids if int(name[1:].split("-")[0]) < first} == before
        for batch in range(first, acknowledged + 1):
            there = {f"d{batch}-{n}" for n in range(5)} & ids
            assert there in possible(batch, first, acknowledged)
            assert set(by_words(store, f"batch{batch}")) == there
        for name in sorted(name for name in ids if int(name[1:].split("-")[0]) >= first):
            [document] = store.get([name])
            assert document is not None
            batch, number = map(int, name[1:].split("-"))
            passages = {2 + (number % 2 == 0)} | ({2} if batch > acknowledged else set())  # all alike
            assert document.text in {f"batch{batch} text{number}" * count for count in passages}
        unacknowledged = {f"d{acknowledged + 1}-{n}" for n in range(5)} & ids
        assert len(unacknowledged) in {0, 4, 5}
        assert store.count() == len(ids)
        assert set(by_meaning(store, "text1")) <= ids
    return ids
