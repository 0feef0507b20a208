"""`niru eval` in a process of its own, as users run it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(120)]

MakeFolder = Callable[..., Path]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

_MAIN = "from niruhybrid.cli import main; main()"
_WITHOUT = "import sys; sys.modules['ir_measures'] = None; "


@pytest.fixture
def niru_eval(tmp_path: Path) -> Run:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NIRU_")}
    environment = kept | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}

    def run(*arguments: str | Path, program: str = _MAIN) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", program, "eval", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
            cwd=tmp_path,
            env=environment,
        )

    return run


@pytest.fixture
def needs_extra() -> None:
    pytest.importorskip("ir_measures", reason="the extra `eval` is not installed")
    pytest.importorskip("matplotlib", reason="the extra `eval` is not installed")


@pytest.mark.usefixtures("needs_extra")
def test_a_table_has_a_row_for_each_mode_and_the_mean(niru_eval: Run, folder: MakeFolder) -> None:
    done = niru_eval(folder("one"), folder("two"), "--losers", "2")
    assert done.returncode == 0, done.stderr
    assert [done.stdout.count(word) for word in ("lexical", "dense")] == [5, 5]  # twice as a column of losers
    for word in ("one", "two", "mean", "nDCG@10", "R@100", "MRR@10", "not asked: 1", "1.0000"):
        assert word in done.stdout


@pytest.mark.usefixtures("needs_extra")
def test_json_and_plot(niru_eval: Run, folder: MakeFolder, tmp_path: Path) -> None:
    done = niru_eval(folder(), "--json", "--plot", "plot.svg")
    assert done.returncode == 0, done.stderr
    report = orjson.loads(done.stdout)
    assert report["collections"][0]["name"] == "small"
    assert report["mean"] == report["collections"][0]["means"]
    assert report["mean"]["hybrid"]["nDCG@10"] == 1.0
    drawn = (tmp_path / "plot.svg").read_text()
    assert drawn.startswith("<?xml")
    assert niru_eval(folder("again"), "--json", "--plot", "plot.svg").returncode == 0
    assert list((tmp_path / "cache" / "niruhybrid" / "vectors").glob("*.npy"))


@pytest.mark.usefixtures("needs_extra")
@pytest.mark.parametrize("picture", ["plot.doc", "nowhere/plot.svg"])
def test_a_picture_that_cannot_be_drawn_is_refused_before_the_work(
    niru_eval: Run, folder: MakeFolder, picture: str
) -> None:
    done = niru_eval(folder(), "--plot", picture)
    assert done.returncode == 1
    assert done.stderr.startswith(f"niru: `--plot` is {picture!r}: give a file")
    assert not done.stdout


@pytest.mark.usefixtures("needs_extra")
def test_a_bad_folder_is_one_line_that_names_file_and_line(niru_eval: Run, folder: MakeFolder) -> None:
    root = folder(qrels="q1\td1\t1\nq1\td2\n")
    done = niru_eval(root)
    assert done.returncode == 1
    assert (
        done.stderr == f"niru: {root}/qrels.tsv:2: 2 fields: give query, document and grade, with tabs between them\n"
    )


def test_a_missing_extra_is_named(niru_eval: Run, folder: MakeFolder) -> None:
    done = niru_eval(folder(), program=_WITHOUT + _MAIN)
    assert done.returncode == 1
    assert "is missing: pip install 'niruhybrid[eval]'" in done.stderr
