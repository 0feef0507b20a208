"""The store on PostgreSQL beside the embedded one, and what only a store of many processes has to do."""

import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest

from niruhybrid.config import StoreConfig
from niruhybrid.errors import (
    InvalidSettingError,
    StoreError,
    StoreReadOnlyError,
    StoreUnreachableError,
    StoreVersionError,
)
from niruhybrid.ports import Store
from niruhybrid.retrieval.postgres import PostgresStore
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, IndexEntry, Match, SearchMode, SearchRequest, StandingQuery
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.integration

ENCODER = HashEncoder(dimension=16)
MODES: list[SearchMode] = ["hybrid", "dense", "lexical"]
WAIT = 20.0


def entry(name: str, text: str, **more: Any) -> IndexEntry:
    return IndexEntry(Document(name, text, **more), ENCODER.encode([text])[0], ENCODER.terms(text))


def asked(text: str, top_k: int = 10, **more: Any) -> SearchRequest:
    return SearchRequest(ENCODER.encode([text])[0], ENCODER.terms(text), top_k, **more)


def standing(text: str) -> StandingQuery:
    return StandingQuery("q", ENCODER.encode([text])[0], ENCODER.terms(text), 0.5)


def found(store: Store, request: SearchRequest) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in store.search([request])[0].hits]


def assert_alike(one: Store, other: Store, requests: Sequence[SearchRequest]) -> None:
    """Both find the same with the same scores; only documents of the same score may change places."""
    for request, a, b in zip(requests, one.search(requests), other.search(requests), strict=True):
        theirs = [hit.score for hit in b.hits]
        assert [hit.score for hit in a.hits] == pytest.approx(theirs, abs=1e-4), request
        last = theirs[-1] + 1e-4 if theirs else 0.0  # of those that share the last score any may be there
        assert {hit.id for hit in a.hits if hit.score > last} == {hit.id for hit in b.hits if hit.score > last}
        known = {hit.id: hit for hit in b.hits}
        for hit in a.hits:
            if hit.id in known:
                assert hit.score == pytest.approx(known[hit.id].score, abs=1e-4)
                assert hit.span == known[hit.id].span


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.new_database()


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    with PostgresStore(url) as made:
        yield made


def requests_of(texts: Sequence[str], **more: Any) -> list[SearchRequest]:
    return [asked(text, mode=mode, **more) for text in texts for mode in MODES]


def test_scores_are_those_of_the_embedded_store(store: PostgresStore) -> None:
    documents = [
        entry(f"d{n}", f"word{n % 40} {'river ' * (n % 5)} delta{n % 7}", metadata={"year": n}) for n in range(300)
    ]
    with EmbeddedStore() as embedded:
        for each in (embedded, store):
            each.upsert(documents)
            each.upsert([entry("d3", "river river bank"), entry("new", "word3 delta3")])
            each.delete([f"d{n}" for n in range(50, 60)])
        texts = ["river delta3", "word3 word4 unknown", "bank", "nothing of it"]
        assert_alike(store, embedded, requests_of(texts))
        assert_alike(store, embedded, requests_of(texts, filter={"range": {"year": {"gte": 40, "lt": 120}}}))


def test_scores_of_passages_are_those_of_the_embedded_store(store: PostgresStore) -> None:
    documents = []
    for n in range(60):
        start = 0
        for part in range(1 + n % 4):
            text = f"word{n} part{part} {'river ' * (n % 3)} bank "
            metadata = {"document": f"group {n // 3}"} if n % 2 else {}
            documents.append(replace(entry(f"d{n}", text, metadata=metadata), part=part, start=start))
            start += len(text)
    with EmbeddedStore() as embedded:
        for each in (embedded, store):
            each.upsert(documents)
        assert_alike(store, embedded, requests_of(["river bank", "word7 part2", "part1", "word30"]))


@pytest.mark.slow
def test_common_words_are_looked_up_late_and_change_no_score(store: PostgresStore) -> None:
    rng = np.random.default_rng(7)
    texts = [
        " ".join(
            [
                "the",
                *(["of"] if n % 3 else []),
                *(["zebra"] if n % 1000 == 7 else []),
                *(f"w{min(999, rng.zipf(1.3))}" for _ in range(6)),
            ]
        )
        for n in range(3000)
    ]
    documents = [entry(f"d{n}", text) for n, text in enumerate(texts)]
    with EmbeddedStore() as embedded:
        for each in (embedded, store):
            each.upsert(documents)
        assert_alike(store, embedded, requests_of(["the of", "the zebra of", "w1 w2 the", "w55 zebra", "the"]))


@pytest.mark.slow
def test_of_many_vectors_nearly_all_of_the_nearest_are_found(url: str) -> None:
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((10_250, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with PostgresStore(url) as store:
        for first in range(0, len(vectors), 2050):
            store.upsert(
                [
                    IndexEntry(Document(f"d{n}", f"t{n}", metadata={"n": n, "half": n % 2}), vectors[n], [])
                    for n in range(first, first + 2050)
                ]
            )
        [making] = [thread for thread in threading.enumerate() if thread.name == "niru-store-index"]
        making.join(WAIT)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid "
                                      "WHERE relname = 'nearest'").fetchall() == [(True,)]  # fmt: skip
        for wanted, passes in (
            (None, np.ones(len(vectors), np.bool_)),
            ({"range": {"n": {"lt": 700}}}, np.arange(len(vectors)) < 700),
            ({"eq": {"half": 1}}, np.arange(len(vectors)) % 2 == 1),
        ):
            shares = []
            for query in rng.standard_normal((20, 16)).astype(np.float32):
                scores = np.where(passes, vectors @ query, -np.inf)
                best = {f"d{n}" for n in np.argsort(-scores)[:10]}
                shares.append(len(best & {name for name, _ in found(store, SearchRequest(query, [], 10, wanted))}) / 10)
            assert np.mean(shares) > (0.99 if passes.sum() < 10_000 else 0.95)
        fresh = rng.standard_normal(16).astype(np.float32)
        store.upsert([IndexEntry(Document("fresh", "text"), fresh / np.linalg.norm(fresh), [])])
        assert found(store, SearchRequest(fresh, [], 1))[0][0] == "fresh"  # though the index has it not yet


def test_processes_see_each_others_writes_at_once(url: str, store: PostgresStore) -> None:
    with PostgresStore(url) as other:
        watermark = store.upsert([entry("a", "river")])
        [answer] = other.search([asked("river", min_watermark=watermark)])
        assert [hit.id for hit in answer.hits] == ["a"]
        assert other.delete(["a"]) == (1, watermark + 1)
        assert (store.count(), store.get(["a"])) == (0, [None])


def test_many_writers_of_the_same_documents_all_succeed(url: str, store: PostgresStore) -> None:
    watermarks, begun = list[int](), threading.Barrier(4)

    def write(number: int, into: PostgresStore) -> None:
        begun.wait()
        for n in range(10):
            names = [f"d{name}" for name in range(6)]
            chosen = names if number % 2 else names[::-1]
            watermarks.append(into.upsert([entry(name, f"writer {number} turn {n}") for name in chosen]))
            watermarks.append(into.delete(chosen[:2])[1])

    with PostgresStore(url) as other:
        threads = [threading.Thread(target=write, args=(n, (store, other)[n // 2])) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.upsert([entry(f"d{n}", "last") for n in range(6)])
        assert len(watermarks) == 80
        assert found(other, asked("last", mode="lexical")) == found(store, asked("last", mode="lexical"))
        assert (other.count(), len(other.ids())) == (6, 6)
        assert other.upsert([]) <= 81
    with psycopg.connect(url) as connection:  # what the state has counted is what is there
        counted = connection.execute("SELECT passages, documents, terms FROM niru.state").fetchone()
        there = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE part = 0), sum(length) FROM niru.passages"
        ).fetchone()
        listed = connection.execute("SELECT sum(count), count(DISTINCT row) FROM niru.postings").fetchone()
    assert counted == there
    assert listed == (6, 6)


def test_what_any_process_writes_is_news_to_the_subscribers_of_all(url: str, store: PostgresStore) -> None:
    told: queue.Queue[Match] = queue.Queue()
    own: list[Match] = []
    with PostgresStore(url) as other:
        store.subscribe(standing("river"), own.append)
        other.subscribe(standing("river"), told.put)
        watermarks = [store.upsert([entry(f"d{n}", "river", metadata={"n": n})]) for n in range(5)]
        other.upsert([entry("e", "mountain")])
        watermarks.append(other.upsert([entry("f", "river")]))
        names = ["d0", "d1", "d2", "d3", "d4", "f"]
        matches = [told.get(timeout=WAIT) for _ in names]
        assert [(match.hit.id, match.watermark) for match in matches] == list(zip(names, watermarks, strict=True))
        store.upsert([entry("g", "river")])
        assert [match.hit.id for match in own] == [*names, "g"]
        assert told.get(timeout=WAIT).hit.id == "g"


def test_news_is_neither_lost_nor_told_twice_when_the_listener_is_cut_off(url: str, store: PostgresStore) -> None:
    told: queue.Queue[Match] = queue.Queue()
    with PostgresStore(url) as other, psycopg.connect(url, autocommit=True) as killer:
        other.subscribe(standing("river"), told.put)
        store.upsert([entry("before", "river")])
        assert told.get(timeout=WAIT).hit.id == "before"
        for turn in range(3):
            killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = "
                "current_database()"
            )
            store.upsert([entry(f"gone{turn}", "river")])
            store.delete([f"gone{turn}"])
            store.upsert([entry(f"cut{turn}", "river")])
        heard = []
        while "cut2" not in heard:
            heard.append(told.get(timeout=WAIT).hit.id)
        assert [name for name in heard if name.startswith("cut")] == ["cut0", "cut1", "cut2"]
        assert len(heard) == len(set(heard))
        assert told.empty()


def test_a_subscriber_is_not_told_of_what_was_there_before(url: str, store: PostgresStore) -> None:
    told: list[Match] = []
    with PostgresStore(url) as other:
        store.upsert([entry("old", "river")])
        end = other.subscribe(standing("river"), told.append)
        end()
        store.upsert([entry("meanwhile", "river")])
        other.subscribe(standing("river"), told.append)
        other.upsert([entry("new", "river")])
        assert [match.hit.id for match in told] == ["new"]


@pytest.mark.slow
def test_any_number_may_open_an_empty_database_at_once(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database(template="template0")  # without pgvector
    begun, opened, wrong = threading.Barrier(6), list[int](), list[str]()

    def open_it(number: int) -> None:
        begun.wait()
        try:
            with PostgresStore(url) as store:
                opened.append(store.upsert([entry(f"d{number}", "river")]))
        except Exception as err:  # noqa: BLE001  # any error is what this test looks for
            wrong.append(repr(err))

    threads = [threading.Thread(target=open_it, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(opened) == [1, 2, 3, 4, 5, 6]


def test_tables_of_a_newer_version_are_left_alone(url: str) -> None:
    PostgresStore(url).close()
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE niru.state SET version = 99")
    with pytest.raises(StoreVersionError, match="format 99"):
        PostgresStore(url)


def test_a_database_with_another_encoding_is_refused(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1'")
    with pytest.raises(StoreError, match="LATIN1: make a database"):
        PostgresStore(postgres_server.url("latin"))


def test_a_user_without_rights_is_told(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN")
    with pytest.raises(StoreReadOnlyError, match="grant the user its rights"):
        PostgresStore(url.replace("postgres@", "reader@"))


def test_a_password_is_never_shown(postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = StoreConfig(path="postgresql://me:s3cret@127.0.0.1:1/db?password=s3cret", server_timeout=1.0)
    with pytest.raises(StoreUnreachableError, match=r"127[.]0[.]0[.]1:1/db") as caught:
        PostgresStore(config=config)
    with pytest.raises(InvalidSettingError, match="give postgresql://user@host") as refused:
        PostgresStore("postgresql://me:s3cret@host/db?s3cret")
    with PostgresStore(postgres_server.new_database().replace("postgres@", "postgres:s3cret@")) as store:
        store.upsert([entry("a", "river")])
    for said in (repr(config), str(caught.value), str(refused.value), repr(refused.value.__cause__), caplog.text):
        assert "s3cret" not in said


def test_a_search_of_a_store_that_was_lost_says_so_in_time(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    name = url.rpartition("/")[2]
    with PostgresStore(config=StoreConfig(path=url, server_timeout=0.5)) as store:
        with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        with pytest.raises(StoreError):
            store.search([asked("river")])
