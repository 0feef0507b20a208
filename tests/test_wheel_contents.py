"""What the check of the wheel finds out before it is installed."""

import zipfile
from pathlib import Path

from tools.test_wheel import DATA, missing


def test_a_wheel_without_the_console_is_found_out(tmp_path: Path) -> None:
    wheel = tmp_path / "niruhybrid.whl"
    names = [f"niruhybrid/server/{name}" for name in DATA]
    for left_out, found in (([], []), (names[:1], ["static/console/index.html"])):
        with zipfile.ZipFile(wheel, "w") as archive:
            for name in sorted(set(names) - set(left_out)):
                archive.writestr(name, "")
        assert missing(wheel) == found


def test_what_a_wheel_must_have_is_there() -> None:
    server = Path(__file__).parents[1] / "src" / "niruhybrid" / "server"
    assert [name for name in DATA if not (server / name).is_file()] == []
