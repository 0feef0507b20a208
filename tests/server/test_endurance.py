"""What thousands of clients that leave, a stop and a kill do to a server: nothing that lasts or is untrue."""

import asyncio
import gc
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from niruhybrid.pipeline import Pipeline
from niruhybrid.retrieval.store import EmbeddedStore

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BODY = b'{"query": "json"}'
REQUEST = (
    b"POST /stream/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
RESET = b"\1\0\0\0\0\0\0\0"


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def resident() -> int:
    """Return the process's memory, in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def abort(server: Any, *, after_headers: bool) -> None:
    with socket.create_connection((server.host, server.port), timeout=10) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.sendall(REQUEST if after_headers else REQUEST[:70])
        if after_headers:
            assert client.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("connections", [5000])
def test_clients_that_abort_leave_nothing_behind(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline], hanging: Any, connections: int
) -> None:
    server = serving(lambda: make_pipeline(hanging), grace=0.0)
    for number in range(50):  # what is made once
        abort(server, after_headers=number % 2 == 0)
    server.stats()
    gc.collect()
    fds, memory, tasks = descriptors(), resident(), len(asyncio.all_tasks(server._loop))
    for number in range(connections):
        abort(server, after_headers=number % 2 == 0)
    deadline = time.monotonic() + 10
    while (stats := server.stats())["open_streams"] or stats["open_answers"]:
        assert time.monotonic() < deadline
    gc.collect()
    assert descriptors() <= fds + 3
    assert len(asyncio.all_tasks(server._loop)) <= tasks + 2
    assert stats["kept_streams"] == 0
    assert resident() - memory < 20_000_000
    assert stats["answers"]["cancelled"] == connections // 2 + 25


def test_fifty_open_streams_end_with_a_true_event(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline], hanging: Any
) -> None:
    server = serving(lambda: make_pipeline(hanging))
    clients = [socket.create_connection((server.host, server.port), timeout=10) for _ in range(50)]
    for client in clients:
        client.sendall(REQUEST)
    heard = [client.recv(65_536) for client in clients]
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    for client, before in zip(clients, heard, strict=True):
        whole = before
        while data := client.recv(65_536):
            whole += data
        client.close()
        assert whole.count(b"event: sources") == whole.count(b"event: error") == 1
        assert b'"code":"shutting_down"' in whole
        assert whole.endswith(b"\r\n0\r\n\r\n")
    stopper.join(15)
    assert server.failure is None


PROGRAM = """
import asyncio, sys
from niruhybrid.config import ServerConfig
from niruhybrid.generation.extractive import ExtractiveGenerator
from niruhybrid.pipeline import Pipeline
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.server.run import listen, serve
from niruhybrid.testing import HashEncoder

async def main():
    config = ServerConfig(port=0)
    listener = listen(config)
    async def opened():
        return Pipeline(HashEncoder(), EmbeddedStore(sys.argv[1]), ExtractiveGenerator())
    async def ready(_pipeline):
        print(listener.getsockname()[1], flush=True)
    await serve(opened, config, listener=listener, stopping=asyncio.Event(), when_ready=ready)

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 700])
def test_what_was_acknowledged_survives_a_kill_in_the_middle_of_a_stream(tmp_path: Path, acknowledged: int) -> None:
    path = tmp_path / "store.db"
    command = [sys.executable, "-c", PROGRAM, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        ids: list[str] = []
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            sender = threading.Thread(target=_send, args=(client, 50_000))
            sender.start()
            answer = http.client.HTTPResponse(client)
            answer.begin()
            while len(ids) < acknowledged:
                ids.append(json.loads(answer.readline())["id"])
            process.send_signal(signal.SIGKILL)
            try:
                while (line := answer.readline()).endswith(b"\n"):  # what was already on its way
                    ids.append(json.loads(line)["id"])
            except (http.client.HTTPException, OSError):
                pass
            sender.join(20)
            answer.close()
    with EmbeddedStore(path) as store:
        kept = set(store.ids())
        assert len(kept) < 50_000
        assert [missing for missing in ids if missing not in kept] == []


def _send(client: socket.socket, lines: int) -> None:
    try:
        client.sendall(
            b"POST /stream/data HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(lines):
            line = b'{"id": "d%d", "text": "document number %d"}\n' % (number, number)
            client.sendall(b"%x\r\n%b\r\n" % (len(line), line))
    except OSError:
        return


def test_a_server_with_tls_speaks_https(serving: Callable[..., Any], tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    try:
        subprocess.run([*command, *extra], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    server = serving(tls_cert=str(cert), tls_key=str(key))
    url = f"https://{server.host}:{server.port}"
    answer = requests.post(f"{url}/stream/query", json={"query": "json"}, verify=str(cert), timeout=10)
    assert "event: done" in answer.text
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
