import json
import os
from pathlib import Path

import pytest

from niruhybrid.corpus.files import BadSource, read_documents
from niruhybrid.errors import SourceError
from niruhybrid.types import Document


def read(*paths: str | Path) -> tuple[list[Document], list[BadSource]]:
    bad: list[BadSource] = []
    return list(read_documents(paths, on_bad=bad.append)), bad


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def reasons(bad: list[BadSource]) -> list[tuple[str, int | None, str]]:
    assert all(isinstance(source.error, SourceError) for source in bad)
    return [(source.path.name, source.line, str(source.error)) for source in bad]


def test_a_folder_is_walked_in_sorted_order_without_hidden_and_foreign_files(tmp_path: Path) -> None:
    root = tmp_path / "docs"
    for name in ("b.txt", "a.md", "sub/c.html", ".hidden.txt", ".git/d.txt", "picture.png", "Makefile"):
        write(root / name, "Some text.")
    documents, bad = read(root)
    assert [document.id for document in documents] == ["docs/a.md#1", "docs/b.txt#1", "docs/sub/c.html#1"]
    assert documents[0].title == "a.md"
    assert dict(documents[0].metadata) == {"path": "docs/a.md", "passage": 1, "passages": 1}
    assert bad == []


def test_relative_paths_name_documents_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a/x.txt", "One.")
    write(tmp_path / "b/x.txt", "Two.")
    monkeypatch.chdir(tmp_path)
    assert [document.id for document in read("a/x.txt", "b/x.txt", "a/x.txt", "./b")[0]] == ["a/x.txt#1", "b/x.txt#1"]
    assert [document.id for document in read(".")[0]] == ["a/x.txt#1", "b/x.txt#1"]


def test_two_files_of_one_name_never_replace_each_other(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a/x.txt", "One."), write(tmp_path / "b/x.txt", "Two.")
    documents, bad = read(first, second)
    assert [document.text for document in documents] == ["One."]
    assert "another file is called" in str(bad[0].error)


def test_long_texts_are_cut_under_their_headings(tmp_path: Path) -> None:
    path = write(tmp_path / "g.md", "# Guide\n\n" + "A sentence of words. " * 100 + "\n\n## End\n\nLast.")
    documents, _ = read(path)
    assert len(documents) > 2
    assert [document.id for document in documents] == [f"g.md#{n}" for n in range(1, len(documents) + 1)]
    assert documents[0].title == "Guide"
    assert documents[-1].title == "Guide: End"
    assert {document.metadata["passages"] for document in documents} == {len(documents)}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("latin.txt", "caf\xe9".encode("latin-1"), "not UTF-8 at byte 3"),
        ("wide.txt", "text".encode("utf-16"), "not UTF-8"),
        ("nul.md", b"a\0b", "NUL"),
        ("empty.txt", b"  \n", "empty"),
        ("marks.html", b"<p></p>", "no text"),
        ("odd.pdf", b"%PDF", "'.pdf' can't be read"),
        ("wide.jsonl", '{"text": "x"}'.encode("utf-16"), "UTF-16"),
        ("columns.csv", b"a,b\n1,2\n", "name one of them `text`"),
        ("twice.csv", b"text,b,b\n1,2,3\n", "two columns"),
    ],
)
def test_a_bad_file_is_reported_once_and_the_rest_goes_on(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    documents, bad = read(write(tmp_path / name, content), write(tmp_path / "good.txt", "Fine."))
    assert [document.id for document in documents] == ["good.txt#1"]
    [(path, line, error)] = reasons(bad)
    assert (path, line) == (name, None)
    assert reason in error


def test_what_is_not_there_or_no_file_is_reported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    _, bad = read(tmp_path / "absent.txt", tmp_path / "pipe.txt")
    assert ["can't be opened" in str(bad[0].error), "no ordinary file" in str(bad[1].error)] == [True, True]
    assert str(bad[0]).startswith(str(tmp_path / "absent.txt") + ": ")


def test_links_that_lead_out_are_reported_and_those_within_are_read(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.txt", "Secret.")
    root = tmp_path / "docs"
    write(root / ".data/real.txt", "Real.")
    (root / "out.txt").symlink_to(secret)
    (root / "in.txt").symlink_to(".data/real.txt")
    (root / "loop").symlink_to(root)
    documents, bad = read(root)
    assert [document.id for document in documents] == ["docs/in.txt#1"]
    assert reasons(bad) == [("out.txt", None, "link leads out of the folder: name the file itself to have it read")]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / "a.txt", b"\xef\xbb\xbfHello."),
        write(tmp_path / "b.jsonl", b'\xef\xbb\xbf{"text": "Hello."}'),
        write(tmp_path / "c.csv", b"\xef\xbb\xbftext\r\nHello.\r\n"),
    ]
    documents, bad = read(*paths)
    assert [(document.id, document.text) for document in documents] == [
        ("a.txt#1", "Hello."),
        ("b.jsonl:1", "Hello."),
        ("c.csv:2", "Hello."),
    ]
    assert bad == []


def test_jsonl_records_become_documents_and_bad_lines_are_numbered(tmp_path: Path) -> None:
    lines = [
        json.dumps({"_id": "d1", "title": "T", "text": "x", "metadata": {"a": 1}, "url": "u"}).encode(),
        b"{not json",
        b"",
        b'{"id": 7, "text": "seven"}',
        b'["text"]',
        b'{"id": "no text"}',
        b'{"id": ["x"], "text": "list id"}',
        b'{"text": "\xff"}',
        b'{"text": 5}',
        b'{"id": "v", "embedding": [3, 4]}',
        b'{"id": "w", "text": "w", "embedding": ["a"]}',
        b'{"text": "last"}',
    ]
    documents, bad = read(write(tmp_path / "r.jsonl", b"\n".join(lines)))
    assert [document.id for document in documents] == ["d1", "7", "v", "r.jsonl:12"]
    assert documents[0].title == "T"
    assert dict(documents[0].metadata) == {"path": "r.jsonl", "line": 1, "url": "u", "a": 1}
    assert documents[2].embedding is not None
    assert [round(float(value), 3) for value in documents[2].embedding] == [0.6, 0.8]
    assert [line for _, line, _ in reasons(bad)] == [2, 5, 6, 7, 8, 9, 11]


def test_csv_rows_become_documents_and_bad_rows_are_numbered(tmp_path: Path) -> None:
    table = (
        b'ID,Text,Title,lang\na,"one\n\ntwo",T,en\nb,short\n\nc,caf\xe9,x,fr\n,plain,,de\nd,,no text,en\n,"e\nf",,en\n'
    )
    documents, bad = read(write(tmp_path / "t.csv", table))
    assert [(document.id, document.text, document.title) for document in documents] == [
        ("a", "one\n\ntwo", "T"),
        ("t.csv:8", "plain", ""),
        ("t.csv:10", "e\nf", ""),
    ]
    assert documents[0].metadata["lang"] == "en"
    assert [line for _, line, _ in reasons(bad)] == [5, 7, 9]


def test_records_are_read_only_as_far_as_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", b'{"text": "x"}\n' * 3 + b"bad\n")
    bad: list[BadSource] = []
    documents = read_documents([path, tmp_path / "absent"], on_bad=bad.append)
    assert next(iter(documents)).id == "r.jsonl:1"
    assert bad == []


@pytest.mark.slow
def test_a_line_over_the_bound_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", b'{"text": "' + b"x" * (33 << 20) + b'"}\n{"text": "after"}\n')
    documents, bad = read(path)
    assert [document.id for document in documents] == ["r.jsonl:2"]
    assert [line for _, line, _ in reasons(bad)] == [1]
