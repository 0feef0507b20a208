"""The snippets of docs/nats.md, against a real server and a worker."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, of_language
from tests.servers.cheap_worker import STARTED
from tests.servers.nats import NatsServer
from tools.run_page import Block, run

SNIPPETS = [fence for fence in of_language("py") if fence.page.startswith("docs/nats.md")]


@pytest.mark.integration
@pytest.mark.slow
def test_the_snippets_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats") as server:
        command = (sys.executable, "-m", "tests.servers.cheap_worker", server.url, str(tmp_path / "store.db"))
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
            try:
                assert worker.stdout is not None
                assert worker.stdout.readline() == STARTED
                code = [fence.code.replace("nats://127.0.0.1:4222", server.url) for fence in SNIPPETS]
                blocks = [Block("python", each, 1) for each in [*code, "await client.close()"]]
                said = "".join(output for _, output in run(blocks, "nats.md"))
            finally:
                worker.terminate()
    assert said.splitlines()[:2] == ["tea can be found", "tea Green tea is brewed at about 80 degrees."]
    assert said.splitlines()[2:4] == ["1 sources", "2 token"]
