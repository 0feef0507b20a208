"""The tables of a store on PostgreSQL, all in a schema of their own, and how those of earlier versions become these.

    state      one row: what the last transaction left; its lock, taken last, is what puts writes in order
    writes     which batch of rows came with which watermark, of the last hour
    passages   the texts; one row for each passage, of which most documents have one only
    vectors    apart from the texts, so that many can be compared fast
    postings   how often which passage has which term; a term is a number, see `terms`

Texts are bytes: PostgreSQL's own can't hold NUL. A row's number is that of its batch, times `BATCH`, plus its place.
"""

from typing import Any

import psycopg

from niruhybrid.errors import StoreError, StoreVersionError

__all__ = ("BATCH", "NEAREST", "VERSION", "prepare")

BATCH = 1 << 20
"""Rows that one batch can have."""

NEAREST = "niru.nearest"
"""The index of vectors; it is made when there are many, see `nearest`."""

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
CREATE TABLE niru.vectors (row bigint PRIMARY KEY, vector vector NOT NULL);
CREATE TABLE niru.postings (
    term bigint NOT NULL,
    row bigint NOT NULL,
    count integer NOT NULL,
    length integer NOT NULL,
    PRIMARY KEY (term, row) INCLUDE (count, length)
);
"""

STEPS = (_VERSION_1,)
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
        for step in STEPS[version:]:
            connection.execute(step)
        connection.execute("UPDATE niru.state SET version = %s", (VERSION,))


def _version(connection: psycopg.Connection[Any]) -> int:
    """Return the version of the tables; 0 without any."""
    [there] = _one(connection, "SELECT to_regclass('niru.state') IS NOT NULL")
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
