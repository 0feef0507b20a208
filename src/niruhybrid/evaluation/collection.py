"""Test collections in BEIR form: documents, queries and judgements, read from a folder and checked line by line.

    corpus.jsonl    {"_id": "d1", "title": "…", "text": "…"}, one object a line; `.jsonl.gz` will do
    queries.jsonl   {"_id": "q1", "text": "…"}, the same
    qrels.tsv       query, document and grade between tabs, also as qrels/test.tsv; a header line may be there

A grade is a whole number; above 0 the document is relevant. Other fields are passed over.
"""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from niruhybrid.errors import InvalidInputError, SourceError
from niruhybrid.types import Document, Query

__all__ = ("Collection", "read_collection")

_JUDGEMENTS = ("qrels.tsv", "qrels/test.tsv")


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, queries, and which document answers which query.

    Attributes:
        name: the folder's name.
        documents: in the order of the file; those with neither title nor text are left out.
        queries: text by id, those with a relevant document only.
        judgements: of each of these queries, grades by document id.
        notes: what was left out or does not fit together, in words.
    """

    name: str
    documents: tuple[Document, ...]
    queries: Mapping[str, str]
    judgements: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...] = ()


class _Line(NamedTuple):
    where: str
    text: bytes

    def error(self, what: str) -> SourceError:
        return SourceError(f"{self.where}: {what}")


def read_collection(folder: str | Path) -> Collection:
    """Read a folder in BEIR form.

    Raises:
        SourceError: a file is missing or can't be read, or a line is not what it should be; the message names file and
            line. Also if no query has a relevant document.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SourceError(f"{str(root)!r} is no folder: give one with corpus.jsonl, queries.jsonl and qrels.tsv")
    documents, blank = _documents(_present(root, "corpus.jsonl", "corpus.jsonl.gz"))
    queries = _queries(_present(root, "queries.jsonl", "queries.jsonl.gz"))
    source = _present(root, *_JUDGEMENTS)
    grades = _judgements(source)
    asked = {name: text for name, text in queries.items() if any(grade > 0 for grade in grades.get(name, {}).values())}
    if not asked:
        raise SourceError(f"{source}: no query of {len(queries):,} has a relevant document: check that the ids agree")
    judgements = {name: grades[name] for name in asked}
    known = {document.id for document in documents}
    counts = {
        "documents with neither title nor text, left out": blank,
        "queries with no relevant document, not asked": len(queries) - len(asked),
        "judged queries that are not among the queries": len(grades.keys() - queries.keys()),
        "judgements of documents that are not there": sum(
            name not in known for of_query in judgements.values() for name in of_query
        ),
    }
    notes = tuple(f"{what}: {count:,}" for what, count in counts.items() if count)
    return Collection(root.resolve().name, tuple(documents), asked, judgements, notes)


def _documents(path: Path) -> tuple[list[Document], int]:
    """Return the documents, and how many were blank."""
    found: dict[str, Document | None] = {}
    for line in _lines(path):
        record = _record(line)
        name, title, text = (_string(line, record, key) for key in ("_id", "title", "text"))
        if name in found:
            raise line.error(f"document {name!r} is there already: give each its own _id")
        if not text.strip():
            text, title = title, ""
        try:
            found[name] = Document(name, text, title) if text.strip() else None
        except InvalidInputError as err:
            raise line.error(str(err)) from err
    documents = [document for document in found.values() if document is not None]
    if not documents:
        raise SourceError(f"{path}: there is no document: give one JSON object a line")
    return documents, len(found) - len(documents)


def _queries(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in _lines(path):
        record = _record(line)
        try:
            query = Query(_string(line, record, "_id"), _string(line, record, "text"))
        except InvalidInputError as err:
            raise line.error(str(err)) from err
        if query.id in found:
            raise line.error(f"query {query.id!r} is there already: give each its own _id")
        found[query.id] = query.text
    return found


def _judgements(path: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for at, line in enumerate(_lines(path)):
        fields = line.text.decode("utf-8", "replace").rstrip("\r\n").split("\t")
        if len(fields) != 3:
            raise line.error(f"{len(fields)} fields: give query, document and grade, with tabs between them")
        query, document, grade = fields
        if grade.strip().lstrip("+-").isdecimal():
            found.setdefault(query, {})[document] = int(grade)
        elif at:
            raise line.error(f"grade {grade[:40]!r} is no whole number: give one, above 0 for relevant")
    return found


def _present(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_file():
            return root / name
    raise SourceError(f"{str(root)!r} has no {' or '.join(names)}: see `niru eval --help` for what is needed")


def _lines(path: Path) -> Iterator[_Line]:
    """Yield the lines that are not blank, with their place."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                if not text.isspace():
                    yield _Line(f"{path}:{number}", text)
    except (OSError, EOFError, zlib.error) as err:
        raise SourceError(f"{path}:{number + 1}: can't be read ({err}): check the file") from err


def _record(line: _Line) -> dict[str, Any]:
    try:
        record = orjson.loads(line.text)
    except orjson.JSONDecodeError as err:
        raise line.error(f"not JSON ({err}): give one object a line") from err
    if not isinstance(record, dict):
        raise line.error(f"a JSON {type(record).__name__}: give one object a line")
    return record


def _string(line: _Line, record: Mapping[str, Any], key: str) -> str:
    value = record.get(key, "" if key == "title" else None)
    if value is None and key == "title":
        return ""
    if not isinstance(value, str):
        missing = "missing" if key not in record else f"a JSON {type(value).__name__}"
        raise line.error(f"`{key}` is {missing}: give a string")
    return value
