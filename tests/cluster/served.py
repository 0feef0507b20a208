"""The application on a cluster, as tests see it."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from niruhybrid.settings import load_settings
from tests.cluster.replicas import open_pipeline


class Served:
    """An application on a cluster of two nodes.

    Attributes:
        url: where its HTTP servers are reached.
    """

    def __init__(self, port: int, database: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._database = database

    def run(self, *, replicas: int, ingress: int = 1, **settings: Any) -> None:
        """Have so many replicas run; returns when they do."""
        from ray import serve

        from niruhybrid.cluster.ray import APPLICATION, application

        wanted = {
            "ray.replicas": replicas,
            "ray.ingress": ingress,
            "ray.cpus": 0.1,
            "ray.drain": 20.0,
            "server.grace": 3.0,
        }
        loaded = load_settings(environ={}, arguments=wanted | {"store.path": self._database} | settings)
        opening = functools.partial(open_pipeline, self._database)
        serve.run(application(loaded, open_pipeline=opening), name=APPLICATION, route_prefix="/")

    def states(self) -> list[str]:
        """Return the states that replicas are in, for each deployment."""
        from ray import serve

        from niruhybrid.cluster.ray import APPLICATION

        deployments = serve.status().applications[APPLICATION].deployments
        return [str(deployment.replica_states) for deployment in deployments.values()]

    def pids(self, deployment: str) -> set[int]:
        """Return the processes of a deployment's replicas, of this cluster alone."""
        found = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
        named = (pid for pid in found if f"ray::ServeReplica:niruhybrid:{deployment}" in _title(pid))
        return {pid for pid in named if os.getpid() in _parents(pid)}


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").strip("\0 ")
    except OSError:
        return ""  # it has ended meanwhile


def _parents(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:
            return
        yield pid
