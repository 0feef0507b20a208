"""How windows of one text are handed to the encoder, and come together again for the store."""

import weakref
from math import inf

import numpy as np
import pytest

from niruhybrid import analysis
from niruhybrid.config import LongText, StreamingConfig
from niruhybrid.streaming.documents import Documents
from niruhybrid.streaming.lanes import Job
from niruhybrid.streaming.long_texts import LongJob
from niruhybrid.streaming.queries import Queries
from niruhybrid.streaming.reading import Gathering, Growing, Reader
from niruhybrid.types import Document, Query, Vector
from niruhybrid.windows import Window
from tests.streaming.conftest import WindowedEncoder

DOCUMENT = Document("d", "one two", "Title")


def terms(document: Document) -> list[str]:
    return analysis.terms(document.text)


def window(part: int, text: str = "one ") -> Window:
    return Window(part, 4 * part, text, (1,), (0, 1), (0, 1))


def vector() -> Vector:
    return np.ones(2, np.float32)


def test_a_query_is_handed_in_with_its_session() -> None:
    job = Queries(Reader(WindowedEncoder(8), StreamingConfig()), None).kind.job(Query("q", "text", session="s"))
    assert isinstance(job, Job)
    assert (job.session, job.lane) == ("s", "interactive")


def test_a_window_counts_as_the_encoder_reads_it() -> None:
    encoder = WindowedEncoder(8)
    reader = Reader(encoder, StreamingConfig())
    text = "some words of a text"
    (cut,) = reader.windows(text, reader.cutter("Title"))
    assert [reader.job(None, cut, "Title", 1.0).tokens] == encoder.count_tokens([f"Title {text}"])


@pytest.mark.parametrize("mode", ["windows", "truncate"])
def test_a_documents_time_is_its_own_or_else_without_end(mode: LongText) -> None:
    reader = Reader(WindowedEncoder(8), StreamingConfig(long_text=mode, processing_timeout=9.0))
    kind = Documents(reader, None, None).kind
    for timeout in (None, 3.0):
        job = kind.job(Document("d", "word " * 400, timeout=timeout))
        assert isinstance(job, LongJob)
        assert (job.timeout, job.each) == (timeout, inf)
        short = kind.job(Document("d", "word", timeout=timeout))
        assert isinstance(short, Job)
        assert short.timeout == (timeout or inf)


@pytest.mark.parametrize("mean", [False, True])
def test_a_gathering_is_complete_once_in_whatever_order_its_windows_come(*, mean: bool) -> None:
    gathering = Gathering(DOCUMENT, mean=mean)
    gathering.put(window(1), vector())
    assert gathering.entries(terms) == []
    gathering.total = 2
    assert gathering.entries(terms) == []
    gathering.put(window(0), vector())
    entries = gathering.entries(terms)
    assert [entry.part for entry in entries] == ([0] if mean else [0, 1])
    assert [entry.start for entry in entries] == ([0] if mean else [0, 4])
    assert len(gathering.entries(terms)) == len(entries), "until it is written, it may be asked for again"
    gathering.written(7)
    for part in range(2):
        gathering.put(window(part), vector())
    assert gathering.entries(terms) == []


def test_what_is_written_is_let_go() -> None:
    gathering, growing = Gathering(DOCUMENT, mean=False), Growing(DOCUMENT)
    gathering.total = 1
    for each in (gathering, growing):
        kept = vector()
        gone = weakref.ref(kept)
        each.put(window(0), kept)
        del kept
        assert each.entries(terms)
        each.written(1)
        assert gone() is None


def test_a_growing_texts_windows_are_written_in_their_order_without_a_gap() -> None:
    growing = Growing(DOCUMENT)
    growing.put(window(1), vector())
    assert growing.entries(terms) == []
    growing.put(window(0), vector())
    growing.put(window(3), vector())
    assert [entry.part for entry in growing.entries(terms)] == [0, 1]
    growing.written(5)
    assert growing.watermarks == {0: 5, 1: 5}
    again = vector()
    gone = weakref.ref(again)
    growing.put(window(1), again)
    del again
    assert gone() is None
    assert growing.entries(terms) == []
    growing.put(window(2), vector())
    assert [entry.part for entry in growing.entries(terms)] == [2, 3]
    growing.written(6)
    assert growing.watermarks == {0: 5, 1: 5, 2: 6, 3: 6}


@pytest.mark.parametrize(("text", "kept"), [(" \n", True), (" a ", False)])
def test_a_passage_of_white_space_alone_is_one_by_its_vector(text: str, *, kept: bool) -> None:
    growing = Growing(DOCUMENT)
    growing.put(window(0, text), vector())
    (entry,) = growing.entries(terms)
    assert (entry.document.embedding is not None) == kept
    assert (entry.document.text, entry.document.title) == (text, "Title")
