"""Do queries stay fast behind bulk, under overload and beside bad input, and what does the scheduler cost?

The same loads on `AsyncStreamProcessor` and on the batching of `batched`, BentoML, LitServe and Ray Serve, with the
same encoder inside each: first one that takes 20 ms a call for up to 32 texts, so that all else is the scheduler's
doing, then the real `HybridEncoder`. Each contender runs in a process of its own, each fault in a fresh one; every
answer is checked. `scheduling/loads.py` has the rows, `scheduling/contenders.py` how everyone is set up. A row of ours
that misses what is wanted fails the run.

    python -m pip install -r benchmarks/requirements-scheduler.in   # beside niruhybrid, in an environment of its own
    python benchmarks/scheduler.py                                  # about 8 minutes on a quiet machine
    python benchmarks/scheduler.py --quick --only niruhybrid,batched  # a look; nothing is written
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder: its http.py would pass for Python's own

from benchmarks.scheduling import parts, report  # noqa: E402  # after the line about sys.path
from benchmarks.scheduling.contenders import CONTENDERS  # noqa: E402  # after the line about sys.path

RESULTS = Path(__file__).parent / "results"
MARK = "@row "
LIMIT = 240  # seconds that one part of one contender may take


def child(name: str, part: str, *, quick: bool) -> None:
    """Run one part in this process and tell its rows on standard output."""
    scale = parts.QUICK if quick else parts.FULL if name == "niruhybrid" else parts.RIVAL

    def tell(row: str, figures: dict[str, Any]) -> None:
        print(MARK + json.dumps([row, figures]), flush=True)

    parts.run(name, part, scale, tell)
    sys.stdout.flush()
    os._exit(0)  # rivals leave threads that never end


def measure(name: str, part: str, *, quick: bool) -> dict[str, Any]:
    """Run one part in a fresh process and return its rows; how it ended, if not well, is a row too."""
    command = [sys.executable, __file__, "--child", name, part, *(["--quick"] if quick else [])]
    environ = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "BENTOML_DO_NOT_TRACK": "True"}
    began = time.monotonic()
    rows: dict[str, Any] = {}
    try:
        done = subprocess.run(  # our own words
            command, capture_output=True, text=True, timeout=LIMIT, env=environ, check=False
        )  # our own words
        out, err, status = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        out, err, status = (late.stdout or b"").decode(), (late.stderr or b"").decode(), -1
    for line in out.splitlines():
        if line.startswith(MARK):
            key, figures = json.loads(line.removeprefix(MARK))
            rows[key] = figures
    if status:
        last = (err.strip().splitlines() or ["no message"])[-1][:300]
        rows[f"fault_{part}" if part in parts.FAULTS else f"{part}_ended"] = {
            "error": f"the process ended with {status}: {last}"
        }
    print(f"   {name}, {part}: {time.monotonic() - began:.0f} s", flush=True)
    return rows


def facts() -> dict[str, Any]:
    """Return what the figures hold for."""
    packages = sorted(
        {package for contender in CONTENDERS.values() for package in contender.packages} | {"numpy", "openvino"}
    )
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    model = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    commit = subprocess.run(
        ("git", "rev-parse", "--short", "HEAD"),  # whichever git there is
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "machine": {
            "cpu": model[0] if model else platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "system": platform.system(),
        },
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit.stdout.strip(),
        "settings": {name: contender.setting for name, contender in CONTENDERS.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller loads; nothing is written")
    parser.add_argument("--only", help="contenders, separated by commas; nothing is written")
    parser.add_argument("--parts", help="timed, hybrid and faults, separated by commas; nothing is written")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child, quick=given.quick)
    names = given.only.split(",") if given.only else list(CONTENDERS)
    wanted = [*parts.FAULTS, "timed", "hybrid"]
    if given.parts:
        wanted = [
            part
            for part in wanted
            if part in given.parts.split(",") or ("faults" in given.parts and part in parts.FAULTS)
        ]
    began = time.monotonic()
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        rows[name] = {}
        for part in wanted:
            rows[name] |= measure(name, part, quick=given.quick)
    results = {
        "question": __doc__.splitlines()[0],
        **facts(),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "results": rows,
    }
    missed = report.show(results)
    if given.quick or given.only or given.parts:
        print(json.dumps(rows, indent=1) if given.only else "nothing written: this was not the whole run")
    else:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "scheduler.json").write_text(json.dumps(results, indent=1) + "\n")
        report.draw(results, RESULTS / "scheduler.svg")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main())
