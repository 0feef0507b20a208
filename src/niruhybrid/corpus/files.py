"""Documents from files and folders: what can't be read is reported, and the rest goes on."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from niruhybrid.corpus.formats import PROSE_FORMATS, Section, text_sections
from niruhybrid.corpus.passages import passages
from niruhybrid.corpus.records import RECORD_FORMATS
from niruhybrid.errors import InvalidInputError, SourceError
from niruhybrid.types import Document

__all__ = ("BadSource", "read_documents")

MAX_PROSE_BYTES = 64 << 20
_SUFFIXES = (*PROSE_FORMATS, *RECORD_FORMATS)


@dataclass(frozen=True, slots=True)
class BadSource:
    """A file, or a line of one, that can't be read.

    Attributes:
        path: as it was given or found.
        line: its number, from 1; None for the whole file or folder.
        error: why, and what to do.
    """

    path: Path
    line: int | None
    error: SourceError

    def __str__(self) -> str:
        return f"{self.path}{f':{self.line}' if self.line else ''}: {self.error}"


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    name: str


def read_documents(
    paths: Iterable[str | os.PathLike[str]], *, on_bad: Callable[[BadSource], None]
) -> Iterator[Document]:
    """Yield the documents of files and folders, in order; blocks on files, and reads only as far as it is asked to.

    Text (`.txt`, `.text`, `.rst`, or a named file without suffix), Markdown (`.md`, `.markdown`) and HTML (`.html`,
    `.htm`) are cut into passages with ids `name#1`, `name#2`…; JSONL (`.jsonl`, `.ndjson`) and CSV give one document a
    record, see `records`. All is UTF-8, with or without a byte order mark. Folders are walked in sorted order; hidden
    entries, other suffixes and linked folders are passed over, links out of the folder are reported.

    A file's name is its path below the folder that was given, after that folder's own (a relative path as given), so a
    second run gives the same ids. A passage's metadata holds `path`, `passage` from 1 and `passages`, their number:
    ids above it belong to an older, longer version of the file.

    Args:
        paths: files and folders.
        on_bad: told of what can't be read, by the thread that iterates.
    """
    read: dict[str, Path] = {}
    for given in paths:
        for source in _sources(Path(given), on_bad):
            real = source.path.resolve()
            if source.name not in read:
                read[source.name] = real
                yield from _read(source, on_bad)
            elif read[source.name] != real:
                error = SourceError(f"another file is called {source.name!r}: give both by their relative paths")
                on_bad(BadSource(source.path, None, error))


def _sources(given: Path, on_bad: Callable[[BadSource], None]) -> Iterator[_Source]:
    """Yield the files that a path stands for, with their names."""
    relative = not given.is_absolute() and ".." not in given.parts
    base = given.as_posix() if relative else given.resolve().name
    if not given.is_dir():
        yield _Source(given, base)
        return
    root = given.resolve()

    def report(err: OSError) -> None:
        on_bad(BadSource(Path(err.filename or given), None, _unreadable(err)))

    for folder, folders, files in os.walk(given, onerror=report):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            path = Path(folder, file)
            if file.startswith(".") or path.suffix.lower() not in _SUFFIXES:
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                error = SourceError("link leads out of the folder: name the file itself to have it read")
                on_bad(BadSource(path, None, error))
            else:
                yield _Source(path, Path(base, path.relative_to(given)).as_posix())


def _read(source: _Source, on_bad: Callable[[BadSource], None]) -> Iterator[Document]:
    """Yield the documents of a file up to the first thing that makes it unreadable as a whole."""
    suffix = source.path.suffix.lower()
    try:
        if suffix and suffix not in _SUFFIXES:
            raise SourceError(f"files of the kind {suffix!r} can't be read: convert it to {', '.join(_SUFFIXES)}")  # noqa: TRY301  # one handler for all refusals
        if source.path.exists() and not source.path.is_file():
            raise SourceError("this is no ordinary file: name a file or a folder")  # noqa: TRY301  # same
        if suffix in RECORD_FORMATS:
            with source.path.open("rb") as file:
                yield from RECORD_FORMATS[suffix](
                    file, source.name, lambda line, error: on_bad(BadSource(source.path, line, error))
                )
        else:
            yield from _passages(source, PROSE_FORMATS.get(suffix, text_sections)(_prose(source.path)))
    except OSError as err:
        on_bad(BadSource(source.path, None, _unreadable(err)))
    except SourceError as err:
        on_bad(BadSource(source.path, None, err))
    except ValueError as err:  # InvalidInputError is one: the name can't be an id
        reason = str(err) if isinstance(err, InvalidInputError) else f"file can't be parsed ({err}): repair it"
        on_bad(BadSource(source.path, None, SourceError(reason)))


def _prose(path: Path) -> str:
    """Return a file's text.

    Raises:
        SourceError: it is too big, empty, or not text in UTF-8.
    """
    with path.open("rb") as file:
        data = file.read(MAX_PROSE_BYTES + 1)
    if len(data) > MAX_PROSE_BYTES:
        raise SourceError(f"file is over {MAX_PROSE_BYTES} bytes: split it, or make it JSONL")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise SourceError(f"file is not UTF-8 at byte {err.start}: convert it to UTF-8") from err
    if "\0" in text:
        raise SourceError("file has NUL characters, it is no text in UTF-8: convert it to UTF-8")
    if not text.strip():
        raise SourceError(f"file is empty ({len(data)} bytes): remove it, or write something in it")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _passages(source: _Source, sections: list[Section]) -> Iterator[Document]:
    """Yield the passages of all sections, numbered through.

    Raises:
        SourceError: there are none.
    """
    cut = [(section.heading, text) for section in sections for text in passages(section.text)]
    if not cut:
        raise SourceError("file has no text to read, only marks: remove it, or write something in it")
    for number, (heading, text) in enumerate(cut, 1):
        yield Document(
            id=f"{source.name}#{number}",
            text=text,
            title=heading or Path(source.name).name,
            metadata={"path": source.name, "passage": number, "passages": len(cut)},
        )


def _unreadable(err: OSError) -> SourceError:
    error = SourceError(f"can't be opened ({err.strerror}): check the path and its permissions")
    error.__cause__ = err
    return error
