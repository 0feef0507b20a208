"""The decisions of the programs that make runs."""

import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from niruhybrid.settings import Settings, load_settings
from tools import figures, reference
from tools.lock import GROUPS, plan
from tools.test_pythons import VERSIONS, answer, chosen

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_each_group_is_locked_within_the_pins_of_those_before_it() -> None:
    runs = [(run[-1], [after for before, after in pairwise(run) if before == "--constraint"]) for run in plan()]
    assert [output for output, _ in runs[:2]] == ["requirements/runtime.txt", "requirements/model.txt"]
    within = ["requirements/runtime.txt"]
    for group, (output, constraints) in zip(GROUPS, runs[2:], strict=True):
        assert (output, constraints) == (f"requirements/{group}.txt", within)
        within = [*within, output]


def test_no_lock_names_an_index() -> None:
    assert all({"--no-emit-index-url", "--no-emit-find-links", "--generate-hashes"} <= set(run) for run in plan())


def test_one_python_of_each_other_supported_version_is_chosen() -> None:
    answers = [
        ("3.13", "/a/python"),
        None,
        ("3.10", "/b/python"),
        ("3.12", "/c/python"),
        ("3.13", "/d/python"),
        ("3.11", "/e"),
    ]
    assert list(chosen(answers, but="3.11").items()) == [("3.12", "/c/python"), ("3.13", "/a/python")]


def test_the_versions_that_are_tested_are_those_that_the_package_names() -> None:
    classifiers = "\n".join(PYPROJECT["project"]["classifiers"])
    assert tuple(re.findall(r"Python :: (3\.\d+)", classifiers)) == VERSIONS


def test_no_newer_python_is_refused() -> None:
    assert PYPROJECT["project"]["requires-python"] == f">={VERSIONS[0]}"


def python_that(does: str, folder: Path, name: str) -> str:
    """Write a Python of which something is not as in this one; return its path."""
    program = folder / name
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; {does}; exec(sys.argv[1])" "$2"\n', encoding="utf-8"
    )
    program.chmod(0o755)
    return str(program)


def find_python(*programs: str) -> tuple[int, str, str]:
    script = ROOT / "tools" / "find_python.sh"
    done = subprocess.run(("/bin/sh", str(script), *programs), capture_output=True, text=True, timeout=50, check=False)
    return done.returncode, done.stdout.strip(), done.stderr


@pytest.mark.integration
def test_make_takes_the_first_python_that_is_new_enough_and_can_make_environments(tmp_path: Path) -> None:
    old = python_that("sys.version_info = (3, 10, 9)", tmp_path, "old")
    bare = python_that("sys.modules['ensurepip'] = None", tmp_path, "bare")
    future = python_that("sys.version_info = (3, 15, 0)", tmp_path, "future")
    assert find_python("no-such-python", old, bare, future, sys.executable) == (0, future, "")


@pytest.mark.integration
def test_where_there_is_no_usable_python_make_says_what_is_missing(tmp_path: Path) -> None:
    old = python_that("sys.version_info = (3, 10, 9)", tmp_path, "old")
    bare = python_that("sys.modules['ensurepip'] = None", tmp_path, "bare")
    status, found, said = find_python("no-such-python", old, bare)
    assert (status, found) == (1, "")
    assert f"{old} is Python 3.10, which is too old" in said
    assert re.search(rf"{bare} is Python 3\.\d+ without .*: .* apt-get install python3\.\d+-venv", said)
    assert "install Python 3.11 or newer" in said


def test_a_program_that_is_missing_or_fails_is_no_python() -> None:
    assert answer("no-such-python") is None
    assert answer("false") is None


def test_this_python_answers_with_its_version_and_path() -> None:
    known = answer(sys.executable)
    assert known is not None
    assert known[0] == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_the_page_of_figures_is_what_the_results_say() -> None:
    assert figures.PAGE.read_text(encoding="utf-8") == figures.page()


@pytest.mark.parametrize("path", reference.PAGES, ids=lambda path: path.name)
def test_a_page_made_of_the_code_is_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == reference.PAGES[path](), "run `make reference`"


def test_every_variable_on_the_page_of_settings_is_one(caplog: pytest.LogCaptureFixture) -> None:
    rows = [row for table in reference.settings().values() for row in table]
    assert len(rows) > 30
    with caplog.at_level("WARNING"):
        assert load_settings(environ={row.variable: str(row.default) for row in rows}) == Settings()
    assert caplog.messages == []
