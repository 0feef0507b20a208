"""Check for which platforms and Pythons every pinned requirement of the runtime has a wheel: run by `make lock`.

Only the index is asked; nothing is installed. docs/platforms.md says what came of it.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.test_pythons import VERSIONS

__all__ = ("PLATFORMS", "main", "without_wheel")

ROOT = Path(__file__).resolve().parent.parent
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Linux aarch64": "aarch64-manylinux_2_35",
    "macOS arm64": "aarch64-apple-darwin",
    "Windows x86-64": "x86_64-pc-windows-msvc",
}
OLDEST_MACOS = "14.0"
PINS = ("runtime", "build", "model")


def without_wheel(platform: str, version: str) -> str:
    """Return why the pins can't be installed from wheels alone on a platform, as uv names it; empty if they can."""
    pins = [argument for name in PINS for argument in ("-r", f"requirements/{name}.txt")]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--no-deps", "--only-binary=:all:"]
        wanted = ["--target", folder, "--python-platform", platform, "--python-version", version, *pins]
        environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": OLDEST_MACOS}
        done = subprocess.run(
            command + wanted, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
    return done.stderr.strip() if done.returncode else ""


def main() -> int:
    """Print a line for each platform and Python; return for how many a wheel is missing."""
    failed = 0
    for name, platform in PLATFORMS.items():
        for version in VERSIONS:
            reason = without_wheel(platform, version)
            failed += bool(reason)
            print(f"{name}, Python {version}: {reason or 'every requirement has a wheel'}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
