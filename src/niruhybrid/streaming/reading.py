"""What an encoder makes of texts: their windows, tokens and terms; and how windows of one text come together again."""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar, cast

import numpy as np

from niruhybrid import analysis
from niruhybrid.config import StreamingConfig
from niruhybrid.errors import EncoderFailedError, NiruError
from niruhybrid.ports import Encoder, TermEncoder, TokenCounter, WindowEncoder
from niruhybrid.streaming.lanes import Job, LaneName
from niruhybrid.streaming.write_order import Arrival
from niruhybrid.types import Document, IndexEntry, Vector
from niruhybrid.types.checks import checked_text
from niruhybrid.types.items import passage_of
from niruhybrid.windows import MARKS, Window, WindowCutter, cutter_for, estimated_tokens, unit_mean

__all__ = ("Gathering", "Growing", "Part", "Reader", "Whole", "entry_of", "truncated")

_SLICE = 2048  # characters tokenized at a time: few milliseconds
_CHARS_READ = 32  # characters for each token, where only the beginning is read; words are shorter

_P = ParamSpec("_P")
_R = TypeVar("_R")

Terms = Callable[[Document], Sequence[str]]
"""What gives an entry's lexical terms."""


class Reader:
    """Reads texts for one encoder: by its own tokens and terms if it tells of them, else by an estimate.

    Args:
        encoder: what the windows are for.
        config: how long texts are cut.

    Attributes:
        config: the same.
        counts: whether tokens are the encoder's own.
    """

    def __init__(self, encoder: Encoder, config: StreamingConfig) -> None:
        self._encoder = encoder if isinstance(encoder, WindowEncoder) else None
        self._reads: int | None = getattr(encoder, "max_tokens", None)
        self._counter = encoder if isinstance(encoder, TokenCounter) else None
        self._tokenize = estimated_tokens if self._encoder is None else _guarded(self._encoder.tokenize)
        self._terms = encoder.terms if isinstance(encoder, TermEncoder) else analysis.terms
        self.config = config
        self.counts = self._encoder is not None

    def refuse_long(self, text: str, what: str) -> None:
        """Refuse a text of more than `max_text_chars`, as an error names it.

        Raises:
            InvalidTextError: it is longer.
        """
        if len(text) > self.config.max_text_chars:
            checked_text(text, what=what, max_chars=self.config.max_text_chars)

    def terms(self, text: str) -> list[str]:
        """Return the text's lexical terms, in order, with repeats."""
        return self._terms(text)

    def counted(self, text: str) -> int | None:
        """Return how many tokens a text has that is read in full; None for an encoder that can't tell."""
        if self._counter is None:
            return None
        marks = MARKS if self.counts else 0  # they are no tokens of the text
        return self._counter.count_tokens([text])[0] - marks

    def notes(self, text: str) -> tuple[str, ...]:
        """Say what of a text the encoder does not read. The start of a long one is enough to tell, and soon counted."""
        if not self.may_be_cut(text):
            return ()
        most = cast("TokenCounter", self._counter).max_tokens
        if cast("TokenCounter", self._counter).count_tokens([text[: _CHARS_READ * most]])[0] > most:
            return (truncated(most),)
        read = len(self.as_read(text))
        return (truncated(read, "characters"),) if read < len(text) else ()

    def may_be_cut(self, text: str) -> bool:
        """Whether the encoder tells of its tokens, and the text is long enough to have more than it reads.

        No tokenizer that is in use makes more tokens than a text has bytes.
        """
        if self._counter is None:
            return False
        room = self._counter.max_tokens - MARKS
        return len(text) > room or (not text.isascii() and len(text.encode()) > room)

    def as_read(self, text: str) -> str:
        """Return the text's beginning, as much as the encoder reads of it or a little more, so that it has less to cut.

        All of the text for an encoder that does not tell of its tokens.
        """
        if self._encoder is None or len(text) <= _CHARS_READ * self._encoder.max_tokens:
            return text
        window, _, _ = self.beginning(text.lstrip(), "")  # a beginning of white space alone could not be encoded
        return window.text

    def beginning(self, text: str, title: str) -> "tuple[Window, Iterator[Window], Callable[[], int]]":
        """Return what the encoder reads at once of a text; all of it for one that can only count, and cuts by itself.

        Quick for any text: of words of uncommon length fewer are read than there is room for.

        Returns:
            The beginning as one window, whole if nothing follows; the windows that follow, to be cut by who wants all
            tokens counted; and what tells of their number then.
        """
        encoder = self._encoder
        if encoder is None:
            return self._uncut(text, title)
        room = encoder.max_tokens - MARKS
        ids = list(self._tokenize(title).ids) if title else []
        titled = len(ids)
        cutter = self.cutter("")
        windows = self.windows(text, cutter)
        end = 0
        for window in windows:
            ids += window.ids[slice(*window.own)]
            end = window.end
            if len(ids) >= room or end >= _CHARS_READ * room:
                break
        whole = next(windows, None) is None and len(ids) <= room
        place = 0, min(room, len(ids))
        return Window(0, 0, text[:end], tuple(ids[:room]), place, place, whole), windows, lambda: titled + cutter.seen

    def _uncut(self, text: str, title: str) -> "tuple[Window, Iterator[Window], Callable[[], int]]":
        counter = cast("TokenCounter", self._counter)
        place = 0, counter.max_tokens
        titled = f"{title}\n{text}" if title else text
        return Window(0, 0, text, (), place, place), iter(()), lambda: counter.count_tokens([titled])[0]

    def cutter(self, title: str) -> WindowCutter:
        """Return what cuts a text with this title.

        Raises:
            EncoderFailedError: the encoder raised something else than our errors for the title; so does the cutter.
        """
        return cutter_for(self._tokenize, self._reads, title, self.config)

    def windows(self, text: str, cutter: WindowCutter) -> Iterator[Window]:
        """Yield a text's windows, cut as they are asked for."""
        for start in range(0, len(text), _SLICE):
            yield from cutter.feed(text[start : start + _SLICE])
        yield from cutter.close()

    def read(self, window: Window, title: str) -> str | Window:
        """Return what the encoder is given for a window."""
        if self._encoder is not None:
            return window
        return f"{title}\n{window.text}" if title else window.text

    def job(self, payload: object, window: Window, title: str, timeout: float, lane: LaneName = "bulk") -> Job:
        """Return the job that encodes a window."""
        tokens = None if self._encoder is None else len(window.ids) + MARKS
        return Job(payload, lane, self.read(window, title), timeout, tokens=tokens)


def _guarded(ask: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return the same, but whatever it raises is an error of its one text, which ends no stream."""

    @wraps(ask)
    def guarded(*args: _P.args, **more: _P.kwargs) -> _R:
        try:
            return ask(*args, **more)
        except NiruError:
            raise
        except Exception as err:
            raise EncoderFailedError(f"reading the text's tokens raised {type(err).__name__}: see the cause") from err

    return guarded


def truncated(most: int, unit: str = "tokens") -> str:
    """Return the note of a text that was read no further."""
    return f"truncated: only the first {most} {unit} were encoded; split the text into passages"


class Part:
    """What a window's job carries: the window, and where its vector belongs.

    Args:
        window: one of a text's.
        gathering: the text's.
    """

    __slots__ = ("gathering", "window")

    def __init__(self, window: Window, gathering: "Gathering | Growing") -> None:
        self.window = window
        self.gathering = gathering


class Whole:
    """A document that is encoded at once. Used by the thread that writes.

    Args:
        document: the document.

    Attributes:
        document: the same.
        arrival: its place among the writes of its id; set when it is handed in.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.arrival: Arrival | None = None
        self._vector: Vector | None = None

    def put(self, vector: Vector) -> None:
        """Keep its vector."""
        self._vector = vector

    def entries(self, terms: Terms) -> list[IndexEntry]:
        """Return what is to be written."""
        return [] if self._vector is None else [IndexEntry(self.document, self._vector, terms(self.document))]

    def written(self, watermark: int) -> None:
        """Take note that it is kept."""


class Gathering:
    """A document's windows, written together once all are there. Used by the thread that writes.

    Args:
        document: the whole.
        mean: whether it is kept as one entry with the mean vector, or as one for each window.

    Attributes:
        document: the whole.
        arrival: its place among the writes of its id; set when it is handed in.
        total: how many windows there are; None as long as that is not known.
    """

    def __init__(self, document: Document, *, mean: bool) -> None:
        self.document = document
        self.arrival: Arrival | None = None
        self.total: int | None = None
        self._mean = mean
        self._vectors: dict[int, tuple[Window, Vector]] = {}
        self._written = False

    def put(self, window: Window, vector: Vector) -> None:
        """Keep a window's vector; again, in vain."""
        self._vectors[window.part] = window, vector

    def entries(self, terms: Terms) -> list[IndexEntry]:
        """Return what is to be written now: nothing, or everything."""
        if self._written or len(self._vectors) != self.total:
            return []
        kept = [self._vectors[part] for part in sorted(self._vectors)]
        if self._mean:
            vector = unit_mean(np.sum([vector for _, vector in kept], axis=0), kept[0][1])
            return [IndexEntry(self.document, vector, terms(self.document))]
        return [entry_of(self.document, window, vector, terms) for window, vector in kept]

    def written(self, watermark: int) -> None:  # noqa: ARG002  # the same for those that grow
        """Take note that the entries are kept."""
        self._written = True
        self._vectors.clear()


class Growing:
    """A growing text's windows, written in their order as they come. Used by the thread that writes.

    Args:
        document: its id, title and metadata.

    Attributes:
        document: the same.
        arrival: its place among the writes of its id; set when its first window is handed in.
        watermarks: of each window that was written, until it is asked for.
    """

    def __init__(self, document: Document) -> None:
        self.watermarks: dict[int, int] = {}
        self.document = document
        self.arrival: Arrival | None = None
        self._vectors: dict[int, tuple[Window, Vector]] = {}
        self._next = 0

    def put(self, window: Window, vector: Vector) -> None:
        """Keep a window's vector; again, in vain."""
        if window.part >= self._next:
            self._vectors[window.part] = window, vector

    def entries(self, terms: Terms) -> list[IndexEntry]:
        """Return what is to be written now: the windows that follow those written, without a gap."""
        return [entry_of(self.document, *self._vectors[part], terms) for part in self._ready()]

    def written(self, watermark: int) -> None:
        """Take note that the entries are kept."""
        for part in self._ready():
            del self._vectors[part]
            self.watermarks[part] = watermark
            self._next = part + 1

    def _ready(self) -> list[int]:
        end = self._next
        while end in self._vectors:
            end += 1
        return list(range(self._next, end))


def entry_of(document: Document, window: Window, vector: Vector, terms: Terms) -> IndexEntry:
    """Return a window's entry: a passage of its document."""
    kept = vector if window.text.isspace() else None  # a document without words is one by its vector
    passage = passage_of(document, window.text, kept)
    return IndexEntry(passage, vector, terms(passage), window.part, window.start)
