import os
import secrets
import socket
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.replicas import Gate
from tests.cluster.served import Served

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray writes one into the home folder
}
NODE: dict[str, Any] = {"num_cpus": 4, "object_store_memory": 80 << 20}


@pytest.fixture(scope="session")
def served(postgres_server: "PostgresServer") -> Iterator[Served]:
    """Start two nodes of Ray on this machine, and Ray Serve on a free port."""
    ray: Any = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    kept = {name: os.environ.get(name) for name in QUIET}
    os.environ.update(QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own: files left open, calls that it has deprecated
        from ray import serve
        from ray.cluster_utils import Cluster

        head = NODE | {"include_dashboard": False, "node_ip_address": "127.0.0.2"}
        cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(**NODE, node_ip_address="127.0.0.3")
        ray.init(cluster.address, log_to_driver=False, logging_level="error", _node_ip_address="127.0.0.2")
        port = _free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
        yield Served(port, postgres_server.new_database())
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it so
        ray.shutdown()
        cluster.shutdown()
    for name, value in kept.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate() as gate:
        yield gate
