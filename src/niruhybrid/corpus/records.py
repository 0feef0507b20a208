"""Record formats: JSONL and CSV, read line by line, one document a record, in bounded memory."""

import csv
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import orjson

from niruhybrid.errors import InvalidInputError, SourceError
from niruhybrid.types import Document
from niruhybrid.types.checks import checked_metadata

__all__ = ("RECORD_FORMATS", "BadLine", "csv_documents", "jsonl_documents")

MAX_LINE_BYTES = 32 << 20
_BOM = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

BadLine = Callable[[int, SourceError], None]
"""Told of a line that can't be read: its number, from 1, and the error."""


def jsonl_documents(file: BinaryIO, name: str, on_bad_line: BadLine) -> Iterator[Document]:
    """Yield a document for each line that is a JSON object with a `text`.

    `id` or `_id` (else `name:line`), `title`, `metadata` and `embedding` are taken if they are there; other fields
    join the metadata. Blank lines are passed over.

    Raises:
        SourceError: the file is UTF-16.
    """
    for number, line in _Lines(file, on_bad_line):
        if line.isspace():
            continue
        try:
            record = orjson.loads(line)
            if not isinstance(record, dict):
                raise SourceError(f"line is a JSON {type(record).__name__}: give one object a line")  # noqa: TRY301  # one handler for all refusals
            document = _document(record, name, number)
        except (orjson.JSONDecodeError, InvalidInputError, SourceError) as err:
            on_bad_line(number, _as_source_error(err))
        else:
            yield document


def csv_documents(file: BinaryIO, name: str, on_bad_line: BadLine) -> Iterator[Document]:
    """Yield a document for each row of a table whose header names a `text` column.

    Columns `id` (else `name:line`) and `title` are taken if they are there; the others are the metadata, as strings.

    Raises:
        SourceError: the header has no `text` column, or one name twice; or the file is UTF-16.
    """
    lines = _Lines(file, on_bad_line)
    rows = csv.reader(_decoded(lines, on_bad_line))
    header = _header(rows)
    while True:
        lines.begun = 0
        try:
            row = next(rows)
            if len(row) not in {0, len(header)}:
                raise SourceError(f"row has {len(row)} fields of {len(header)}: quote fields that have commas")  # noqa: TRY301  # one handler for all refusals
            document = _document(dict(zip(header, row, strict=True)), name, lines.begun) if row else None
        except StopIteration:
            return
        except (csv.Error, InvalidInputError, SourceError) as err:
            on_bad_line(lines.begun, _as_source_error(err))
        else:
            if document:
                yield document


class _Lines:
    """The lines of a file with their numbers; those that are too long reported and left out."""

    def __init__(self, file: BinaryIO, on_bad_line: BadLine) -> None:
        self.number = 0
        self.begun = 0  # where the record that is being read begins; 0 before its first line
        self._file = file
        self._on_bad_line = on_bad_line

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while line := self._file.readline(MAX_LINE_BYTES):
            self.number += 1
            if self.number == 1:
                if line.startswith(_UTF16_MARKS):
                    raise SourceError("file is UTF-16: convert it to UTF-8")
                line = line.removeprefix(_BOM)
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                self._skip_rest()
                error = SourceError(f"line is over {MAX_LINE_BYTES} bytes: split the record")
                self._on_bad_line(self.number, error)
            else:
                yield self.number, line

    def _skip_rest(self) -> None:
        while (part := self._file.readline(MAX_LINE_BYTES)) and not part.endswith(b"\n"):
            pass


def _decoded(lines: _Lines, on_bad_line: BadLine) -> Iterator[str]:
    for number, line in lines:
        try:
            text = line.decode()
        except UnicodeDecodeError as err:
            on_bad_line(number, _as_source_error(err))
        else:
            lines.begun = lines.begun or number
            yield text


def _header(rows: Iterator[list[str]]) -> list[str]:
    try:
        header = [field.strip() for field in next(rows, [])]
    except csv.Error as err:
        raise SourceError(f"header can't be read ({err}): give one line of column names") from err
    header = [field.lower() if field.lower() in {"id", "_id", "text", "title"} else field for field in header]
    if "text" not in header:
        raise SourceError(f"table has the columns {', '.join(header)[:200]}: name one of them `text`")
    if len(set(header)) < len(header):
        raise SourceError("table has two columns of one name: give each its own")
    return header


def _document(record: Mapping[str, Any], name: str, line: int) -> Document:
    """Return the record as a document.

    Raises:
        InvalidInputError: a field can't be used.
        SourceError: there is no text.
    """
    fields = dict(record)
    embedding = fields.pop("embedding", None)
    text = fields.pop("text", "" if embedding is not None else None)
    if text is None:
        raise SourceError("record has no `text`: give one, or an `embedding`")
    given = [value for value in (fields.pop("id", None), fields.pop("_id", None)) if value is not None and value != ""]
    title = fields.pop("title", None)
    metadata = checked_metadata(fields.pop("metadata", None))
    return Document(
        id=str(given[0]) if given and type(given[0]) is int else given[0] if given else f"{name}:{line}",
        text=text,
        title="" if title is None else title,
        metadata={"path": name, "line": line, **fields, **metadata},
        embedding=embedding,
    )


def _as_source_error(err: Exception) -> SourceError:
    """Return the error as one of a source, with its cause."""
    if isinstance(err, SourceError):
        return err
    if isinstance(err, UnicodeDecodeError):
        error = SourceError(f"line is not UTF-8 at byte {err.start}: convert the file to UTF-8")
    elif isinstance(err, orjson.JSONDecodeError):
        error = SourceError(f"line is not JSON ({err}): give one object a line, in UTF-8")
    else:
        error = SourceError(str(err))
    error.__cause__ = err
    return error


RECORD_FORMATS: Mapping[str, Callable[[BinaryIO, str, BadLine], Iterator[Document]]] = {
    ".jsonl": jsonl_documents,
    ".ndjson": jsonl_documents,
    ".csv": csv_documents,
}
