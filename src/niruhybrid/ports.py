"""What the pipeline asks of the parts that can be exchanged: one contract suite each, in tests/contracts/."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from niruhybrid.types import (
    Document,
    Finish,
    Hit,
    IndexEntry,
    Match,
    Query,
    SearchRequest,
    SearchResponse,
    StandingQuery,
    Token,
)
from niruhybrid.windows import Tokens, Window

__all__ = ("BatchObserver", "Encoder", "Generator", "Store", "TermEncoder", "TokenCounter", "WindowEncoder")


class Encoder(Protocol):
    """Turns texts into vectors. A `sentence_transformers.SentenceTransformer` is one.

    Two attributes are used where an encoder has them: `dimension: int`, and `terms` (see `TermEncoder`).
    """

    def encode(self, texts: list[str], /) -> Any:
        """Return one row per text, in the texts' order: anything that NumPy can read as `(n, dim)` numbers.

        Called from worker threads, never by two at once. May raise: the batch is then tried again in parts until the
        text at fault is found.
        """
        ...


@runtime_checkable
class TermEncoder(Protocol):
    """An encoder that also analyses texts for lexical search."""

    def terms(self, text: str, /) -> list[str]:
        """Return the text's lexical terms, in order, with repeats; the same for documents and queries."""
        ...


@runtime_checkable
class TokenCounter(Protocol):
    """An encoder that reads a bounded number of tokens and can tell how many a text has."""

    max_tokens: int

    def count_tokens(self, texts: list[str], /) -> list[int]:
        """Return how many tokens each text has, those beyond `max_tokens` included."""
        ...


@runtime_checkable
class WindowEncoder(Protocol):
    """An encoder that tells of its tokens, and encodes windows of a long text as well as texts.

    To others a window is its title and its passage, as one text.
    """

    max_tokens: int

    def tokenize(self, text: str, /) -> Tokens:
        """Return a text's tokens, without marks of beginning and end: two fewer than `max_tokens` can be read."""
        ...

    def encode(self, texts: Sequence[str | Window], /) -> Any:
        """Return one row per text or window, as `Encoder.encode` does."""
        ...


class Store(Protocol):
    """Keeps documents and finds them, by meaning and by words. Thread-safe; every call may block."""

    def upsert(self, entries: Sequence[IndexEntry], /) -> int:
        """Keep all entries or none; each takes the place of what `IndexEntry` says (the last of a batch wins).

        Returns:
            The watermark: a search that reports this or a later one saw the entries. The next search does.

        Raises:
            InvalidVectorError: a vector's dimension is not the store's.
            InvalidPassageError: a passage does not continue its document; nothing was written.
            StoreError: nothing was written.
        """
        ...

    def delete(self, ids: Sequence[str], /) -> tuple[int, int]:
        """Remove documents; unknown ids are passed over.

        Returns:
            How many were removed, and the watermark.

        Raises:
            StoreError: nothing was removed.
        """
        ...

    def get(self, ids: Sequence[str], /) -> list[Document | None]:
        """Return the documents of these ids, in their order, None for each unknown one."""
        ...

    def search(self, requests: Sequence[SearchRequest], /) -> list[SearchResponse]:
        """Answer a batch of queries, in their order, all from one state of the store.

        Of the passages of one document the best one is its hit.

        Raises:
            InvalidVectorError: a vector's dimension is not the store's.
            UnknownWatermarkError: `min_watermark` is of a write that this store has not seen.
            StoreError: nothing can be read.
        """
        ...

    def subscribe(self, query: StandingQuery, deliver: Callable[[Match], None], /) -> Callable[[], None]:
        """Have `deliver` told of every document that matches `query` from now on, once it is searchable.

        Args:
            query: what is waited for; not kept when the store is closed.
            deliver: called in the thread that wrote, or in one of the store's where another process did, in the order
                of the writes; must return at once and not raise: the subscription ends when it raises, or takes more
                than a second.

        Returns:
            What ends the subscription; to be called from any thread, a second time in vain.

        Raises:
            InvalidVectorError: the vector's dimension is not the store's.
        """
        ...

    def count(self) -> int:
        """Return how many documents there are."""
        ...

    def ids(self) -> Iterable[str]:
        """Return the ids of all documents, in no particular order."""
        ...

    def list_ids(self, limit: int, after: str = "") -> list[str]:
        """Return the `limit` ids that follow `after`, ascending by code point: page by page, all there are."""
        ...

    def close(self) -> None:
        """Release files and memory; a second call does nothing."""
        ...


class Generator(Protocol):
    """Writes an answer from a query and its hits. One that holds connections has `aclose()` too, called once, last."""

    def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token | Finish]:
        """Yield the answer in pieces, at least one, and a `Finish` after the last where there is something to say.

        Closing the iterator stops the work. An iterator that ends without a `Finish` has ended for the reason `stop`.

        Raises:
            GenerationError: no answer, or no more of it, can be given.
        """
        ...


class BatchObserver(Protocol):
    """Is told of every encode. Thread-safe; must return at once and not raise."""

    def origin(self) -> object:
        """Return what an item that is handed in now belongs to, or None; asked where it is handed in."""
        ...

    def encoded(
        self, lane: str, origins: Sequence[object], *, texts: int, tokens: int, seconds: float, failed: bool
    ) -> None:
        """Take note of a batch whose encode has just ended; called in the thread that encoded.

        Args:
            lane: where its items waited.
            origins: of each item that it served.
            texts: how many were encoded, each once.
            tokens: estimated, padded ones counted.
            seconds: that it took, all tries together.
            failed: whether the encoder raised.
        """
        ...
