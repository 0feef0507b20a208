"""From one store to another: all entries as they are, vectors and terms included, so that nothing is encoded again.

Both stores give their entries in the same order, by id and part. So what was moved before an interruption is a
beginning of what is to be moved, and is passed over; at the end both are read through and compared.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from niruhybrid.errors import StoreError
from niruhybrid.types import IndexEntry

__all__ = ("Contents", "Movable", "Moved", "move")

_AT_ONCE = 500  # entries
_START = ("", 0)

Page = Sequence[IndexEntry]


class Movable(Protocol):
    """A store that can be read through."""

    def upsert(self, entries: Sequence[IndexEntry], /) -> int:
        """See `ports.Store.upsert`."""
        ...

    def entries(self, limit: int, after: tuple[str, int] = _START) -> list[IndexEntry]:
        """Return the `limit` entries that follow a document's part, by id and part."""
        ...


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store holds.

    Attributes:
        documents: how many there are.
        passages: how many these have.
        digest: SHA-256 over all entries, in hexadecimal.
    """

    documents: int
    passages: int
    digest: str


@dataclass(frozen=True, slots=True)
class Moved:
    """What was done.

    Attributes:
        contents: of both stores.
        already: passages that were there before.
    """

    contents: Contents
    already: int


def move(source: Movable, target: Movable, tell: Callable[[int], None] | None = None) -> Moved:
    """Copy all entries into an empty store, or go on where an earlier call was interrupted; then compare both.

    Args:
        source: left as it is; nothing is to be written to it meanwhile.
        target: empty, or with a beginning of the source's entries.
        tell: called with the number of passages that are there so far.

    Raises:
        StoreError: the target has something else, or in the end is not what the source is; or one of both fails.
    """
    there = already = 0
    last = _START
    for page in _pages(source):
        found = target.entries(len(page), last)
        if _prints(found) != _prints(page[: len(found)]):
            raise _other(found)
        if rest := page[len(found) :]:
            target.upsert(rest)
        already += len(found)
        there += len(page)
        last = _key(page[-1])
        if tell is not None:
            tell(there)
    if more := target.entries(1, last):
        raise _other(more)
    wanted, made = _contents(source), _contents(target)
    if wanted != made:
        raise StoreError(f"after the move the source has {wanted}, the target {made}: let nobody write, and start anew")
    return Moved(made, already)


def _pages(store: Movable) -> Iterator[Page]:
    last = _START
    while page := store.entries(_AT_ONCE, last):
        yield page
        last = _key(page[-1])


def _contents(store: Movable) -> Contents:
    documents = passages = 0
    digest = hashlib.sha256()
    for page in _pages(store):
        passages += len(page)
        documents += sum(not entry.part for entry in page)
        for one in _prints(page):
            digest.update(one)
    return Contents(documents, passages, digest.hexdigest())


def _prints(entries: Page) -> list[bytes]:
    """Return a digest of each entry: of all that it has."""
    return [
        hashlib.sha256(
            orjson.dumps(
                [
                    *_key(entry),
                    entry.start,
                    entry.document.title,
                    entry.document.text,
                    dict(entry.document.metadata),
                    list(entry.terms),
                ],
                option=orjson.OPT_SORT_KEYS,
            )
            + entry.vector.tobytes()
        ).digest()
        for entry in entries
    ]


def _key(entry: IndexEntry) -> tuple[str, int]:
    return entry.document.id, entry.part


def _other(found: Page) -> StoreError:
    return StoreError(f"the target has something else already (document {found[0].document.id!r}): give an empty store")
