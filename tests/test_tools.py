"""The decisions of the programs that make runs."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest

from niruhybrid.settings import Settings, load_settings
from tools import figures, reference
from tools.lock import GROUPS, plan
from tools.test_pythons import answer, chosen


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
