import time
from pathlib import Path

import pytest

from niruhybrid.errors import ClosedError
from niruhybrid.retrieval.log import Log
from niruhybrid.retrieval.session import State


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.niru"


def open_files(path: Path) -> list[str]:
    fds = Path("/proc/self/fd")
    if not fds.exists():
        pytest.skip("needs /proc")
    # listing the folder takes a descriptor itself, which is gone when it is read
    targets = [str(fd.readlink()) for fd in list(fds.iterdir()) if fd.is_symlink()]
    return [target for target in targets if target.startswith(str(path))]


def test_a_reader_keeps_its_state_while_another_writes(path: Path) -> None:
    log = Log(path)
    with log.read() as before:
        with log.write() as session:
            session.advance(State(1, 0, 0, None))
        with log.read() as after:
            assert (before.state.watermark, after.state.watermark) == (0, 1)
        assert next(before.execute("SELECT watermark FROM state")) == (0,)
    log.close()


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_power_safe_commit_is_synced(path: Path, durability: str) -> None:
    log = Log(path, durability)  # type: ignore[arg-type]  # from parametrize
    with log.write() as session:
        [(level,)] = session.execute("PRAGMA synchronous")
    log.close()
    assert level == {"process": 1, "power": 2}[durability]


def test_closing_lets_a_read_end_and_then_releases_the_file(path: Path) -> None:
    log = Log(path)
    with log.read() as session:
        log.close()
        assert session.ids() == []
    with pytest.raises(ClosedError), log.read():
        pass
    assert open_files(path) == []


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def filler(log: Log, watermark: int, megabytes: int) -> None:
    with log.write() as session:
        session.execute("CREATE TABLE IF NOT EXISTS filler (megabyte BLOB)")
        session.execute("DELETE FROM filler")
        session.executemany("INSERT INTO filler VALUES (zeroblob(?))", [(1 << 20,)] * megabytes)
        session.advance(State(watermark, 0, 0, None))


@pytest.mark.slow
def test_a_reader_that_never_ends_keeps_the_write_ahead_log_but_no_writer(path: Path) -> None:
    log = Log(path)
    with log.read() as session:
        for round_ in range(10):
            filler(log, round_ + 1, 8)
        assert session.state.watermark == 0
        assert next(session.execute("SELECT watermark FROM state")) == (0,)
        assert wal_of(path).stat().st_size > 64 << 20
    until, watermark = time.monotonic() + 40, 10
    while wal_of(path).stat().st_size > 64 << 20:  # it is given back once the reader has ended
        assert time.monotonic() < until
        watermark += 1
        filler(log, watermark, 8)
    log.close()
