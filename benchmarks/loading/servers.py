"""Servers in processes of their own, on a core of their own: started, looked at through /proc, ended."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "0",
}


class Server:
    """A running server and its children.

    Attributes:
        port: it listens on.
        ready_seconds: from the start of its process until it answered its path of readiness with 200.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, ready_seconds: float) -> None:
        self.port = port
        self.ready_seconds = ready_seconds
        self._process = process

    def cpu(self) -> float:
        """Return the processor seconds that its living threads have used until now."""
        return sum(_cpu(pid) for pid in self._pids())

    def rss(self) -> float:
        """Return the resident memory in MB; what several processes share counts once."""
        pids = self._pids()
        field = "Pss:" if len(pids) > 1 else "Rss:"
        return sum(_resident(pid, field) for pid in pids) / 1024

    def _pids(self) -> list[int]:
        found = [self._process.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += [int(child) for child in (task / "children").read_text().split()]
        return found


@contextlib.contextmanager
def started(
    command: Sequence[str], core: int, *, ready: str, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start a server on one core and yield it when it is ready; `{port}` in the command is a free port.

    Args:
        command: what to run, by this Python.
        core: the one core that it and its children may use.
        ready: path that answers 200 once queries are taken.
        environ: variables beside this process's own.

    Raises:
        RuntimeError: it was not ready within a minute.
    """
    port = _free_port()
    words = [sys.executable, *(word.format(port=port) for word in command)]
    began = time.perf_counter()
    with subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        env=os.environ | ONE_THREAD | {"PYTHONUNBUFFERED": "1"} | (environ or {}),
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509  # no threads here yet
    ) as process:
        try:
            _await(process, port, ready, began + 60)
            yield Server(process, port, time.perf_counter() - began)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _await(process: "subprocess.Popen[bytes]", port: int, path: str, until: float) -> None:
    while time.perf_counter() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before it was ready")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as one:
            one.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            if one.recv(64).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.01)
    raise RuntimeError("the server was not ready within a minute")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def _cpu(pid: int) -> float:
    total = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def _resident(pid: int, field: str) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(field):
                return float(line.split()[1])
    return 0.0
