"""What every benchmark writes beside its figures: the machine, the versions, the commit."""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine(packages: Iterable[str]) -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    named = [line for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    return {
        "cpu": named[0].partition(": ")[2] if named else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "commit": _commit(),
    }


def summary(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return the median of repeated runs, and their spread."""
    return {
        "median": round(statistics.median(values), digits),
        "low": round(min(values), digits),
        "high": round(max(values), digits),
        "runs": len(values),
    }


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of many samples, by linear interpolation."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def write(name: str, report: dict[str, Any]) -> Path:
    """Keep a report as `benchmarks/results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path


def eval_data(*parts: str) -> Path:
    """Return a file or folder of the evaluation data, which `NIRU_EVAL_DATA` says where to find."""
    root = os.environ.get("NIRU_EVAL_DATA")
    if not root:
        raise SystemExit("NIRU_EVAL_DATA is not set: let it name the folder of the evaluation data")
    return Path(root, *parts)


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=RESULTS.parent).stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
