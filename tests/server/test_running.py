"""What a server is run with: certificates, signals, sessions of its keys, logs without secrets."""

import asyncio
import io
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

from niruhybrid.config import ServerConfig
from niruhybrid.errors import InvalidSettingError
from niruhybrid.pipeline import Pipeline
from niruhybrid.server.listening import listen, open_files, tls_context
from niruhybrid.server.logs import JsonFormatter, TextFormatter
from niruhybrid.server.run import set_on_signal
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Vector

SOON = 20.0


def test_a_certificate_that_can_not_be_read_is_named_with_its_setting(tmp_path: Path) -> None:
    absent, there = str(tmp_path / "absent.pem"), tmp_path / "there.pem"
    there.write_text("no certificate")
    for cert, key, named in (
        (absent, str(there), f"`tls_cert` '{absent}'"),
        (str(there), absent, f"`tls_key` '{absent}'"),
        (str(tmp_path), str(there), f"`tls_cert` '{tmp_path}'"),
        (str(there), str(there), f"`tls_cert` '{there}' and `tls_key` '{there}'"),
    ):
        with pytest.raises(InvalidSettingError) as caught:
            listen(ServerConfig(port=0, tls_cert=cert, tls_key=key))
        assert str(caught.value).startswith(named)
    assert tls_context(ServerConfig()) is None


@pytest.mark.integration
def test_a_key_with_a_password_is_refused_and_not_asked_for(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:secret", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    with pytest.raises(InvalidSettingError, match="without a password"):
        tls_context(ServerConfig(tls_cert=str(cert), tls_key=str(key)))


def test_the_port_is_this_servers_alone() -> None:
    with listen(ServerConfig(port=0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InvalidSettingError, match=f"can't listen on 127.0.0.1:{port}"):
            listen(ServerConfig(port=port))
        assert listener.family == socket.AF_INET


def test_the_limit_on_open_files_is_known_where_there_is_one() -> None:
    found = open_files()
    assert found is None or found > 0


class WithoutSignals(asyncio.SelectorEventLoop):
    """An event loop that takes no signals, as those of Windows."""

    def add_signal_handler(self, *_: Any) -> None:  # type: ignore[override]  # takes whatever that one takes
        raise NotImplementedError

    def remove_signal_handler(self, *_: Any) -> bool:
        raise NotImplementedError


@pytest.mark.parametrize("new_loop", [asyncio.SelectorEventLoop, WithoutSignals])
@pytest.mark.skipif(sys.platform == "win32", reason="there a process can't send itself these signals")
def test_a_signal_stops_the_server_on_every_event_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def stopped(number: signal.Signals) -> None:
        stopping = asyncio.Event()
        with set_on_signal(stopping):
            signal.raise_signal(number)
            async with asyncio.timeout(SOON):
                await stopping.wait()

    def handle(*_: object) -> None:
        """Stand for a handler that another library installed."""

    numbers = (signal.SIGINT, signal.SIGTERM)
    found = {number: signal.signal(number, handle) for number in numbers}
    try:
        for number in numbers:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(stopped(number))
        assert [signal.getsignal(number) for number in numbers] == [handle, handle]
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)


class Gated(HashEncoder):
    """Encodes only once it may; tells when it has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def encode(self, texts: Sequence[str], /) -> Vector:
        self.begun.set()
        assert self.go.wait(SOON)
        return super().encode(texts)


def _offered(answer: requests.Response) -> int:
    offered: int = answer.json()["processor"]["interactive"]["offered"]
    return offered


@pytest.mark.integration
@pytest.mark.parametrize("path", ["/query", "/stream/query", "/stream/queries"])
def test_a_session_belongs_to_its_key(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline], path: str
) -> None:
    keys = {name: name * 16 for name in ("a", "b")}
    encoder = Gated()
    server = serving(
        lambda: make_pipeline(encoder=encoder), api_keys=" ".join(f"{name}:read:{key}" for name, key in keys.items())
    )
    found: dict[str, str] = {}
    asking: list[threading.Thread] = []

    def ask(who: str, name: str, **more: str) -> None:
        asked, headers = {"query": f"json {name}", **more}, {"X-API-Key": keys[who]}
        found[name] = requests.post(server.url + path, json=asked, headers=headers, timeout=SOON).text

    def begin(*arguments: str, **more: str) -> None:
        asking.append(threading.Thread(target=ask, args=arguments, kwargs=more))
        asking[-1].start()

    def wait_until_offered(number: int) -> None:
        deadline = time.monotonic() + SOON
        while _offered(requests.get(f"{server.url}/stats", headers={"X-API-Key": keys["a"]}, timeout=SOON)) < number:
            assert time.monotonic() < deadline

    begin("a", "first")
    assert encoder.begun.wait(SOON)
    for number, (who, name) in enumerate((("a", "older"), ("b", "other"), ("a", "newer")), start=2):
        begin(who, name, session="search-box")
        wait_until_offered(number)
    encoder.go.set()
    for each in asking:
        each.join()
    assert {name for name, answer in found.items() if "superseded" in answer} == {"older"}


@pytest.mark.parametrize("formatter", [TextFormatter("%(message)s"), JsonFormatter()], ids=["text", "json"])
@pytest.mark.parametrize("password", ["s3cret", "s3/cr@et", "s3:cret?x=y"])
def test_logs_show_no_password_of_a_url(formatter: logging.Formatter, password: str) -> None:
    url = f"http://user:{password}@127.0.0.1:1/v1"
    err = ValueError(f"no answer from {url}")
    trace = (ValueError, err, None)
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "HTTP Request: POST %s", (url,), trace)
    shown = formatter.format(record)
    for secret in ("s3", "cret", "user"):
        assert secret not in shown
    assert shown.count("127.0.0.1:1/v1") == 2


LOGGED = """
import logging
from niruhybrid.server import logs
logs.set_up(as_json=True, level="DEBUG")
for name in ("httpx2", "httpcore2.http11", "openai._base_client", "uvicorn.error"):
    logging.getLogger(name).info("HTTP Request: POST http://127.0.0.1/v1 200")
    logging.getLogger(name).debug("headers Authorization")
    logging.getLogger(name).warning("%s is heard", name)
logging.getLogger("niruhybrid.any").info("so is this")
"""


@pytest.mark.integration
def test_other_libraries_log_warnings_only() -> None:
    done = subprocess.run([sys.executable, "-c", LOGGED], capture_output=True, text=True, check=True, timeout=60)
    messages = [json.loads(line)["message"] for line in io.StringIO(done.stderr)]
    assert [message.split()[0] for message in messages] == [
        "httpx2",
        "httpcore2.http11",
        "openai._base_client",
        "uvicorn.error",
        "so",
    ]
