"""Real servers and worker processes, killed amid an ingest: every message is in the store once, poison nowhere."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from niruhybrid.retrieval.postgres import PostgresStore
from niruhybrid.retrieval.store import EmbeddedStore
from tests.servers.ingest import Publisher, Start, Worker, check_every_message_is_kept_once, disturbed
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(180)]  # processes start, time and again

MESSAGES = 1000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as running:
        yield running


def test_killing_a_worker_and_nats_leaves_every_message_in_the_store_once(server: NatsServer, tmp_path: Path) -> None:
    store = tmp_path / "store.db"

    async def disturb(publisher: Publisher, start: Start, first: Worker) -> None:
        await publisher.results(MESSAGES // 5)
        await first.kill()
        await start()
        await publisher.results(MESSAGES // 5)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

    dead = asyncio.run(disturbed(server.url, str(store), MESSAGES, disturb))
    with EmbeddedStore(store) as kept:
        check_every_message_is_kept_once(kept, MESSAGES, dead)


def test_killing_workers_and_postgresql_leaves_every_message_in_the_store_once(
    server: NatsServer, postgres_server: PostgresServer
) -> None:
    url = postgres_server.new_database()

    async def disturb(publisher: Publisher, start: Start, first: Worker) -> None:
        second = await start()
        await start()
        await publisher.results(MESSAGES // 5)
        await first.kill()
        await publisher.results(MESSAGES // 5)
        await asyncio.to_thread(postgres_server.kill)
        await asyncio.to_thread(postgres_server.start)
        await publisher.results(MESSAGES // 5)
        await second.kill()

    dead = asyncio.run(disturbed(server.url, url, MESSAGES, disturb))
    store = PostgresStore(url)
    try:
        check_every_message_is_kept_once(store, MESSAGES, dead)
    finally:
        store.close()
