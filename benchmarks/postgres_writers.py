"""Do counts, deletes, scores and standing queries stay right when two processes write the same documents on PostgreSQL?

Two processes of three threads each replace, append to and delete the same 200 documents, of one to three passages,
while one of them searches and has a standing query. Before that the tables are left as version 0.1 of this package
could leave them, with counts that are wrong. Afterwards all writes are replayed in the order of their watermarks, and
the store has to be what comes out.

    python benchmarks/postgres_writers.py                # for 60 seconds, on a server of its own
    python benchmarks/postgres_writers.py --seconds 5
    python benchmarks/postgres_writers.py --url postgresql://…   # an empty database

Prints one figure a line, and ends with an error if one is not as it has to be.
"""

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import psycopg  # noqa: E402  # after the line about sys.path

from niruhybrid.errors import InvalidPassageError  # noqa: E402  # after the line about sys.path
from niruhybrid.retrieval.postgres import PostgresStore  # noqa: E402  # after the line about sys.path
from niruhybrid.testing import HashEncoder  # noqa: E402  # after the line about sys.path
from niruhybrid.types import Document, IndexEntry, Match, SearchRequest, StandingQuery  # noqa: E402  # same
from tests.servers.postgres import PostgresServer  # noqa: E402  # after the line about sys.path

ENCODER = HashEncoder()
NAMES = [f"d{n}" for n in range(200)]
THREADS = 3
WAIT = 30.0


class Write(NamedTuple):
    """A write that was acknowledged; `version` is of what it wrote, `removed` what a delete said."""

    watermark: int
    kind: str
    names: list[str]
    version: int
    removed: int


def entries(name: str, version: int, parts: range) -> list[IndexEntry]:
    """Return passages whose texts all have the same length, so that they follow any first one."""
    made = []
    for part in parts:
        text = f"common version {version:010} part {part} of {name:>5} "
        vector = ENCODER.encode([text])[0]
        made.append(IndexEntry(Document(name, text), vector, ENCODER.terms(text), part, part * len(text)))
    return made


def write(store: PostgresStore, chance: random.Random) -> Write:
    """Make one write."""
    names, version = chance.sample(NAMES, chance.choice([1, 1, 5, 20])), chance.randrange(10**9)
    kind = chance.choices(["put", "append", "delete"], [5, 2, 3])[0]
    if kind == "delete":
        removed, watermark = store.delete(names)
        return Write(watermark, kind, names, version, removed)
    if kind == "append":
        del names[1:]
    parts = range(1, 2) if kind == "append" else range(chance.choice([1, 1, 3]))
    made = [entry for name in names for entry in entries(name, version, parts)]
    return Write(store.upsert(made), kind, names, version, 0)


def work(store: PostgresStore, seed: int, until: float, writes: list[Write], errors: Counter[str]) -> None:
    """Write until a moment; an append to a document that another writer has just deleted is refused, and no error."""
    chance = random.Random(seed)
    while time.monotonic() < until:
        try:
            writes.append(write(store, chance))
        except InvalidPassageError:
            continue
        except Exception as err:  # noqa: BLE001  # any error is what is counted here
            errors[f"{type(err).__name__}: {err}"] += 1


@contextmanager
def writers(store: PostgresStore, first: int, seconds: float) -> Iterator[tuple[list[Write], Counter[str]]]:
    """Have threads write meanwhile."""
    writes, errors = list[Write](), Counter[str]()
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=work, args=(store, first + n, until, writes, errors)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield writes, errors
    finally:
        for thread in threads:
            thread.join()


def search(store: PostgresStore, seconds: float) -> tuple[int, int]:
    """Search all the time; return how many hits there were, and how many of them had a score that is not finite."""
    vector, words = ENCODER.encode(["common part"])[0], ENCODER.terms("common part unknown")
    until = time.monotonic() + seconds
    hits = wrong = 0
    while time.monotonic() < until:
        for answer in store.search([SearchRequest(None, words, 300), SearchRequest(vector, words, 300)]):
            hits += len(answer.hits)
            wrong += sum(not math.isfinite(hit.score) for hit in answer.hits)
    return hits, wrong


def replayed(writes: list[Write]) -> tuple[dict[str, tuple[int, int]], int]:
    """Return watermark and version of each document's last write, and how many deletes were told a wrong number."""
    kept: dict[str, tuple[int, int]] = {}
    lost = 0
    for one in sorted(writes, key=lambda one: (one.watermark, one.kind == "delete" and not one.removed)):
        if one.kind == "delete":
            lost += one.removed != len(kept.keys() & set(one.names))
        for name in one.names:
            if one.kind == "delete":
                kept.pop(name, None)
            else:
                kept[name] = (one.watermark, one.version)
    return kept, lost


def spoil(url: str) -> None:
    """Leave the tables as the first version could: without what later ones added, and with counts that are wrong."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS niru.locks")
        connection.execute("DROP FUNCTION IF EXISTS niru.refuse_older CASCADE")
        connection.execute("UPDATE niru.state SET version = 1, passages = -38, documents = 23, terms = -90")


def counted(url: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return passages, documents and terms as the state has them, and as they are."""
    with psycopg.connect(url) as connection:
        state = connection.execute("SELECT passages, documents, terms FROM niru.state").fetchone()
        there = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE part = 0), coalesce(sum(length), 0) FROM niru.passages"
        ).fetchone()
    return state or (), there or ()


def run(url: str, seconds: float) -> dict[str, tuple[object, bool]]:
    """Return each figure, and whether it is as it has to be."""
    with PostgresStore(url) as store:
        store.upsert([entry for name in ("first", "last") for entry in entries(name, 0, range(1))])
    spoil(url)
    spoilt = counted(url)
    heard, last = set[tuple[str, int]](), threading.Event()

    def hear(match: Match) -> None:
        heard.add((match.hit.id, match.watermark))
        if match.hit.id == "last":
            last.set()

    with PostgresStore(url) as store:
        repaired = counted(url)
        store.subscribe(StandingQuery("q", None, ["common"], 0.0, mode="lexical"), hear)
        command = [sys.executable, __file__, "--child", "--url", url, "--seconds", str(seconds)]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child,
            writers(store, 0, seconds) as (writes, errors),
        ):
            hits, not_finite = search(store, seconds)
            said, _ = child.communicate(timeout=seconds + WAIT)
        theirs, their_errors = json.loads(said)
        writes += [Write(*one) for one in theirs]
        errors.update(their_errors)
        store.upsert(entries("last", 1, range(1)))
        told = last.wait(WAIT)
        kept, lost = replayed(writes)
        there = {name: document for name in NAMES if (document := store.get([name])[0])}
        wrong = sum(f"{version:010}" not in there[name].text for name, (_, version) in kept.items() if name in there)
        unheard = sum((name, watermark) not in heard for name, (watermark, _) in kept.items())
        state, found = counted(url)
        deletes = sum(one.kind == "delete" for one in writes)
        marks = [one.watermark for one in writes if one.kind != "delete" or one.removed]
        removed, _ = store.delete([*NAMES, "first", "last"])
        return {
            "counts as an older version left them (state, there)": (spoilt, True),
            "the same once the store is opened": (repaired, repaired[0] == repaired[1]),
            "writes of both processes": (len(writes), bool(theirs)),
            "errors": (dict(errors), not errors),
            "watermarks that two writes were given": (len(marks) - len(set(marks)), len(marks) == len(set(marks))),
            "deletes": (deletes, True),
            "deletes that were lost": (lost, not lost),
            "documents that are not what the last write says": (wrong, not wrong and there.keys() == kept.keys()),
            "counts (state, there)": ((state, found), state == found),
            "hits searched meanwhile": (hits, True),
            "scores that are not finite": (not_finite, not not_finite),
            "last versions that a standing query has not heard of": (unheard, told and not unheard),
            "removed in the end, of": ((removed, len(kept) + 2), removed == len(kept) + 2),
            "counts of the empty store": (counted(url), counted(url) == ((0, 0, 0), (0, 0, 0))),
        }


def child(url: str, seconds: float) -> None:
    """Be the second process: write, and print what was written."""
    with PostgresStore(url) as store:
        with writers(store, THREADS, seconds) as (writes, errors):
            pass
        print(json.dumps([writes, errors]))


@contextmanager
def database(url: str | None) -> Iterator[str]:
    """Lend the URL of an empty database, on a server of one's own if none is given."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="niru-postgres-") as place:
        Path(place).chmod(0o711)
        with PostgresServer(Path(place) / "server") as server:
            yield server.new_database()


def main() -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--url")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.url, given.seconds)
        return 0
    with database(given.url) as url:
        figures = run(url, given.seconds)
    for name, (value, right) in figures.items():
        print(f"{'ok   ' if right else 'WRONG'}  {name}: {value}")
    return 0 if all(right for _, right in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
