"""Run every benchmark in turn, each in a process of its own: `make bench`, or `make bench ARGS=encoder`.

A benchmark is a program in this folder that writes its figures to `benchmarks/results/`. One that fails does not stop
the others; the exit status is the number that failed.
"""

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def programs(wanted: list[str]) -> list[Path]:
    """Return the benchmarks whose name contains one of the wanted words, or all of them."""
    found = [path for path in sorted(HERE.glob("*.py")) if path.name != "run.py" and not path.name.startswith("_")]
    return [path for path in found if not wanted or any(word in path.stem for word in wanted)]


def main(wanted: list[str]) -> int:
    """Run the benchmarks that are wanted and return how many of them failed."""
    failed = []
    for path in programs(wanted):
        began = time.monotonic()
        print(f"── {path.name}", flush=True)
        if subprocess.run((sys.executable, path), cwd=HERE.parent, check=False).returncode:  # noqa: S603 - our own program
            failed.append(path.name)
        print(f"── {path.name} took {time.monotonic() - began:.0f} s", flush=True)
    if failed:
        print("failed:", ", ".join(failed))
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
