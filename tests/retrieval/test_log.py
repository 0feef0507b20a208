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
