"""Clients that say nothing, half a thing, or far too much: over real sockets, against a real server, without a key."""

import asyncio
import importlib
import json
import socket
import ssl
import statistics
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from niruhybrid.types import Hit, Query, Token

pytestmark = pytest.mark.integration

SOON = 20.0  # seconds for what takes a fraction of one where nothing else runs
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LOOPS = ["asyncio", "uvloop"]


def new_loop_of(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        loop: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(name).new_event_loop
    except ModuleNotFoundError:
        pytest.skip(f"{name} is not for this system")
    return loop


def connect(server: Any) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout=SOON)


def all_of(client: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    parts = []
    try:
        while part := client.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def problem_of(answer: bytes) -> tuple[int, str]:
    """Return status and code of a response that is a problem object."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)["code"]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("begins", [b"", b"\r\n\r\n", HEALTH + HEALTH], ids=["nothing", "blank lines", "two requests"])
def test_a_connection_that_brings_no_request_is_closed(serving: Callable[..., Any], begins: bytes, loop: str) -> None:
    server = serving(head_timeout=0.1, new_loop=new_loop_of(loop))
    with connect(server) as client:
        client.sendall(begins)
        assert all_of(client).count(b"HTTP/1.1 200 OK") == begins.count(b"GET")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "half",
    [b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-", HEALTH + b"P"],
    ids=["line", "header", "second request"],
)
def test_half_of_a_head_is_waited_for_only_so_long(serving: Callable[..., Any], half: bytes, loop: str) -> None:
    server = serving(head_timeout=0.1, new_loop=new_loop_of(loop))
    with connect(server) as client:
        client.sendall(half)
        *_, last = all_of(client).split(b"HTTP/1.1 ")
    assert problem_of(b"HTTP/1.1 " + last) == (408, "request_timeout")


def test_a_head_that_comes_byte_by_byte_gains_no_time(serving: Callable[..., Any]) -> None:
    server = serving(head_timeout=0.3)
    with connect(server) as client:
        client.settimeout(0.02)
        client.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        answer, sent = b"", 0
        while not answer and sent < SOON / 0.02:
            client.send(b"x")
            sent += 1
            try:
                answer = client.recv(65_536)
            except TimeoutError:
                continue
    assert problem_of(answer) == (408, "request_timeout")


FLOODS = {
    "lines": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"X-A: %b\r\n" % (b"y" * 8000)),
    "short lines": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"A: b\r\n" * 500),
    "one line": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"y" * 8000),
    "name": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"y" * 8000),
    "target": (b"GET /", b"y" * 8000),
    "trailers": (b"POST /query HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: %b\r\n" % (b"y" * 8000)),
    "one trailer": (b"POST /query HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: ", b"y" * 8000),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("flood", FLOODS)
def test_a_head_without_an_end_is_cut_off(serving: Callable[..., Any], flood: str, loop: str) -> None:
    server = serving(new_loop=new_loop_of(loop))
    begins, goes_on = FLOODS[flood]
    sent, most = 0, 20_000_000
    answer = b""
    with connect(server) as client:
        try:
            client.sendall(begins)
            while sent < most:
                client.sendall(goes_on)
                sent += len(goes_on)
        except ConnectionError:  # it was cut off while it was sending
            pass
        else:
            answer = all_of(client)
    assert sent < most, answer[:200]
    assert requests.get(f"{server.url}/healthz", timeout=SOON).ok


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"GET /healthz HTTP/1.1\r\nX-A: %b\r\n\r\n" % (b"y" * 70_000), 431, "head_too_large"),
        (b"GET /healthz?%b HTTP/1.1\r\n\r\n" % (b"y" * 70_000), 431, "head_too_large"),
        (b"GET /healthz HTTP/1.1\r\n%b\r\n" % (b"A: b\r\n" * 300), 431, "head_too_large"),
        (b"nonsense\r\n\r\n", 400, "malformed_request"),
    ],
    ids=["line", "target", "lines", "nonsense"],
)
def test_a_head_that_can_not_be_taken_is_a_problem(
    serving: Callable[..., Any], head: bytes, status: int, code: str
) -> None:
    with connect(serving()) as client:
        client.sendall(head)
        assert problem_of(all_of(client)) == (status, code)


def test_a_large_head_within_the_bounds_is_served(serving: Callable[..., Any]) -> None:
    server = serving()
    headers = {f"X-{number}": "y" * 500 for number in range(100)}
    assert requests.get(f"{server.url}/healthz", headers=headers, timeout=SOON).ok


def test_a_body_that_goes_on_after_a_refusal_holds_the_connection_only_so_long(serving: Callable[..., Any]) -> None:
    server = serving(api_keys="a:read:0123456789abcdef", head_timeout=0.1)
    with connect(server) as client:
        client.settimeout(0.02)
        client.sendall(b"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        answer, closed = b"", False
        for _ in range(int(SOON / 0.02)):
            try:
                client.send(b"x")
                part = client.recv(65_536)
            except TimeoutError:
                continue
            except ConnectionError:
                closed = True
                break
            answer += part
            if closed := not part:
                break
    assert closed
    assert answer.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("loop", LOOPS)
def test_the_connection_that_has_waited_longest_gives_way(serving: Callable[..., Any], loop: str) -> None:
    server = serving(max_connections=8, new_loop=new_loop_of(loop))
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(server)) for _ in range(8)]
        for client in silent[1:]:
            client.sendall(b"GET / HT")
        for _ in range(3):
            answer = requests.get(f"{server.url}/healthz", timeout=SOON, headers={"Connection": "close"})
            assert answer.ok
        assert all_of(silent[0]) == b""
        silent[7].sendall(b"TP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert all_of(silent[7]).startswith(b"HTTP/1.1 200")


def test_connections_that_are_all_in_use_leave_room_for_health_checks(
    serving: Callable[..., Any], make_pipeline: Callable[..., Any], hanging: Any
) -> None:
    server = serving(lambda: make_pipeline(hanging), max_connections=16)
    ask = b"GET /stream/query?query=json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(15):
            client = stack.enter_context(connect(server))
            client.sendall(ask)
            assert client.recv(12) == b"HTTP/1.1 200"
        refused = requests.post(f"{server.url}/query", json={"query": "json"}, timeout=SOON)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert requests.get(f"{server.url}/healthz", timeout=SOON).ok
        assert requests.get(f"{server.url}/readyz", timeout=SOON).ok
    assert requests.post(f"{server.url}/query", json={"query": "json", "answer": False}, timeout=SOON).ok


def test_when_no_connection_can_give_way_the_next_is_told_so(
    serving: Callable[..., Any], make_pipeline: Callable[..., Any], hanging: Any
) -> None:
    server = serving(lambda: make_pipeline(hanging), max_connections=1)
    with requests.post(f"{server.url}/stream/query", json={"query": "json"}, stream=True, timeout=SOON) as first:
        assert first.ok
        with connect(server) as client:
            assert problem_of(all_of(client)) == (503, "overloaded")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    try:
        subprocess.run([*command, *extra], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return {"tls_cert": str(cert), "tls_key": str(key)}


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_half_a_handshake_is_waited_for_only_so_long(
    serving: Callable[..., Any], certificate: dict[str, str], loop: str
) -> None:
    server = serving(head_timeout=0.3, max_connections=4, new_loop=new_loop_of(loop), **certificate)
    url = f"https://{server.host}:{server.port}"
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(server)) for _ in range(6)]
        assert requests.get(f"{url}/healthz", verify=certificate["tls_cert"], timeout=SOON).ok
        for client in silent:
            assert all_of(client) == b""
    with connect(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")  # no TLS at all
        all_of(client)
    trusting = ssl.create_default_context(cafile=certificate["tls_cert"])
    with trusting.wrap_socket(connect(server), server_hostname="127.0.0.1") as client:
        client.sendall(b"GET / HT")
        assert problem_of(all_of(client)) == (408, "request_timeout")


HALF_OPEN, UPLOADS = 1000, 100


def files_for(connections: int) -> bool:
    """Whether this process may open as many files, once its limit is raised as far as it may be."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 500
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return True
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


def slowest_of(server: Any, requests_of_a_turn: int) -> float:
    """Ask one question after the other, each of which must be answered; return the 99th percentile, in seconds."""
    seconds = []
    with requests.Session() as session:
        for _ in range(requests_of_a_turn):
            began = time.perf_counter()
            answer = session.post(f"{server.url}/query", json={"query": "json"}, timeout=SOON)
            seconds.append(time.perf_counter() - began)
            assert answer.status_code == 200
    return statistics.quantiles(seconds, n=100)[98]


@pytest.mark.slow
def test_a_flood_of_silent_clients_slows_down_nobody(serving: Callable[..., Any]) -> None:
    most = 600
    if not files_for(HALF_OPEN + UPLOADS + most):
        pytest.skip("this process may not open enough files: raise `ulimit -n` to 2200")
    server = serving(max_connections=most, head_timeout=120.0, idle_timeout=120.0)
    alone, flooded = [], []
    for _ in range(3):
        alone.append(slowest_of(server, 200))
        with ExitStack() as stack:
            silent = [stack.enter_context(connect(server)) for _ in range(HALF_OPEN)]
            for client in silent:
                client.sendall(b"GET / HT")
            for _ in range(UPLOADS):
                client = stack.enter_context(connect(server))
                client.sendall(
                    b"POST /stream/data HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n"
                )
            with connect(server) as client:  # comes after all of them
                client.sendall(HEALTH)
                assert client.recv(12) == b"HTTP/1.1 200"
            flooded.append(slowest_of(server, 200))
            assert server.stats()["open_streams"] == UPLOADS
            assert requests.post(f"{server.url}/stream/data", json={"text": "a document"}, timeout=SOON).ok
    assert min(flooded) <= 2 * max(alone) + 0.1


class Verbose:
    """Answers at length."""

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        for _ in range(160):
            yield Token("x" * 100_000)


def asking_at_length(server: Any) -> socket.socket:
    """Return a connection on which 16 MB are answered, and that takes little at a time."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.settimeout(SOON)
    client.connect((server.host, server.port))
    body = b'{"query": "json"}'
    head = "POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert client.recv(12) == b"HTTP/1.1 200"
    return client


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to count open files")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_takes_nothing_of_an_answer_is_cut_off(
    serving: Callable[..., Any], make_pipeline: Callable[..., Any], loop: str
) -> None:
    server = serving(lambda: make_pipeline(Verbose()), head_timeout=0.2, new_loop=new_loop_of(loop))
    assert requests.get(f"{server.url}/healthz", headers={"Connection": "close"}, timeout=SOON).ok

    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with asking_at_length(server):
        both = files()
        deadline = time.monotonic() + SOON
        while files() >= both:
            assert time.monotonic() < deadline


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_takes_an_answer_slowly_gets_all_of_it(
    serving: Callable[..., Any], make_pipeline: Callable[..., Any], loop: str
) -> None:
    server = serving(lambda: make_pipeline(Verbose()), head_timeout=1.0, new_loop=new_loop_of(loop))
    never, taken = threading.Event(), 0
    with asking_at_length(server) as client:
        while part := client.recv(400_000):
            taken += len(part)
            never.wait(0.02 if taken < 12_000_000 else 0)
    assert taken > 16_000_000
