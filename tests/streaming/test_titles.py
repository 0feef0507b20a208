"""A title of a long document: read with every passage, and yet not paid for with each of them."""

from collections import Counter

import pytest

from niruhybrid import EmbeddedStore, StreamingConfig, StreamProcessor
from niruhybrid.errors import InvalidTextError
from niruhybrid.testing import HashEncoder
from niruhybrid.types import SearchRequest, Vector

TITLE = "Brewing by hand"
TEXT = " ".join(f"Sentence {number} says how hot green tea should be." for number in range(100))


class CountingEncoder:
    """Counts how often each text is analysed for terms."""

    def __init__(self) -> None:
        self.analysed: Counter[str] = Counter()
        self._encoder = HashEncoder()
        self.dimension = self._encoder.dimension

    def encode(self, texts: list[str], /) -> Vector:
        return self._encoder.encode(texts)

    def terms(self, text: str, /) -> list[str]:
        self.analysed[text] += 1
        return self._encoder.terms(text)


def processor_of(encoder: CountingEncoder, store: EmbeddedStore) -> StreamProcessor:
    return StreamProcessor(encoder, store=store, config=StreamingConfig(chunk_size=24, overlap_size=4))


def titled_passages(store: EmbeddedStore, encoder: HashEncoder) -> int:
    """Return how many passages have the terms of the title, at their beginning."""
    title = encoder.terms(TITLE)
    entries = store.entries(1000)
    return sum(list(entry.terms)[: len(title)] == title for entry in entries)


def test_the_title_of_a_long_document_is_analysed_once_and_found_in_each_passage() -> None:
    encoder = CountingEncoder()
    with EmbeddedStore() as store, processor_of(encoder, store) as processor:
        result = processor.process_data("tea", TEXT, title=TITLE, timeout=60)
        assert result.windows >= 40
        assert [times for text, times in encoder.analysed.items() if TITLE in text] == [1]
        assert titled_passages(store, HashEncoder()) == result.windows
        (found,) = store.search([SearchRequest(None, HashEncoder().terms("brewing"), mode="lexical")])
        assert [hit.id for hit in found.hits] == ["tea"]


def test_a_document_read_whole_has_the_terms_of_title_and_text() -> None:
    encoder = CountingEncoder()
    with EmbeddedStore() as store, processor_of(encoder, store) as processor:
        processor.process_data("tea", "Green tea is brewed.", title=TITLE, timeout=60)
        (entry,) = store.entries(10)
        assert list(entry.terms) == HashEncoder().terms(f"{TITLE}\nGreen tea is brewed.")


def test_documents_with_different_titles_keep_their_own() -> None:
    encoder = CountingEncoder()
    with EmbeddedStore() as store, processor_of(encoder, store) as processor:
        texts = {"a": "Alpha", "b": "Beta", "c": "", "d": "Alpha"}
        documents = [{"id": name, "text": "green tea", "title": title, "timeout": 60} for name, title in texts.items()]
        assert all(result.ok for result in processor.process_data_batch(documents))
        terms = {entry.document.id: list(entry.terms) for entry in store.entries(10)}
    assert terms == {name: HashEncoder().terms(f"{title} green tea") for name, title in texts.items()}


def test_a_growing_text_refuses_a_title_that_is_too_long() -> None:
    refused = pytest.raises(InvalidTextError, match="document title has 2001 characters of 2000 allowed")
    with EmbeddedStore() as store, processor_of(CountingEncoder(), store) as processor, refused:
        processor.process_text_stream("t", ["green tea"], title="t" * 2001)
