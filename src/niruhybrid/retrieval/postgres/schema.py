"""The tables of a store on PostgreSQL, all in a schema of their own, and how those of earlier versions become these.

    state      one row: what the last transaction left; its lock, taken last, is what puts writes in order
    locks      one row for each document, by a hash of its id; whoever writes the document locks this row first
    writes     which batch of rows came with which watermark, of the last hour
    passages   the texts; one row for each passage, of which most documents have one only
    settled    vectors that the index has, if there is one
    newest     those that it has not yet: to put one there takes longer than all the rest of a write
    vectors    both
    postings   how often which passage has which term; a term is a number, see `terms`

Texts are bytes: PostgreSQL's own can't hold NUL. A row's number is that of its batch, times `BATCH`, plus its place.
"""

import logging
from typing import Any

import psycopg

from niruhybrid.errors import StoreError, StoreVersionError

__all__ = ("BATCH", "COUNTED", "NEAREST", "RECOUNT", "VERSION", "prepare")

_log = logging.getLogger(__name__)

BATCH = 1 << 20
"""Rows that one batch can have."""

NEAREST = "niru.nearest"
"""The index of settled vectors; it is made when there are many, see `upkeep`."""

COUNTED = (
    "SELECT count(*) AS passages, count(*) FILTER (WHERE part = 0) AS documents, coalesce(sum(length), 0) AS terms "
    "FROM niru.passages"
)
"""The counts of `state`, from the passages themselves."""

RECOUNT = f"UPDATE niru.state SET (passages, documents, terms) = ({COUNTED})"
"""Writes these counts; a statement before it has to lock the row of `state`, or all of `passages`, against writers."""

_OPENING = 0x4E495255
"""Who has this lock makes or changes the tables."""

_VERSION_1 = """
CREATE SCHEMA IF NOT EXISTS niru;
CREATE EXTENSION IF NOT EXISTS vector;
CREATE SEQUENCE niru.batches;
CREATE TABLE niru.state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version integer NOT NULL,
    watermark bigint NOT NULL DEFAULT 0,
    passages bigint NOT NULL DEFAULT 0,
    documents bigint NOT NULL DEFAULT 0,
    terms bigint NOT NULL DEFAULT 0,
    changes bigint NOT NULL DEFAULT 0,
    dimension integer,
    parted boolean NOT NULL DEFAULT false,
    kindred boolean NOT NULL DEFAULT false
);
INSERT INTO niru.state (version) VALUES (1);
CREATE TABLE niru.writes (
    watermark bigint PRIMARY KEY,
    batch bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE niru.passages (
    row bigint PRIMARY KEY,
    owner bigint NOT NULL,
    part integer NOT NULL,
    start integer NOT NULL,
    length integer NOT NULL,
    id text COLLATE "C" NOT NULL,
    kin text,
    fields jsonb NOT NULL,
    title bytea NOT NULL,
    metadata bytea NOT NULL,
    text bytea NOT NULL,
    terms bytea NOT NULL,
    UNIQUE (id, part)
);
CREATE INDEX passages_owner ON niru.passages (owner);
CREATE INDEX passages_fields ON niru.passages USING gin (fields jsonb_path_ops);
CREATE TABLE niru.settled (row bigint PRIMARY KEY, vector vector NOT NULL);
CREATE TABLE niru.newest (row bigint PRIMARY KEY, vector vector NOT NULL);
CREATE VIEW niru.vectors AS SELECT row, vector FROM niru.settled UNION ALL SELECT row, vector FROM niru.newest;
CREATE TABLE niru.postings (
    term bigint NOT NULL,
    row bigint NOT NULL,
    count integer NOT NULL,
    length integer NOT NULL,
    PRIMARY KEY (term, row) INCLUDE (count, length)
);
"""

# Writers of version 1 could miss each other's rows, and left wrong counts. The table's lock lets those under way end.
# From then on the trigger refuses them: a writer says its version in its transaction, which those of version 1 do not.
_VERSION_2 = f"""
LOCK TABLE niru.passages IN EXCLUSIVE MODE;
CREATE UNLOGGED TABLE niru.locks (key bigint PRIMARY KEY);
{RECOUNT};
CREATE FUNCTION niru.refuse_older() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(nullif(current_setting('niru.format', true), ''), '1')::integer < OLD.version THEN
        RAISE EXCEPTION 'its tables have format %, which this process is too old to write: update niruhybrid there',
            OLD.version;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse_older BEFORE UPDATE OF watermark ON niru.state
    FOR EACH ROW EXECUTE FUNCTION niru.refuse_older();
"""

STEPS = (_VERSION_1, _VERSION_2)
"""The n-th, from 0, makes version n + 1 of version n; 0 is an empty database."""

VERSION = len(STEPS)


def prepare(connection: psycopg.Connection[Any], name: str) -> None:
    """Make the tables, or bring those of an earlier version up to this one. Several at once take turns.

    Args:
        connection: outside a transaction.
        name: how errors name the store.

    Raises:
        StoreVersionError: the tables are of a newer version.
        StoreError: texts are not UTF-8 there, or the database can't have pgvector.
        psycopg.Error: the server refuses, or is gone.
    """
    if _version(connection) == VERSION:
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_OPENING,))
        version = _version(connection)
        if version > VERSION:
            raise StoreVersionError(
                f"{name} has format {version}, this version reads up to {VERSION}: use a newer niruhybrid"
            )
        _refuse_unfit(connection, name)
        connection.execute("SET LOCAL statement_timeout = 0")  # a step goes through all passages
        for step in STEPS[version:]:
            connection.execute(step)
        connection.execute("UPDATE niru.state SET version = %s", (VERSION,))
    _log.info("store_prepared format_before=%d format=%d", version, VERSION)


def _version(connection: psycopg.Connection[Any]) -> int:
    """Return the version of the tables; 0 without any."""
    # not by `to_regclass`: within a transaction it may remember that there were none
    [there] = _one(
        connection, "SELECT EXISTS (SELECT FROM pg_tables WHERE (schemaname, tablename) = ('niru', 'state'))"
    )
    return int(_one(connection, "SELECT version FROM niru.state")[0]) if there else 0


def _refuse_unfit(connection: psycopg.Connection[Any], name: str) -> None:
    encoding, vectors = _one(
        connection,
        "SELECT current_setting('server_encoding'), EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')",
    )
    if encoding != "UTF8":
        raise StoreError(f"{name} keeps texts as {encoding}: make a database with ENCODING 'UTF8'")
    if not vectors:
        raise StoreError(f"{name} has no pgvector: install the extension `vector` on the server")


def _one(connection: psycopg.Connection[Any], query: Any) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(query).fetchone()
    return row or ()
