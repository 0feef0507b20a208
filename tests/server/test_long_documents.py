"""Long documents over HTTP: what the acknowledgements and the clients' results say of how they were read."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import requests

from niruhybrid import AsyncClient, Client, DataResult
from niruhybrid.config import StreamingConfig
from niruhybrid.pipeline import Pipeline
from niruhybrid.ports import Encoder
from niruhybrid.testing import HashEncoder
from tests.streaming.conftest import WindowedEncoder

pytestmark = pytest.mark.integration

LONG = "This sentence has eight tokens with its end. " * 20
DOCUMENTS = [{"id": "long", "text": LONG, "title": "Nine"}, {"id": "short", "text": "One."}, {"id": "bad", "text": ""}]
Serving = Callable[..., Any]


@pytest.fixture
def url(serving: Serving, make_pipeline: Callable[..., Pipeline]) -> Callable[..., str]:
    def start(encoder: Encoder, **settings: Any) -> str:
        streaming = StreamingConfig(chunk_size=24, overlap_size=4, **settings)
        found: str = serving(lambda: make_pipeline(encoder=encoder, streaming=streaming)).url
        return found

    return start


def posted(url: str) -> list[dict[str, Any]]:
    body = b"".join(json.dumps(each).encode() + b"\n" for each in DOCUMENTS)
    answer = requests.post(
        f"{url}/stream/data", data=body, headers={"Content-Type": "application/x-ndjson"}, timeout=10
    )
    return [json.loads(line) for line in answer.text.splitlines()]


def test_an_acknowledgement_says_in_how_many_windows_a_document_was_read(url: Callable[..., str]) -> None:
    long, short, bad, _ = posted(url(WindowedEncoder(64)))
    assert (long["windows"], long["tokens_seen"], long["tokens_used"]) == (10, 181, 181)
    assert (short["windows"], short["tokens_seen"], short["tokens_used"]) == (1, 2, 2)
    assert "notes" not in long
    assert bad.keys() == {"line", "id", "error"}


def test_a_document_that_was_cut_is_acknowledged_with_what_was_read_and_a_note(url: Callable[..., str]) -> None:
    long, short, *_ = posted(url(WindowedEncoder(64), long_text="truncate"))
    assert (long["windows"], long["tokens_seen"], long["tokens_used"]) == (1, 181, 32)
    assert "truncated" in long["notes"][0]
    assert "notes" not in short


def test_of_an_encoder_that_tells_no_tokens_the_windows_are_known(url: Callable[..., str]) -> None:
    long, *_ = posted(url(HashEncoder()))
    assert long.keys() == {"line", "id", "watermark", "windows"}
    assert long["windows"] > 1


def ingested_blocking(url: str) -> list[DataResult]:
    with Client(url) as client:
        return list(client.ingest(DOCUMENTS))


def ingested_in_task(url: str) -> list[DataResult]:
    async def main() -> list[DataResult]:
        async with asyncio.timeout(10), AsyncClient(url) as client:
            return [result async for result in client.ingest(DOCUMENTS)]

    return asyncio.run(main())


@pytest.mark.parametrize("ingested", [ingested_blocking, ingested_in_task])
def test_the_clients_results_say_so_too(url: Callable[..., str], ingested: Callable[[str], list[DataResult]]) -> None:
    results = {result.id: result for result in ingested(url(WindowedEncoder(64)))}
    long, short = results["long"], results["short"]
    assert (long.windows, long.tokens_seen, long.tokens_used) == (10, 181, 181)
    assert (short.windows, short.tokens_seen, short.tokens_used) == (1, 2, 2)
    assert results["bad"].windows == 0
    assert results["bad"].error is not None
