"""Run benchmarks in turn, each in a process of its own: `make bench`, or `make bench ARGS=encoder` for some.

A benchmark is a program in this folder that writes its figures to `benchmarks/results/`. Where a file
`requirements-NAME.in` lies beside it, it runs in an environment of its own that also has what the file lists: what it
is measured against. One that fails does not stop the others; the exit status is the number that failed.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def programs(wanted: list[str]) -> list[Path]:
    """Return the benchmarks whose name contains one of the wanted words, or all of them."""
    found = [path for path in sorted(HERE.glob("*.py")) if path.name != "run.py" and not path.name.startswith("_")]
    found.sort(key=lambda path: path.stem == "scale")  # last: it reckons with what the others have measured
    return [path for path in found if not wanted or any(word in path.stem for word in wanted)]


def interpreter(program: Path) -> str:
    """Return the Python that a benchmark runs on; make its environment first, if it needs one of its own."""
    rivals = HERE / f"requirements-{program.stem}.in"
    if not rivals.exists():
        return sys.executable
    folder = ROOT / f".venv-bench-{program.stem}"
    python, stamp = folder / "bin" / "python", folder / ".ready"
    if not stamp.exists() or stamp.read_text() != rivals.read_text():
        print(f"installing {rivals.name}", flush=True)
        subprocess.run((sys.executable, "-m", "venv", "--clear", folder), check=True)
        pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
        torch = [line for line in rivals.read_text().splitlines() if line.startswith("torch==")]
        pinned = ("runtime", "build", "model")
        for words in (
            *([torch] if torch else []),  # first and alone, or another package would choose a build for itself
            *(("--require-hashes", "--no-deps", "-r", ROOT / "requirements" / f"{name}.txt") for name in pinned),
            ("--no-deps", "--no-build-isolation", "--editable", ROOT),
            ("-r", rivals),
        ):
            subprocess.run((*pip, *words), check=True)
        stamp.write_text(rivals.read_text())
    return str(python)


def main(wanted: list[str]) -> int:
    """Run the benchmarks that are wanted and return how many of them failed."""
    failed = []
    environ = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    for path in programs(wanted):
        python = interpreter(path)
        began = time.monotonic()
        print(f"── {path.name}", flush=True)
        if subprocess.run((python, path), cwd=ROOT, check=False, env=environ).returncode:
            failed.append(path.name)
        print(f"── {path.name} took {time.monotonic() - began:.0f} s", flush=True)
    if failed:
        print("failed:", ", ".join(failed))
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
