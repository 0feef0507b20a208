"""A worker process with an encoder that costs nothing: `python -m tests.servers.cheap_worker NATS-URL STORE`.

The first line that it prints is `STARTED`.
"""

import asyncio
import logging
import sys

from niruhybrid.cluster.nats import NatsBroker
from niruhybrid.cluster.worker import run_worker
from niruhybrid.cluster_config import WorkerConfig
from niruhybrid.pipeline import Pipeline
from niruhybrid.server.run import set_on_signal
from niruhybrid.settings import load_settings
from niruhybrid.testing import HashEncoder

STARTED = "worker_started group=niru\n"


async def main(url: str, store: str) -> None:
    """Work until the process is told to stop."""
    config = WorkerConfig(url, in_flight=64, ack_wait=1.0, max_deliveries=100, drain=5.0)
    settings = load_settings(environ={}, arguments={"store.path": store})
    stopping = asyncio.Event()
    with set_on_signal(stopping):
        async with await Pipeline.open(settings, encoder=HashEncoder(16)) as pipeline, NatsBroker(config) as broker:
            await run_worker(pipeline, broker, config, stopping)


if __name__ == "__main__":
    log = logging.getLogger("niruhybrid.cluster.worker")
    log.addHandler(logging.StreamHandler(sys.stdout))  # whoever started it waits for `worker_started`
    log.setLevel(logging.INFO)
    asyncio.run(main(*sys.argv[1:]))
