"""Is the store as fast, fresh and safe as it has to be, beside others, over 100,000 real texts and over a million?

`storing/corpus.py` says what the rows are, `storing/ours.py` what is measured of this store, `storing/race.py` what of
all, each in a process of its own, and `storing/contenders.py` how everyone is set up. Everything runs on one core;
writes go on while queries are timed where the table says so.

    NIRU_EVAL_DATA=folder python benchmarks/store.py            # this store at 100,000 rows, then the race
    NIRU_EVAL_DATA=folder python benchmarks/store.py 1000000    # this store at so many rows
    NIRU_EVAL_DATA=folder python benchmarks/store.py --rivals [names]  # the race, or some of it, at 100,000 rows
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


def beside(names: list[str]) -> None:
    """Measure all contenders that are installed and keep their figures."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    figures = kept.get("race", {}).get("figures", {})
    for name in names:
        if find_spec(name):
            figures[name] = race(name, ROWS)
    keep("race", figures)
    print(json.dumps(figures, indent=1))


def main(words: list[str]) -> None:
    """Run what the words ask for."""
    if words[:1] == ["--rivals"]:
        beside(words[1:] or list(CONTENDERS))
        return
    alone(int(words[0]) if words else ROWS)
    if not words:
        beside(list(CONTENDERS))


if __name__ == "__main__":
    main(sys.argv[1:])
