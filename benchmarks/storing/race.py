"""The same loads on one contender, in a process of its own on one core: speed, freshness, writes meanwhile, kills."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.storing.contenders import CONTENDERS, Contender
from benchmarks.storing.corpus import Corpus
from benchmarks.storing.ours import times

from niruhybrid.types import IndexEntry

LIMIT = 600  # seconds that one contender may take, before it is killed
KILLS, KILL_AFTER = 3, 20  # acknowledged writes of ten rows, from which on the process is killed


def race(name: str, rows: int) -> dict[str, Any]:
    """Run the loads on one contender in a fresh process; how it ended, if not well, is told."""
    folder = Path(tempfile.mkdtemp(prefix=f"store-{name}-"))
    try:
        told = _told(("measure", name, str(rows), str(folder)), LIMIT)
        if "failed" not in told:
            told |= killed(name, rows, folder)
        return told
    finally:
        shutil.rmtree(folder)


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    return (sys.executable, "-m", __spec__.name if __name__ != "__main__" else "benchmarks.storing.race", *words)


def _told(words: tuple[str, ...], limit: float) -> dict[str, Any]:
    """Return the last line that a child prints that is a JSON object, or how it failed."""
    told: dict[str, Any] = {}
    try:
        done = subprocess.run(_command(words), capture_output=True, text=True, timeout=limit, check=False)
        out, problem = done.stdout, done.stderr.strip()[-300:] if done.returncode else ""
    except subprocess.TimeoutExpired as late:
        out, problem = (late.stdout or b"").decode(), f"not done after {limit} s"
    for line in out.splitlines():
        if line.startswith("{"):
            told |= json.loads(line)
    return told | ({"failed": problem} if problem else {})


def killed(name: str, rows: int, folder: Path) -> dict[str, Any]:
    """Kill a writer after acknowledged writes, again and again; count the acknowledged rows that are then gone."""
    acknowledged, lost = 0, 0
    for turn in range(KILLS):
        first = 2 * rows + 10_000 * turn
        words = ("write", name, str(first), str(folder))
        with subprocess.Popen(_command(words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as writer:
            assert writer.stdout is not None
            watch = threading.Timer(60, writer.kill)
            watch.start()
            batches = 0
            for line in writer.stdout:
                batches += line.startswith("ack")
                if batches == KILL_AFTER:
                    writer.send_signal(signal.SIGKILL)
                    break
            watch.cancel()
        told = _told(("count", name, str(first), str(folder), str(10 * batches)), 60)
        if "failed" in told:
            return {"after kill -9": told["failed"]}
        acknowledged, lost = acknowledged + 10 * batches, lost + told["lost"]
    return {"rows lost by kill -9": lost, "of acknowledged": acknowledged}


def measure(name: str, rows: int, folder: Path) -> None:
    """Fill a contender and time it; tell figures as they come."""
    corpus = Corpus()
    store: Contender = CONTENDERS[name](folder)
    _tell({"hybrid": store.hybrid, "ingest by 1000, rows/s": rows / _loading(store, corpus, rows)})
    began = time.perf_counter()
    store.ready()
    _tell({"indexes after it, s": time.perf_counter() - began})
    alone = times(store.search, corpus.questions)
    _tell({"query p50, ms": statistics.median(alone), "query p99, ms": float(np.quantile(alone, 0.99))})
    more = corpus.rows(rows, 3000)
    stale = 0
    for n in range(50):
        store.write([more[n]])
        question = corpus.questions[0]._replace(text=more[n].document.text[:200], vector=more[n].vector)
        question = question._replace(terms=list(more[n].terms))
        stale += more[n].document.id not in store.search(question)
    _tell({"not in the next query, of 50": stale})
    _tell(_under_writes(store, corpus, more[50:]))
    sys.stdout.flush()
    os._exit(0)  # some leave threads that never end


def _loading(store: Contender, corpus: Corpus, rows: int) -> float:
    """Fill a contender; return the seconds, without those in which rows are made up."""
    making = 0.0

    def batches() -> Iterator[Sequence[IndexEntry]]:
        nonlocal making
        for first in range(0, rows, 1000):
            began = time.perf_counter()
            batch = corpus.rows(first, min(1000, rows - first))
            making += time.perf_counter() - began
            yield batch

    began = time.perf_counter()
    store.load(batches())
    return time.perf_counter() - began - making


def _under_writes(store: Contender, corpus: Corpus, rows: Any) -> dict[str, float]:
    """Ask for ten seconds while 100 rows a second are written one by one, or as many as it can."""
    done, written, begun = threading.Event(), [0], time.monotonic()

    def write() -> None:
        for n, row in enumerate(rows):
            if done.wait(max(0.0, begun + n / 100 - time.monotonic())):
                return
            store.write([row])
            written[0] += 1

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    taken: list[float] = []
    while time.monotonic() < begun + 10:
        taken += times(store.search, [corpus.questions[len(taken) % len(corpus.questions)]])
    done.set()
    writer.join()
    return {
        "query p50 under writes, ms": statistics.median(taken),
        "query p99 under writes, ms": float(np.quantile(taken, 0.99)),
        "writes/s meanwhile": written[0] / (time.monotonic() - begun),
    }


def write(name: str, first: int, folder: Path) -> None:
    """Write ten rows at a time for ever, and say so each time."""
    corpus = Corpus()
    store: Contender = CONTENDERS[name](folder)
    for n in range(first, first + 10_000, 10):
        store.write(corpus.rows(n, 10))
        print("ack", flush=True)


def count(name: str, first: int, folder: Path, acknowledged: int) -> None:
    """Tell how many of the acknowledged rows are gone."""
    there = CONTENDERS[name](folder).ids()
    _tell({"lost": sum(f"d{n}" not in there for n in range(first, first + acknowledged))})
    sys.stdout.flush()
    os._exit(0)


def _tell(figures: dict[str, Any]) -> None:
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    _, verb, contender, number, where, *rest = sys.argv
    if verb == "measure":
        measure(contender, int(number), Path(where))
    elif verb == "write":
        write(contender, int(number), Path(where))
    else:
        count(contender, int(number), Path(where), int(rest[0]))
