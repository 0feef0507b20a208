"""Models from the hub, and from its local cache as others have filled it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

MakeModel = Callable[..., Path]

pytestmark = [pytest.mark.slow, pytest.mark.integration]

_NAME = "someone/tiny"
_COMMIT = "0" * 40
_PROGRAM = """
import logging, sys
from niruhybrid import HybridEncoder
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
encoder = HybridEncoder(sys.argv[1])
print("read", encoder.max_tokens, *[round(float(value), 4) for value in encoder.encode(["w1 w2 w3"])[0]])
"""


@contextmanager
def hub_with(folder: Path) -> Iterator[str]:
    """Serve a folder as the hub serves a model; yield the hub's address."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            headers = {"X-Repo-Commit": _COMMIT}
            if path.startswith(f"/api/models/{_NAME}/tree/"):
                found: Any = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha256(data).hexdigest()}
                    for name, data in files.items()
                ]
                self._answer(json.dumps(found).encode(), headers | {"Content-Type": "application/json"})
            elif path.startswith(f"/api/models/{_NAME}"):
                found = {"id": _NAME, "sha": _COMMIT, "siblings": [{"rfilename": name} for name in files]}
                self._answer(json.dumps(found).encode(), headers | {"Content-Type": "application/json"})
            elif (name := path.removeprefix(f"/{_NAME}/resolve/").partition("/")[2]) in files:
                data = files[name]
                self._answer(data, headers | {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'})
            else:
                self._answer(b"", headers | {"X-Error-Code": "EntryNotFound"}, status=404)

        def _answer(self, data: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def loaded(home: Path, model: str, hub: str | None = None) -> list[str]:
    """Return what a process says that loads a model; without a hub it has no network."""
    reached = {"HF_HUB_OFFLINE": "1"} if hub is None else {"HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1"}
    environment = os.environ | reached | {"HF_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, model], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def fill_cache_as_transformers_does(home: Path, model: Path) -> None:
    snapshot = home / "hub" / f"models--{_NAME.replace('/', '--')}" / "snapshots" / _COMMIT
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(_COMMIT)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copy(model / name, snapshot / name)


def test_a_cache_that_another_library_filled_is_completed_from_the_hub(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(pooling="cls", window=40)
    home = tmp_path / "home"
    fill_cache_as_transformers_does(home, model)
    wanted = loaded(home, str(model))
    assert wanted[-1].startswith("read 40 ")
    with hub_with(model) as hub:
        assert loaded(home, _NAME, hub) == wanted
    assert loaded(home, _NAME) == wanted  # by now without a network


def test_an_incomplete_cache_without_a_network_says_what_is_assumed(make_model: MakeModel, tmp_path: Path) -> None:
    home = tmp_path / "home"
    fill_cache_as_transformers_does(home, make_model(pooling="cls", window=40))
    incomplete, assumed, read = loaded(home, _NAME)
    assert incomplete.startswith(f"model_incomplete model={_NAME} missing=modules.json,sentence_bert_config.json,")
    assert "pooling=mean max_tokens=80: the folder has no modules.json and no sentence_bert_config.json" in assumed
    assert read.startswith("read 80 ")


def test_what_the_hub_has_not_is_asked_for_once(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(window=40)
    with hub_with(model) as hub:
        first = loaded(tmp_path / "home", _NAME, hub)
    assert first == loaded(tmp_path / "home", _NAME) == loaded(tmp_path / "home", str(model))
