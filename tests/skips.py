"""A pytest plugin: where CI=true, a test skipped because something is not installed fails.

Everything that tests need can be installed, and `.ci/run` does so; a skip would hide that a test never runs. What a
machine can't be given, such as a right or another kernel, may still be skipped for.
"""

import os
import re
from collections.abc import Generator

import pytest

__all__ = ("pytest_make_collect_report", "pytest_runtest_makereport")

CANT_BE_INSTALLED = re.compile(r"needs /proc|needs a mount namespace|has no wheel for Python 3\.\d+")


def forbid_skip(report: pytest.CollectReport | pytest.TestReport) -> None:
    """Turn a skip into a failure, unless it is an expected failure or for something that can't be installed."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not CANT_BE_INSTALLED.search(reason):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped where CI=true, which counts as a failure: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    forbid_skip(report)
    return report
