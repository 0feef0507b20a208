"""Only one store at a time has a file, by whatever name the file is reached."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from niruhybrid.errors import StoreError, StoreLockedError
from niruhybrid.retrieval.log import Log
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, IndexEntry

ENCODER = HashEncoder(dimension=16)


def entry(name: str) -> IndexEntry:
    return IndexEntry(Document(name, name), ENCODER.encode([name])[0], ENCODER.terms(name))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    return tmp_path / "here" / "notes.db"


@pytest.fixture
def alias(tmp_path: Path) -> Path:
    return tmp_path / "there" / "other.db"


def run(code: str, *args: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    program = [*before, sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.run(program, capture_output=True, text=True, check=False, timeout=50)


def test_a_symbolic_link_leads_to_the_same_store(path: Path, alias: Path) -> None:
    alias.symlink_to(path)
    with EmbeddedStore(alias) as store:
        store.upsert([entry("a")])
        with pytest.raises(StoreLockedError, match="open already"):
            EmbeddedStore(path)
    with EmbeddedStore(path) as store:
        assert store.ids() == ["a"]
        with pytest.raises(StoreLockedError, match="open already"):
            EmbeddedStore(alias)
    assert list(alias.parent.iterdir()) == [alias]


def test_a_relative_path_stays_what_it_was_when_the_store_was_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    with EmbeddedStore(path.name) as store:
        monkeypatch.chdir(path.parent.parent)
        store.upsert([entry("a")])
        assert store.ids() == ["a"]
        with pytest.raises(StoreLockedError):
            EmbeddedStore(path)


def test_an_open_store_can_not_be_opened_by_a_hard_link(path: Path, alias: Path) -> None:
    with EmbeddedStore(path) as store:
        alias.hardlink_to(path)
        with pytest.raises(StoreLockedError, match="open already"):
            EmbeddedStore(alias)
        store.upsert([entry("a")])
        assert store.ids() == ["a"]


def test_a_file_with_several_hard_links_is_refused(path: Path, alias: Path) -> None:
    with EmbeddedStore(path) as store:
        store.upsert([entry("a")])
    alias.hardlink_to(path)
    for name in (path, alias):
        with pytest.raises(StoreError, match="2 names"):
            EmbeddedStore(name)
    alias.unlink()
    with EmbeddedStore(path) as store:
        assert store.ids() == ["a"]


@pytest.mark.integration
@pytest.mark.parametrize("make", ["symlink_to", "hardlink_to"])
def test_another_process_is_refused_by_any_name(path: Path, alias: Path, make: str) -> None:
    code = """
        import sys
        from niruhybrid.errors import StoreError
        from niruhybrid.retrieval.store import EmbeddedStore
        try:
            EmbeddedStore(sys.argv[1])
        except StoreError as err:
            print(err)
    """
    with EmbeddedStore(path) as store:
        getattr(alias, make)(path)
        said = run(code, str(alias))
        assert "open already" in said.stdout or "2 names" in said.stdout, said.stderr
        store.upsert([entry("a")])
        assert store.ids() == ["a"]


BOUND = """
    import subprocess, sys
    from niruhybrid.errors import StoreLockedError
    from niruhybrid.retrieval.store import EmbeddedStore
    path, alias = sys.argv[1:3]
    store = EmbeddedStore(path)
    open(alias, "w").close()
    subprocess.run(["mount", "--bind", path, alias], check=True)
    try:
        EmbeddedStore(alias)
    except StoreLockedError:
        print("refused here")
    other = '''if True:
        import sys
        from niruhybrid.errors import StoreLockedError
        from niruhybrid.retrieval.backup import back_up
        from niruhybrid.retrieval.store import EmbeddedStore
        try:
            EmbeddedStore(sys.argv[1])
        except StoreLockedError:
            print("refused there")
        try:
            back_up(sys.argv[1], sys.argv[1] + ".copy")
        except StoreLockedError as err:
            print("no copy:", str(err).partition(":")[0].partition("' ")[2])
    '''
    print(subprocess.run([sys.executable, "-c", other, alias], capture_output=True, text=True).stdout.strip())
    store.close()
"""


@pytest.mark.integration
def test_a_bind_mount_of_the_file_alone_leads_to_the_same_store(path: Path, alias: Path) -> None:
    apart = ("unshare", "--user", "--map-root-user", "--mount")
    if not shutil.which("unshare") or run("", before=apart).returncode:
        pytest.skip("needs a mount namespace of its own")
    result = run(BOUND, str(path), str(alias), before=apart)
    assert result.stdout == "refused here\nrefused there\nno copy: is open under another name\n", result.stderr


@pytest.mark.integration
def test_a_refused_attempt_leaves_the_locks_of_the_open_store_in_place(path: Path, alias: Path) -> None:
    with EmbeddedStore(path) as store:
        store.upsert([entry("a")])
        alias.hardlink_to(path)
        for name in (path, alias):
            with pytest.raises(StoreError):
                EmbeddedStore(name)
        # without the locks, this program would be the last one to close the file, and remove the write-ahead log
        code = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT documents FROM state'))"
        assert run(code, str(path)).stdout == "(1,)\n"
        assert path.with_name("notes.db-wal").stat().st_size > 0
        store.upsert([entry("b")])
        assert store.count() == 2


def test_a_store_is_released_when_its_last_reader_has_ended(path: Path) -> None:
    log = Log(path)
    with log.read():
        log.close()
        with pytest.raises(StoreLockedError):
            EmbeddedStore(path)
    EmbeddedStore(path).close()


def test_a_loop_of_links_is_refused(path: Path, alias: Path) -> None:
    path.symlink_to(alias)
    alias.symlink_to(path)
    with pytest.raises(StoreError, match="can't be opened"):
        EmbeddedStore(path)
