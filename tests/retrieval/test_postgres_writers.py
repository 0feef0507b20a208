"""Several writers of the same documents on PostgreSQL: the counts, deletes, scores and standing queries stay right."""

import math
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import psycopg
import pytest

from niruhybrid.config import StoreConfig
from niruhybrid.errors import StoreUnreachableError
from niruhybrid.ports import Store
from niruhybrid.retrieval.postgres import PostgresStore
from niruhybrid.retrieval.postgres.connection import Connections
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, IndexEntry, Match, SearchRequest, StandingQuery
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.integration

ENCODER = HashEncoder(dimension=16)
NAMES = [f"d{n}" for n in range(6)]
WAIT = 20.0


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.new_database()


@pytest.fixture
def pair(url: str) -> Iterator[tuple[PostgresStore, PostgresStore]]:
    """Two stores on one database, as two processes have them."""
    with PostgresStore(url) as one, PostgresStore(url) as other:
        yield one, other


def document(name: str, version: int, parts: int = 1) -> list[IndexEntry]:
    made, start = [], 0
    for part in range(parts):
        text = f"common {name} version {version} part {part} "
        made.append(IndexEntry(Document(name, text), ENCODER.encode([text])[0], ENCODER.terms(text), part, start))
        start += len(text)
    return made


def worded(text: str) -> SearchRequest:
    return SearchRequest(None, ENCODER.terms(text), 100, None, "lexical")


def scores(store: Store, text: str) -> dict[str, float]:
    return {hit.id: hit.score for hit in store.search([worded(text)])[0].hits}


def together(*work: Callable[[], None]) -> None:
    """Run functions in a thread each; raise the first error that one of them raises."""
    begun, wrong = threading.Barrier(len(work)), list[BaseException]()

    def run(one: Callable[[], None]) -> None:
        begun.wait(WAIT)
        try:
            one()
        except BaseException as err:  # noqa: BLE001  # raised again below
            wrong.append(err)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


def churn(store: PostgresStore, seed: int, writes: int) -> Callable[[], None]:
    """Return what replaces and deletes the same few documents over and over."""
    chance = random.Random(seed)

    def work() -> None:
        for _ in range(writes):
            names = chance.sample(NAMES, chance.choice([1, 1, 3]))
            if chance.random() < 0.3:
                store.delete(names)
            else:
                version = chance.randrange(1000)
                store.upsert([one for name in names for one in document(name, version, chance.choice([1, 1, 3]))])

    return work


def counted(url: str) -> tuple[int, ...]:
    """Return passages, documents and terms as the state has them."""
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT passages, documents, terms FROM niru.state").fetchone() or ()


def there(url: str) -> tuple[int, ...]:
    """Return the same, counted."""
    sql = "SELECT count(*), count(*) FILTER (WHERE part = 0), coalesce(sum(length), 0) FROM niru.passages"
    with psycopg.connect(url) as connection:
        return connection.execute(sql).fetchone() or ()


def spoil(url: str) -> None:
    """Leave the tables as the first version did after two writers of the same documents."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS niru.locks")
        connection.execute("DROP FUNCTION IF EXISTS niru.refuse_older CASCADE")
        connection.execute("UPDATE niru.state SET version = 1, passages = -14, documents = 23, terms = -90")


def await_upkeep() -> None:
    for thread in threading.enumerate():
        if thread.name == "niru-store-index":
            thread.join(WAIT)
            assert not thread.is_alive()


@pytest.mark.slow
def test_two_writers_of_the_same_documents_leave_the_counts_that_are_there(
    url: str, pair: tuple[PostgresStore, PostgresStore]
) -> None:
    one, other = pair
    together(*(churn(store, seed, 60) for seed, store in enumerate((one, other, one, other))))
    assert counted(url) == there(url)
    assert one.count() == len(one.ids())
    assert all(math.isfinite(score) for score in scores(one, "common version").values())
    left_over = one.ids()
    assert other.delete(NAMES)[0] == len(left_over)
    assert (one.count(), counted(url)) == (0, (0, 0, 0))
    left = [entry for n, name in enumerate(NAMES) for entry in document(name, n, 1 + n % 3)]
    one.upsert(left)
    with EmbeddedStore() as embedded:
        embedded.upsert(left)
        for text in ("common", "d3 version 4", "part 2"):
            assert scores(other, text) == pytest.approx(scores(embedded, text), abs=1e-4)


@pytest.mark.slow
def test_a_delete_that_finds_nothing_is_right_at_its_watermark(pair: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = pair
    written, deleted = list[int](), list[tuple[int, int]]()
    ended = threading.Event()

    def replace_it() -> None:
        for n in range(200):
            written.append(one.upsert(document("z", n)))
        ended.set()

    def delete_it() -> None:
        while not ended.is_set():
            deleted.append(other.delete(["z"]))

    together(replace_it, delete_it)
    events = [(watermark, "written") for watermark in written]
    events += [(watermark, "deleted" if removed else "nothing") for removed, watermark in deleted]
    present, lost = False, []
    for watermark, event in sorted(events, key=lambda one: (one[0], one[1] == "nothing")):
        if event == "nothing" and present:
            lost.append(watermark)
        present = event == "written" or (present and event == "nothing")
    assert lost == []
    assert one.count() == len(one.ids()) == present


@pytest.mark.slow
def test_a_standing_query_hears_the_last_version_of_each_document(pair: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = pair
    heard = set[tuple[str, int]]()
    last = threading.Event()

    def hear(match: Match) -> None:
        heard.add((match.hit.id, match.watermark))
        if match.hit.id == "last":
            last.set()

    one.upsert(document("first", 0))
    one.subscribe(StandingQuery("q", None, ["common"], 0.0, mode="lexical"), hear)
    together(*(churn(store, seed, 60) for seed, store in enumerate((one, other, one, other))))
    other.delete(NAMES)
    final = {(name, store.upsert(document(name, 1))) for name, store in zip(NAMES, (one, other) * 3, strict=True)}
    other.upsert(document("last", 0))
    assert last.wait(WAIT)
    assert final <= heard


@pytest.mark.slow
def test_writers_of_overlapping_batches_in_any_order_never_wait_in_a_circle(
    url: str, pair: tuple[PostgresStore, PostgresStore]
) -> None:
    names = [f"n{n}" for n in range(40)]

    def writer(store: PostgresStore, order: Sequence[str]) -> Callable[[], None]:
        def work() -> None:
            for n in range(4):
                store.upsert([one for name in order for one in document(name, n)])
                store.delete(order[::2])

        return work

    one, other = pair
    together(writer(one, names), writer(other, names[::-1]), writer(one, names[20:] + names[:20]), writer(other, names))
    assert counted(url) == there(url)
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        assert connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone() == (0,)


def test_a_store_that_an_older_version_has_spoilt_is_repaired_when_it_is_opened(url: str) -> None:
    with PostgresStore(url) as store:
        store.upsert([*document("a", 1), *document("b", 2, 3)])
    expected = counted(url)
    spoil(url)
    opened = list[int]()

    def open_it() -> None:
        with PostgresStore(url) as store:
            opened.append(store.count())
            store.upsert(document("c", 3))

    together(*[open_it] * 4)
    assert opened[0] in {2, 3}
    assert counted(url) == there(url) == (expected[0] + 1, 3, expected[2] + len(document("c", 3)[0].terms))


def test_a_writer_of_an_older_version_is_refused(url: str) -> None:
    with PostgresStore(url) as store:
        store.upsert(document("a", 1))
        with (
            psycopg.connect(url) as connection,
            pytest.raises(psycopg.errors.RaiseException, match=r"format 2, .* too old .*: update niruhybrid"),
        ):
            connection.execute("UPDATE niru.state SET watermark = watermark + 1")  # as each write of theirs ends
        assert store.upsert(document("a", 2)) == 2


@pytest.mark.parametrize("passages", [-14, 0, 1])
def test_wrong_counts_cost_no_match_and_no_score(url: str, passages: int) -> None:
    told: list[Match] = []
    with PostgresStore(url) as store:
        store.upsert([one for name in NAMES for one in document(name, 1)])
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE niru.state SET passages = %s, terms = %s", (passages, 3 * passages))
        found = scores(store, "common version unknown")
        assert found.keys() == set(NAMES)
        assert all(math.isfinite(score) and score > 0.0 for score in found.values())
        hybrid = replace(worded("common version"), vector=ENCODER.encode(["common"])[0], mode="hybrid")
        assert all(math.isfinite(hit.score) for hit in store.search([hybrid])[0].hits)
        with PostgresStore(url) as other:
            other.subscribe(StandingQuery("q", None, ["common"], 0.0, mode="lexical"), told.append)
            other.upsert(document("d0", 2))
            assert [match.hit.id for match in told] == ["d0"]


def test_counts_that_no_passages_can_have_are_corrected_while_the_store_is_open(url: str) -> None:
    with PostgresStore(url) as store:
        store.upsert([one for name in NAMES for one in document(name, 1, 2)])
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE niru.state SET passages = -1, documents = -3")
        store.delete(["d0"])
        await_upkeep()
        assert counted(url) == there(url)
        assert store.count() == 5
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE niru.state SET terms = -1")
    with PostgresStore(url):
        await_upkeep()
    assert counted(url) == there(url)


@pytest.mark.slow
def test_counts_are_compared_again_after_many_writes(url: str) -> None:
    vector = ENCODER.encode(["x"])[0]
    with PostgresStore(url) as store:
        store.upsert(document("a", 1))
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE niru.state SET documents = documents + 1, terms = terms + 5")
        for first in range(0, 10_000, 2000):
            store.upsert([IndexEntry(Document(f"n{n}", "x"), vector, []) for n in range(first, first + 2000)])
        await_upkeep()
        assert store.count() == 10_001
    assert counted(url) == there(url)


@pytest.mark.slow
def test_a_wait_for_another_writer_ends_with_an_error_that_says_so(url: str) -> None:
    with PostgresStore(config=StoreConfig(path=url, server_timeout=0.4)) as store:
        store.upsert(document("a", 1))
        with psycopg.connect(url) as connection:
            connection.execute("SELECT FROM niru.state FOR UPDATE")
            with pytest.raises(StoreUnreachableError, match="another writer, nothing was changed: do the same again"):
                store.upsert(document("a", 2))
            with pytest.raises(StoreUnreachableError, match="another writer"):
                store.delete(["a"])
        assert store.delete(["a"]) == (1, 2)


@pytest.mark.slow
def test_a_process_suspended_in_the_middle_of_a_write_holds_up_others_only_for_a_while(url: str) -> None:
    config = StoreConfig(path=url, server_timeout=4.0)
    with PostgresStore(config=config) as store:
        store.upsert(document("a", 1))
        suspended = Connections(config).connect()
        suspended.execute("BEGIN")
        suspended.execute("SELECT FROM niru.locks FOR UPDATE")  # and then nothing more
        assert store.upsert(document("a", 2)) == 2
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            suspended.execute("COMMIT")
        suspended.close()


@pytest.mark.slow
def test_the_room_of_replaced_rows_is_used_again(url: str) -> None:
    sizes = list[int]()
    with PostgresStore(url) as store, psycopg.connect(url, autocommit=True) as connection:
        for version in range(12):
            store.upsert([entry for n in range(500) for entry in document(f"n{n}", version)])
            await_upkeep()
            [size] = connection.execute("SELECT pg_total_relation_size('niru.postings')").fetchone() or ()
            sizes.append(size)
    assert sizes[-1] < 6 * sizes[0]
