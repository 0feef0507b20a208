"""Run the fast tests on each other Python, 3.11 to 3.14, that this machine has: `make test-pythons`.

Pythons are looked for on PATH and where pyenv keeps them. Each gets an environment of its own (`.venv-3.12`, say),
made by the same make rules as `.venv`, but with uv, which needs a third of pip's time. uv reads its own settings and
not pip's: where packages come from another index, name it in UV_DEFAULT_INDEX.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ("main",)

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
ASK = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2], sys.executable)"


def candidates() -> list[str]:
    """Return the programs that may be a wanted Python: names to be found on PATH, then pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return [f"python{version}" for version in VERSIONS] + [str(path) for path in pyenv.glob("versions/*/bin/python")]


def answer(program: str) -> tuple[str, str] | None:
    """Ask a program for its version and path.

    None where it does not run, such as a shim of an inactive version, or can't make environments, such as Debian's
    without the package python3-venv.
    """
    try:
        done = subprocess.run((program, "-c", ASK), capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version, _, executable = done.stdout.strip().partition(" ")
    return (version, executable) if done.returncode == 0 and executable else None


def chosen(answers: Iterable[tuple[str, str] | None], but: str) -> dict[str, str]:
    """Return the first Python of each wanted version, oldest version first, leaving out the version `but`."""
    found: dict[str, str] = {}
    for known in answers:
        if known and known[0] in VERSIONS and known[0] != but:
            found.setdefault(*known)
    return dict(sorted(found.items()))


def main(arguments: Sequence[str] = ()) -> int:
    """Run the fast tests on each other Python found; return the number of Pythons on which they failed."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    others = chosen(map(answer, candidates()), but=here)
    failed = []
    for version, executable in others.items():
        print(f"Python {version}: {executable}", flush=True)
        folder = f".venv-{version}"
        install = f"{sys.executable} -m uv pip install --quiet --compile-bytecode --python {folder}/bin/python"
        variables = (f"PYTHON={executable}", f"VENV={folder}", f"INSTALL={install}")
        make = ("make", "--no-print-directory", *variables, "fast", *arguments)
        if subprocess.run(make, cwd=ROOT, check=False).returncode:
            failed.append(version)
    print(f"other Pythons: {', '.join(others) or 'none'}; failed on: {', '.join(failed) or 'none'}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
