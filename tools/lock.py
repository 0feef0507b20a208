"""Pin every requirement again: one file for each group, with hashes, naming no package index.

Run by `make lock`. The files hold for every Python from 3.11 upward, on any platform. Each group is resolved within
the pins of those before it, so that one environment can hold them all. Pins move only when asked to:
`make lock ARGS=--upgrade`.
"""

import subprocess
import sys
from pathlib import Path

__all__ = ("main",)

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = "requirements/runtime.txt"
COMPILE = (
    "pip",
    "compile",
    "--quiet",
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-header",
    "--no-emit-index-url",
    "--no-emit-find-links",
)
GROUPS = ("build", "guide", "cluster", "dev", "docs")


def plan() -> list[tuple[str, ...]]:
    """Return the arguments of each compilation, in the order they must run in."""
    runs = [
        (*COMPILE, "--extra", "server", "pyproject.toml", "-o", RUNTIME),
        (*COMPILE, "--no-deps", "requirements/model.in", "-o", "requirements/model.txt"),
    ]
    within = ["--constraint", RUNTIME]
    for group in GROUPS:
        pins = f"requirements/{group}.txt"
        runs.append((*COMPILE, *within, "--group", group, "-o", pins))
        within += ["--constraint", pins]
    return runs


def main(extra: list[str]) -> None:
    """Compile all files; `extra` goes to each compilation.

    Raises:
        CalledProcessError: a group can't be resolved; the resolver has said why.
    """
    for arguments in plan():
        print("locking", arguments[-1], flush=True)
        subprocess.run((sys.executable, "-m", "uv", *arguments, *extra), cwd=ROOT, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
