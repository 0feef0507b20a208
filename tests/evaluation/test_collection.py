from collections.abc import Callable
from pathlib import Path

import pytest

from niruhybrid.errors import SourceError
from niruhybrid.evaluation.collection import read_collection

MakeFolder = Callable[..., Path]


def test_a_folder_is_read(folder: MakeFolder) -> None:
    found = read_collection(folder())
    assert found.name == "small"
    titles = [(document.id, document.title) for document in found.documents]
    assert titles == [("d1", "Bridges"), ("d2", ""), ("d3", "Rivers"), ("d4", "")]
    assert found.queries == {"q1": "suspension bridge", "q2": "why does bread rise"}
    assert found.judgements == {"q1": {"d1": 2, "d4": 1}, "q2": {"d2": 1, "d3": 0}}
    assert found.notes == ("queries with no relevant document, not asked: 1",)


def test_compressed_files_and_a_test_split_are_read_the_same(folder: MakeFolder) -> None:
    plain, packed = read_collection(folder("plain")), read_collection(folder("packed", gz=True, test_split=True))
    assert (plain.documents, plain.queries, plain.judgements) == (packed.documents, packed.queries, packed.judgements)


def test_the_header_of_the_judgements_may_be_missing(folder: MakeFolder) -> None:
    assert read_collection(folder(qrels="q1\td1\t1\n")).judgements == {"q1": {"d1": 1}}


def test_blank_documents_are_left_out_and_said(folder: MakeFolder) -> None:
    documents = [{"_id": "d1", "title": None, "text": " "}, {"_id": "d2", "title": "Bread", "text": ""}]
    found = read_collection(folder(documents=documents))
    assert [(document.id, document.text, document.title) for document in found.documents] == [("d2", "Bread", "")]
    assert "documents with neither title nor text, left out: 1" in found.notes
    assert "judgements of documents that are not there: 3" in found.notes


def test_judgements_of_unknown_queries_are_said(folder: MakeFolder) -> None:
    found = read_collection(folder(qrels="q1\td1\t1\nq9\td1\t1\n"))
    assert "judged queries that are not among the queries: 1" in found.notes


@pytest.mark.parametrize(
    ("part", "content", "where", "what"),
    [
        ("documents", '{"_id": "d1", "text": "a"}\n\n{"_id": "d2", "tex', "corpus.jsonl:3", "not JSON"),
        ("documents", "[1]\n", "corpus.jsonl:1", "a JSON list"),
        ("documents", '{"_id": 7, "text": "a"}\n', "corpus.jsonl:1", "`_id` is a JSON int"),
        ("documents", '{"_id": "d1"}\n', "corpus.jsonl:1", "`text` is missing"),
        ("documents", '{"_id": "", "text": "a"}\n', "corpus.jsonl:1", "id has 0 characters"),
        ("documents", '{"_id": "d", "text": "a"}\n{"_id": "d", "text": "b"}\n', "corpus.jsonl:2", "there already"),
        ("documents", "\n", "corpus.jsonl", "no document"),
        ("queries", '{"_id": "q1", "text": " "}\n', "queries.jsonl:1", "query text is empty"),
        ("queries", '{"_id": "q", "text": "a"}\n{"_id": "q", "text": "b"}\n', "queries.jsonl:2", "there already"),
        ("qrels", "q1\td1\t1\nq1 d2 1\n", "qrels.tsv:2", "1 fields"),
        ("qrels", "q1\td1\t1\nq1\td2\tgood\n", "qrels.tsv:2", "grade 'good' is no whole number"),
        ("qrels", "q1\td1\t0\n", "qrels.tsv", "no query of 3 has a relevant document"),
        ("qrels", None, "small", "has no qrels.tsv or qrels/test.tsv"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(
    folder: MakeFolder, part: str, content: str | None, where: str, what: str
) -> None:
    with pytest.raises(SourceError) as caught:
        read_collection(folder(**{part: content}))
    assert where in str(caught.value)
    assert what in str(caught.value)


def test_a_damaged_compressed_file_is_named(folder: MakeFolder) -> None:
    root = folder(gz=True)
    whole = (root / "corpus.jsonl.gz").read_bytes()
    (root / "corpus.jsonl.gz").write_bytes(whole[:-12])
    with pytest.raises(SourceError, match=r"corpus\.jsonl\.gz:\d+: can't be read"):
        read_collection(root)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere' is no folder"):
        read_collection(tmp_path / "nowhere")
