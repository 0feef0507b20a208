"""What a skipped test counts as."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
NOT_INSTALLED = """
import pytest

def test_without_a_program():
    pytest.skip("nginx is not installed")

@pytest.mark.skipif(True, reason="needs node")
def test_with_a_mark():
    assert True

@pytest.fixture
def browser():
    pytest.skip("there is no Chromium on this machine")

def test_with_a_fixture(browser):
    assert browser
"""
NO_EXTRA = """
import pytest

pytest.importorskip("no_such_package")
"""
CANT_BE_INSTALLED = """
import pytest

def test_without_a_right():
    pytest.skip("needs a mount namespace of its own")

def test_without_a_wheel():
    pytest.skip("ray has no wheel for Python 3.14")

@pytest.mark.xfail
def test_that_is_expected_to_fail():
    assert False
"""


def summary(folder: Path, ci: str, *files: str) -> str:
    """Run pytest on files with this text and return its last line."""
    for number, text in enumerate(files):
        (folder / f"test_{number}.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.skips", "-p", "no:cacheprovider", "--no-header", "-q"]
    done = subprocess.run(
        [*command, "--continue-on-collection-errors", "-c", os.devnull, "--rootdir", str(folder), str(folder)],
        cwd=folder,
        env=os.environ | {"CI": ci, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.stdout.splitlines()[-1]


def test_where_ci_is_true_a_skip_for_what_is_not_installed_fails(tmp_path: Path) -> None:
    assert summary(tmp_path, "true", NOT_INSTALLED, NO_EXTRA).startswith("1 failed, 3 errors in")


def test_elsewhere_what_is_not_installed_is_skipped(tmp_path: Path) -> None:
    assert summary(tmp_path, "", NOT_INSTALLED, NO_EXTRA).startswith("4 skipped in")


def test_where_ci_is_true_what_cannot_be_installed_is_skipped(tmp_path: Path) -> None:
    assert summary(tmp_path, "true", CANT_BE_INSTALLED).startswith("2 skipped, 1 xfailed in")
