"""A real NATS server with JetStream, on a port and a folder of its own, that can be killed and started again."""

import re
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ("NatsServer",)

PROGRAM = Path(sys.executable).parent / "nats-server"
_PATIENCE = 20.0


class NatsServer:
    """Listens on loopback; keeps its streams in `folder`, also when it is killed. Use it in a `with` block.

    Args:
        folder: where streams are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = -1  # the system chooses, once
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"nats://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, on the port that it had before, and wait until it takes clients."""
        command = (str(PROGRAM), "-a", "127.0.0.1", "-p", str(self._port), "-js", "-sd", str(self._folder))
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        ready = threading.Event()
        threading.Thread(target=self._read, args=(self._process, ready), daemon=True).start()
        assert ready.wait(_PATIENCE), "the server did not start"

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE)
            self._process = None

    def _read(self, process: "subprocess.Popen[str]", ready: threading.Event) -> None:
        """Read what it says for as long as it lives; else it would wait for a reader one day."""
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                if found := re.search(r"client connections on \S+:(\d+)", line):
                    self._port = int(found[1])
                if "Server is ready" in line:
                    ready.set()
