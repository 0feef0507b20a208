"""Which passages of a document follow each other, and what text they make. Pure."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

from niruhybrid.errors import InvalidPassageError
from niruhybrid.types import IndexEntry

__all__ = ("Piece", "follow", "planned", "whole")


class Piece(Protocol):
    """A part of a text."""

    @property
    def start(self) -> int:
        """Where it begins in the whole text, in characters."""
        ...

    @property
    def text(self) -> str:
        """What it says."""
        ...


class _Text(NamedTuple):
    start: int
    text: str


def planned(entries: Iterable[IndexEntry]) -> dict[str, list[IndexEntry]]:
    """Return what remains of a batch, by document: passages of consecutive parts. Ids come as they first appear.

    An entry takes the place of what the batch has of its document from its part on. The first of a list is part 0, or
    follows a passage that is to be there already.

    Raises:
        InvalidPassageError: a part is missing between two of a document, or they leave a gap in its text.
    """
    runs: dict[str, list[IndexEntry]] = {}
    for entry in entries:
        name, run = entry.document.id, runs.setdefault(entry.document.id, [])
        if entry.part < 0 or entry.start < 0:
            raise InvalidPassageError(
                f"document {name!r} has a part {entry.part} that starts at {entry.start}: count both from 0"
            )
        at = entry.part - run[0].part if run else 0
        if at > len(run):
            raise _missing(name, entry.part)
        del run[max(0, at) :]
        run.append(entry)
    for name, run in runs.items():
        before = None if run[0].part else _Text(0, "")
        for one in run:
            if before is not None:
                follow(name, one, before)
            before = _Text(one.start, one.document.text)
    return runs


def follow(name: str, entry: IndexEntry, before: Piece | None) -> None:
    """Refuse a passage that does not follow the one before it.

    Args:
        name: id of the document.
        entry: the passage.
        before: the one before it; None if there is none, which is an error.

    Raises:
        InvalidPassageError: there is no passage before it, or it begins before that one or behind its end.
    """
    if before is None:
        raise _missing(name, entry.part)
    start, end = before.start, before.start + len(before.text)
    if not start <= entry.start <= end:
        raise InvalidPassageError(
            f"part {entry.part} of document {name!r} starts at character {entry.start}, where {start} to {end} would "
            "follow on what is before it: let passages overlap or meet"
        )


def whole(pieces: Sequence[Piece]) -> str:
    """Return the text that passages make; where they overlap, the later one's."""
    last = pieces[-1].text if pieces else ""
    return "".join(one.text[: after.start - one.start] for one, after in pairwise(pieces)) + last


def _missing(name: str, part: int) -> InvalidPassageError:
    return InvalidPassageError(
        f"document {name!r} has no part {part - 1} for part {part} to follow: give the parts in order, from 0 on"
    )
