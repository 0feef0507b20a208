"""What the store on PostgreSQL does when the server dies, or the connection to it breaks."""

import itertools
import queue
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from niruhybrid.config import StoreConfig
from niruhybrid.errors import StoreUnreachableError
from niruhybrid.retrieval.postgres import PostgresStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, IndexEntry, Match, SearchRequest, StandingQuery
from tests.client.wire import CuttingProxy
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ENCODER = HashEncoder(dimension=16)
PATIENT = 30.0
WAIT = 20.0


def entry(name: str, text: str) -> IndexEntry:
    return IndexEntry(Document(name, text), ENCODER.encode([text])[0], ENCODER.terms(text))


def asked(text: str) -> SearchRequest:
    return SearchRequest(ENCODER.encode([text])[0], ENCODER.terms(text), 10)


def opened(url: str, server_timeout: float = PATIENT) -> PostgresStore:
    return PostgresStore(config=StoreConfig(path=url, server_timeout=server_timeout))


@pytest.fixture(scope="module")
def mortal_server() -> Iterator[PostgresServer]:
    """A server that these tests may kill: nobody else uses it."""
    with tempfile.TemporaryDirectory(prefix="niru-postgres-") as folder:
        Path(folder).chmod(0o711)
        with PostgresServer(Path(folder) / "server") as server:
            yield server


def test_what_was_acknowledged_survives_kill_9_of_the_server_once(mortal_server: PostgresServer) -> None:
    """Three writers of new documents, one of which appends to a document, another deletes; two kills in between."""
    url = mortal_server.new_database()
    done: queue.Queue[tuple[int, str | None, str | None]] = queue.Queue()
    stop, wrong = threading.Event(), list[str]()

    def write(number: int) -> None:
        before: str | None = None
        for n in itertools.count():
            if stop.is_set():
                return
            name = f"w{number}-{n}"
            try:
                done.put((store.upsert([entry(name, f"river {name}")]), name, None))
                if number == 2 and before is not None:
                    removed, watermark = store.delete([before])
                    assert removed == 1
                    done.put((watermark, None, before))
            except Exception as err:  # noqa: BLE001  # any error is what this test looks for
                wrong.append(repr(err))
                return
            before = name

    with opened(url) as store:
        threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        acknowledged = []
        for _ in range(2):
            acknowledged += [done.get(timeout=WAIT) for _ in range(60)]
            mortal_server.kill()
            mortal_server.start()
        acknowledged += [done.get(timeout=WAIT) for _ in range(60)]
        stop.set()
        for thread in threads:
            thread.join()
        while not done.empty():
            acknowledged.append(done.get())
        assert wrong == []
        assert sorted(watermark for watermark, _, _ in acknowledged) == list(range(1, len(acknowledged) + 1))
        there = {name for _, name, _ in acknowledged if name} - {name for _, _, name in acknowledged if name}
        assert sorted(store.ids()) == sorted(there)
        assert store.upsert([]) == len(acknowledged)


def test_searches_go_on_across_a_restart_of_the_server(mortal_server: PostgresServer) -> None:
    url = mortal_server.new_database()
    answers: queue.Queue[list[str]] = queue.Queue()
    stop, wrong = threading.Event(), list[str]()

    def search() -> None:
        while not stop.is_set():
            try:
                answers.put([hit.id for hit in store.search([asked("river")])[0].hits])
            except Exception as err:  # noqa: BLE001  # any error is what this test looks for
                wrong.append(repr(err))
                return

    with opened(url) as store:
        store.upsert([entry("a", "river")])
        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for end in (mortal_server.kill, mortal_server.stop):
            assert [answers.get(timeout=WAIT) for _ in range(30)] == [["a"]] * 30
            end()
            mortal_server.start()
        while not answers.empty():
            answers.get()
        assert [answers.get(timeout=WAIT) for _ in range(30)] == [["a"]] * 30
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_wherever_the_connection_is_cut_a_write_is_made_once(mortal_server: PostgresServer) -> None:
    url = mortal_server.new_database()
    writes = 0
    with opened(url) as direct:
        cut, seen = 0, False
        while not seen:  # until the whole conversation gets through
            cuts = iter([None, 200 + cut])
            with CuttingProxy(mortal_server.port, cuts) as proxy:
                through = url.replace(f":{mortal_server.port}/", f":{proxy.port}/")
                with opened(through) as store:
                    watermark = store.upsert([entry(f"d{cut}", "river")])
                    writes += 1
                    assert watermark == writes
                    seen = proxy.connections == 2
            assert direct.upsert([]) == writes
            cut += 37
        assert sorted(direct.ids()) == sorted(f"d{n}" for n in range(0, cut, 37))
    assert writes > 10


def test_standing_queries_go_on_after_a_restart_of_the_server(mortal_server: PostgresServer) -> None:
    url = mortal_server.new_database()
    told: queue.Queue[Match] = queue.Queue()
    with opened(url) as store, opened(url) as other:
        other.subscribe(StandingQuery("q", ENCODER.encode(["river"])[0], ENCODER.terms("river"), 0.5), told.put)
        for n in range(3):
            store.upsert([entry(f"d{n}", "river")])
            mortal_server.kill()
            mortal_server.start()
        store.upsert([entry("d3", "river")])
        assert [told.get(timeout=WAIT).hit.id for _ in range(4)] == ["d0", "d1", "d2", "d3"]
        assert told.empty()


def test_a_server_that_stays_away_is_said_to_be_in_time(mortal_server: PostgresServer) -> None:
    url = mortal_server.new_database()
    with opened(url, server_timeout=0.6) as store:
        mortal_server.kill()
        try:
            with pytest.raises(StoreUnreachableError, match="check the server"):
                store.search([asked("river")])
            with pytest.raises(StoreUnreachableError):
                store.upsert([entry("a", "river")])
        finally:
            mortal_server.start()
    with opened(url) as store:
        assert store.upsert([entry("a", "river")]) == 1
