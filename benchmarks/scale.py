"""Where does it bend, and what is to be bought: one machine, ten replicas, a hundred; ten million documents, a billion?

Two answers that are held against each other. `scaling/capacity.py` reckons with the figures that other benchmarks have
measured (`benchmarks/results/`; what is not there yet is named in `absent`). `scaling/fleet.py` drives 1, 10 and 100 of
the project's own schedulers through simulated time, at the cost that was measured, behind four kinds of router: shares
of their capacity at random moments and, from `$NIRU_EVAL_DATA`, as people asked a language model in the Azure LLM
inference trace of 2023; documents without end beside; the death of a replica; an autoscaler. While it runs every
scheduler's counters are added up, and no query may wait behind bulk for more than two batches.

`scaling/checks.py` puts the loads of `scheduler.py` and `load.py` on one simulated replica: a median or a rate that is
off by more than a quarter fails the run, a 99th percentile by more than a half. The same seed gives the same figures.

    NIRU_EVAL_DATA=folder python benchmarks/scale.py    # about 2 minutes on one core
    python benchmarks/scale.py --quick                  # a look, without the trace; nothing is written
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder: a test imports the same modules from the root

from benchmarks import _report  # noqa: E402  # after the line about sys.path
from benchmarks.scaling import capacity, measured, report, scenarios, waiting  # noqa: E402  # the same
from benchmarks.scaling.arrivals import Trace, read_trace  # noqa: E402  # the same
from benchmarks.scaling.checks import Check, checks  # noqa: E402  # the same

ROWS = 100_000  # passages in the store of each simulated replica
SIZES = {"10M": 1e7, "100M": 1e8, "1B": 1e9}
QUERIES = 10_000.0  # a second
SMALL = capacity.Machine(cores=2, memory=8e9)
LARGE = capacity.Machine()
TRACE = ("replay", "azure_llm_2023_conv.csv.gz")
CORES, SHARES, CUSTOMERS = (1, 8, 32), (0.5, 0.7, 0.8, 0.9), 100_000


def reckoned(known: measured.Measured) -> dict[str, Any]:
    """Return what the formulas say."""
    wanted = {size: capacity.Wanted(documents, QUERIES) for size, documents in SIZES.items()}
    plans = {size: capacity.plan(known, each, LARGE) for size, each in wanted.items()}
    return {
        "planned": LARGE.planned,
        "bends": capacity.bends(known, SMALL),
        "plans": {size: each._asdict() | {"cores": each.cores} for size, each in plans.items()},
        "sensitivity": {
            size: {
                name: {"half": half, "twice": twice, "bottleneck_half": low, "bottleneck_twice": high}
                for name, half, twice, low, high in capacity.sensitivity(known, each, LARGE)
            }
            for size, each in wanted.items()
        },
    }


def store_waits(customers: int) -> list[dict[str, Any]]:
    """Return how long searches wait for a core of the store, by the formula and simulated."""
    figures = _result("store")["100000"]["figures"]
    service = figures["query p50, ms"] / 1000
    spread = waiting.spread_of(figures["query p50, ms"], figures["query p99, ms"])
    rows: list[dict[str, Any]] = []
    for cores in CORES:
        for share in SHARES:
            mean, p99, variation = waiting.simulated_waits(cores, share, service, spread, customers, seed=cores)
            formula = waiting.mean_wait(cores, share, service, variation)
            row = {"cores": cores, "share": share}
            rows.append(row | {"formula_ms": formula * 1e3, "mean_ms": mean * 1e3, "p99_ms": p99 * 1e3})
    return rows


def simulated(known: measured.Measured, scale: scenarios.Scale, trace: Trace | None) -> dict[str, Any]:
    """Return what became of every load; without a trace, of those at random moments."""
    bench = scenarios.bench(known, ROWS, scale)
    parts: dict[str, Any] = {"capacity_per_s": bench.capacity}
    plain = {"ladder": scenarios.ladder, "loss": scenarios.loss, "scaling": scenarios.scaling, "split": scenarios.split}
    for name, part in plain.items():
        began = time.monotonic()
        parts[name] = part(bench)
        print(f"   {name}: {time.monotonic() - began:.0f} s", flush=True)
    if trace is not None:
        parts["bursts"] = scenarios.bursts(bench, trace)
    return parts


def main() -> int:
    """Reckon, simulate, compare; return how many figures are too far off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short runs; nothing is written")
    given = parser.parse_args()
    began = time.monotonic()
    trace = None if given.quick else read_trace(_report.eval_data(*TRACE))
    known = measured.read()
    found = checks(known, _result("scheduler"), _result("load"), seconds=8.0 if given.quick else 40.0)
    results = {
        "question": __doc__.splitlines()[0],
        "machine": _report.machine(("niruhybrid", "numpy")),
        "measured": asdict(known) | {"absent": known.absent},
        "checks": {check.what: {**check._asdict(), "ratio": check.ratio} for check in found},
        "most_off": {name: max(_off(check) for check in part) for name, part in _parted(found).items()},
        **reckoned(known),
        "store_waits": store_waits(CUSTOMERS // (20 if given.quick else 1)),
        "simulated": simulated(known, scenarios.QUICK if given.quick else scenarios.Scale(), trace),
        "seconds": round(time.monotonic() - began, 1),
    }
    report.show(results)
    off = [check for check in found if check.far_off]
    for check in off:
        print(f"too far off: {check.what}, {check.simulated:.1f} simulated, {check.measured:.1f} measured")
    if not given.quick:
        _report.write("scale", report.keyed(results))
        report.draw(results, _report.RESULTS / "scale.svg")
    return len(off)


def _parted(found: list[Check]) -> dict[str, list[Check]]:
    """Return the checks in three parts: of the scheduler alone, and of a server, its tail by itself."""
    ours, server = ([each for each in found if each.what.startswith(who)] for who in ("20 ms encoder", "server"))
    return {
        "scheduler": ours,
        "server": [each for each in server if "p99" not in each.what],
        "server_p99": [each for each in server if "p99" in each.what],
    }


def _off(check: Check) -> float:
    """Return by what share of what was measured a simulated figure is off."""
    return abs(check.ratio - 1.0)


def _result(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((_report.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    sys.exit(main())
