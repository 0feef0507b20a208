"""The OpenAPI description against the server: requests made of it, valid and not, all answered as it says."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "15")  # for each of the paths; make it 2000 for a long look
SEED = os.environ.get("FUZZ_SEED", "1")  # the same requests in every run of the suite; change it for others

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(90 + 4 * int(EXAMPLES))]


@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed")
def test_every_answer_is_as_described(serving: Callable[..., Any], tmp_path: Path) -> None:
    server = serving(max_subscribers=0)  # a stream without an end would be waited for
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    options = ["--checks", "all", "--phases", "fuzzing", "--max-examples", EXAMPLES, "--no-color", "--seed", SEED]
    done = subprocess.run(
        [*command, "--config-file", str(HERE / "schemathesis.toml"), "run", f"{server.url}/openapi.json", *options],
        env=os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout or "Fuzzing" in done.stdout
