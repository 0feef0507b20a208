import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.skips import pytest_make_collect_report, pytest_runtest_makereport

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer

__all__ = ("pytest_make_collect_report", "pytest_runtest_makereport")  # hooks


@pytest.fixture(scope="session")
def postgres_server() -> "Iterator[PostgresServer]":
    """A PostgreSQL server for all tests that ask for one; each makes a database of its own in it."""
    from tests.servers.postgres import PostgresServer  # only where it is used

    with tempfile.TemporaryDirectory(prefix="niru-postgres-") as folder:
        Path(folder).chmod(0o711)  # for whom the server runs as, when root may not
        with PostgresServer(Path(folder) / "server") as server:
            yield server
