"""A look at a server, which changes nothing: is it there, and fit for a store."""

import time
from dataclasses import dataclass

from niruhybrid.config import StoreConfig
from niruhybrid.retrieval.postgres.connection import connected

__all__ = ("Server", "look")

_SEEN = """
SELECT current_setting('server_version'),
    coalesce(
        (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
        (SELECT default_version FROM pg_available_extensions WHERE name = 'vector')
    ),
    NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off' AND CASE
        WHEN to_regclass('niru.state') IS NULL THEN has_database_privilege(current_database(), 'CREATE')
        ELSE has_table_privilege('niru.state', 'UPDATE') AND has_table_privilege('niru.passages', 'INSERT') END,
    current_setting('fsync') = 'on',
    to_regclass('niru.state') IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Server:
    """What a look has shown.

    Attributes:
        version: of PostgreSQL.
        vectors: version of pgvector, there or to be had; None without it.
        writable: whether the user may write, or make the tables.
        synced: whether the server waits for its disk.
        documents: how many there are; None without tables.
        seconds: that a question and its answer took.
    """

    version: str
    vectors: str | None
    writable: bool
    synced: bool
    documents: int | None
    seconds: float


def look(config: StoreConfig) -> Server:
    """Look at the server of a store.

    Raises:
        InvalidSettingError: the URL is not one.
        StoreUnreachableError: it can't be reached.
        StoreError: it refuses to answer.
    """
    with connected(config) as connection:
        [version, vectors, writable, synced, there] = connection.execute(_SEEN).fetchone() or ()
        began = time.monotonic()
        [documents] = (
            connection.execute("SELECT documents FROM niru.state" if there else "SELECT NULL").fetchone() or ()
        )
        return Server(version, vectors, writable, synced, documents, time.monotonic() - began)
