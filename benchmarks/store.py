"""Is the store as fast, fresh and safe as it has to be, beside others, over 100,000 real texts and over a million?

`storing/corpus.py` says what the rows are, `storing/ours.py` what is measured of this store, `storing/race.py` what of
all, each in a process of its own, and `storing/contenders.py` how everyone is set up. Everything runs on one core;
writes go on while queries are timed where the table says so.

    NIRU_EVAL_DATA=folder python benchmarks/store.py            # this store at 100,000 rows, then the race
    NIRU_EVAL_DATA=folder python benchmarks/store.py 1000000    # this store at so many rows
    NIRU_EVAL_DATA=folder python benchmarks/store.py --rivals [names]  # the race, or some of it, at 100,000 rows
    NIRU_EVAL_DATA=folder python benchmarks/store.py 5000 --rivals [names]  # the same at so many, to try it
"""

import json
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)
os.environ["PYTHONPATH"] = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))  # for the children

from benchmarks import _report  # noqa: E402  # after the line about sys.path
from benchmarks.storing.contenders import CONTENDERS  # noqa: E402  # after the line about sys.path
from benchmarks.storing.ours import measure  # noqa: E402  # after the line about sys.path
from benchmarks.storing.race import race  # noqa: E402  # after the line about sys.path

ROWS = 100_000
RESULTS = _report.RESULTS / "store.json"


def keep(key: str, figures: dict[str, Any]) -> None:
    """Put figures beside those of other runs."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    versions = ("niruhybrid", "faiss-cpu", "numpy", "apsw", *CONTENDERS)
    kept[key] = {"machine": _report.machine(dict.fromkeys(versions)), "figures": figures}
    _report.write("store", kept)


def alone(rows: int) -> None:
    """Measure this store and keep its figures."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    folder = Path(tempfile.mkdtemp(prefix="niru-store-"))
    try:
        figures = measure(rows, folder)
    finally:
        shutil.rmtree(folder)
    keep(str(rows), figures)
    for name, value in figures.items():
        print(f"{name:40s} {value:12.3f}")


def beside(names: list[str], rows: int) -> None:
    """Measure all contenders that are installed and keep their figures."""
    key = "race" if rows == ROWS else f"race at {rows}"
    for name in names:
        if not find_spec(name):
            print(f"{name} is not installed: see requirements-store.in")
            continue
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        figures = kept.get(key, {}).get("figures", {}) | {name: race(name, rows)}
        keep(key, figures)  # at once: the next may take long
        print(name, json.dumps(figures[name], indent=1), flush=True)


def main(words: list[str]) -> None:
    """Run what the words ask for."""
    rows = int(words.pop(0)) if words and words[0].isdigit() else None
    if words:
        beside(words[1:] or list(CONTENDERS), rows or ROWS)
        return
    alone(rows or ROWS)
    if rows is None:
        beside(list(CONTENDERS), ROWS)


if __name__ == "__main__":
    main(sys.argv[1:])
