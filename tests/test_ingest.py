"""Many documents into a pipeline: the last version of an id is kept, and what fails for a passing reason is retried."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niruhybrid.config import RetryPolicy, StreamingConfig
from niruhybrid.errors import InvalidTextError, StoreUnreachableError
from niruhybrid.generation.extractive import ExtractiveGenerator
from niruhybrid.ingest import Failure, IngestReport, ingest_new
from niruhybrid.pipeline import Pipeline
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, IndexEntry

QUICK = RetryPolicy(4, 1e-4, 1e-3)
STREAMING = StreamingConfig(retry=RetryPolicy(attempts=1), max_text_chars=100, batch_size=1)
TOO_LONG = "x" * 101


class Flaky(EmbeddedStore):
    """A store that can't be reached for some texts, so often for each."""

    def __init__(self, failures: dict[str, int]) -> None:
        super().__init__()
        self.failures = failures

    def upsert(self, entries: Sequence[IndexEntry], /) -> int:
        for entry in entries:
            if self.failures.get(entry.document.text):
                self.failures[entry.document.text] -= 1
                raise StoreUnreachableError("the store is away")
        return super().upsert(entries)


def ingested(
    store: EmbeddedStore, *runs: Sequence[Document], retry: RetryPolicy = QUICK
) -> tuple[list[IngestReport], list[Failure], dict[str, str]]:
    """Ingest each run; return the reports, the failures, and the texts that are kept, by id."""
    failures: list[Failure] = []

    async def main() -> tuple[list[IngestReport], dict[str, str]]:
        async with (
            asyncio.timeout(20),
            Pipeline(HashEncoder(), store, ExtractiveGenerator(), streaming=STREAMING) as pipeline,
        ):
            reports = [
                await ingest_new(pipeline, documents, on_failure=failures.append, retry=retry) for documents in runs
            ]
            ids = sorted({document.id for documents in runs for document in documents})
            kept = await pipeline.get(ids)
            return reports, {document.id: document.text for document in kept if document is not None}

    reports, kept = asyncio.run(main())
    return reports, failures, kept


def test_the_last_version_of_an_id_is_kept_however_often_it_is_ingested() -> None:
    lines = [Document("a", "version 1"), Document("b", "other"), Document("a", "version 2")]
    for runs in range(1, 5):
        _, failures, kept = ingested(EmbeddedStore(), *[lines] * runs)
        assert kept == {"a": "version 2", "b": "other"}
        assert failures == []


def test_a_version_that_returns_to_what_the_store_had_is_written_again() -> None:
    before = [Document("a", "one")]
    there_and_back = [Document("a", "two"), Document("a", "one")]
    reports, _, kept = ingested(EmbeddedStore(), before, there_and_back)
    assert kept == {"a": "one"}
    assert (reports[1].stored, reports[1].unchanged) == (2, 0)


@pytest.mark.slow
def test_what_fails_for_a_passing_reason_is_tried_again() -> None:
    documents = [Document(f"d{number}", f"text {number}") for number in range(150)]
    store = Flaky({f"text {number}": 1 + number % 2 for number in range(0, 150, 3)})
    [report], failures, kept = ingested(store, [*documents, Document("long", TOO_LONG)])
    assert (report.stored, report.unchanged, report.failed) == (150, 0, 1)
    assert [(failure.id, failure.code) for failure in failures] == [("long", InvalidTextError.code)]
    assert len(kept) == 150


def test_what_never_passes_is_given_up_after_its_tries_and_told_with_its_place() -> None:
    lines = [Document("a", "gone", metadata={"path": "notes.jsonl", "line": 3}), Document("b", "there")]
    [report], failures, _ = ingested(Flaky({"gone": 1000}), lines)
    assert (report.stored, report.failed) == (1, 1)
    assert failures == [Failure("the store is away", StoreUnreachableError.code, "a", "notes.jsonl", 3)]
    assert str(failures[0]) == "a: the store is away"
    assert report.failures == tuple(failures)


def test_the_source_is_read_no_further_while_many_documents_wait_to_be_tried_again() -> None:
    read = 0

    def endless() -> Iterator[Document]:
        nonlocal read
        while True:
            read += 1
            yield Document(f"d{read}", f"text {read}")

    away = Flaky({f"text {number}": 1000 for number in range(10_000)})

    async def main() -> None:
        async with Pipeline(HashEncoder(), away, ExtractiveGenerator(), streaming=STREAMING) as pipeline:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await ingest_new(pipeline, endless(), retry=RetryPolicy(5, 60.0, 60.0))

    asyncio.run(main())
    assert 64 <= read <= 64 * 12


VERSIONS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans()), max_size=12)


@settings(max_examples=40, deadline=None)
@given(VERSIONS)
@pytest.mark.slow
def test_whatever_fails_the_last_version_that_can_be_stored_is_kept(versions: list[tuple[str, int, bool]]) -> None:
    documents = [
        Document(name, TOO_LONG if lasting else f"text {number:02}")
        for number, (name, _, lasting) in enumerate(versions)
    ]
    store = Flaky({document.text: tries for document, (_, tries, _) in zip(documents, versions, strict=True)})
    [report], failures, kept = ingested(store, documents)
    assert kept == {document.id: document.text for document in documents if document.text != TOO_LONG}
    assert report.stored + report.unchanged + report.failed == len(documents)
    assert report.failed == len(failures) == sum(lasting for _, _, lasting in versions)
