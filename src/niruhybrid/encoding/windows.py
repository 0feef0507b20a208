"""Long and growing texts through the model: windows that attend to themselves, to what came before and to the title.

What each window reads is decided in `niruhybrid.windows`. The idea of keeping a few first tokens in sight is that of
Xiao et al., "Efficient Streaming Language Models with Attention Sinks" (ICLR 2024), for an encoder; pooling a passage
from a window wider than it is Günther et al., "Late Chunking" (2024).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import ClosedError, InvalidSettingError, InvalidTextError
from niruhybrid.ports import WindowEncoder
from niruhybrid.types import Vector
from niruhybrid.types.checks import checked_id, checked_text
from niruhybrid.windows import Window, WindowCutter, cutter_for, unit_mean

__all__ = ("EncodedText", "EncodedWindow", "EncodingStream", "encoded", "stream_of")

_AT_ONCE = 4  # windows encoded together: no slower than more, and each number of them costs memory for good


class EncodedWindow(NamedTuple):
    """A passage of a text, and its vector.

    Attributes:
        part: its number in the text, from 0.
        text: the passage.
        span: where it begins and ends in the text, in characters (code points).
        vector: `(dim,)` float32, of unit length.
    """

    part: int
    text: str
    span: tuple[int, int]
    vector: Vector


class EncodedText(NamedTuple):
    """A text's vectors, and what of it they stand for.

    Attributes:
        vectors: `(n, dim)` float32 unit vectors: one for each span.
        spans: where each one's passage begins and ends in the text, in characters (code points).
        tokens_seen: tokens of title and text.
        tokens_used: those of them that were read.
        windows: windows that were read.
    """

    vectors: Vector
    spans: tuple[tuple[int, int], ...]
    tokens_seen: int
    tokens_used: int
    windows: int


class EncodingStream:
    """Encodes a text as it grows. For one thread at a time.

    However the text is cut into feeds, the windows are the same. Memory is in proportion to a window, and to what one
    feed brings; time to the text.

    Args:
        encoder: what encodes.
        id: the text's name.
        cutter: how the text is cut.

    Attributes:
        id: the text's name.
        windows: windows returned so far.
        tokens_used: tokens of their passages and of the title.
    """

    def __init__(self, encoder: WindowEncoder, id: str, cutter: WindowCutter) -> None:  # noqa: A002  # as everywhere
        self.id = id
        self.windows = 0
        self.tokens_used = 0
        self._encoder = encoder
        self._cutter: WindowCutter | None = cutter

    def feed(self, text: str) -> list[EncodedWindow]:
        """Return the windows that are final, now that the text goes on with `text`; often none.

        Raises:
            InvalidTextError: `text` is no string or not valid Unicode; it was not added.
            ClosedError: the stream has been closed.
        """
        if not isinstance(text, str):
            raise InvalidTextError(f"a piece of text {self.id} is a {type(text).__name__}: give a string")
        if text and not text.isspace():
            checked_text(text, what=f"a piece of text {self.id}")
        return self._encoded(self._open().feed(text))

    def close(self) -> list[EncodedWindow]:
        """Return the last windows: the text has ended. None for an empty text.

        Raises:
            ClosedError: the stream has been closed.
        """
        windows = self._encoded(self._open().close())
        self._cutter = None
        return windows

    def _open(self) -> WindowCutter:
        if self._cutter is None:
            raise ClosedError(f"the stream of text {self.id} is closed: open a new one")
        return self._cutter

    def _encoded(self, windows: Sequence[Window]) -> list[EncodedWindow]:
        self.windows += len(windows)
        self.tokens_used += sum(window.used for window in windows)
        return [
            EncodedWindow(window.part, window.text, (window.start, window.end), vector)
            for window, vector in zip(windows, _vectors(self._encoder, windows), strict=True)
        ]


def stream_of(encoder: WindowEncoder, id: str, title: str, config: StreamingConfig) -> EncodingStream:  # noqa: A002  # as everywhere
    """Return what encodes a text as it grows.

    Raises:
        InvalidIdError: `id` can't be used.
        InvalidSettingError: `config.long_text` needs the whole text.
    """
    if config.long_text not in {"windows", "late"}:
        raise InvalidSettingError(
            f"`long_text` is {config.long_text!r}: a text that still grows needs 'windows' or 'late'"
        )
    return EncodingStream(encoder, checked_id(id), cutter_for(encoder.tokenize, encoder.max_tokens, title, config))


def encoded(encoder: WindowEncoder, text: str, title: str, config: StreamingConfig) -> EncodedText:
    """Encode a whole text as `config.long_text` says.

    Raises:
        InvalidTextError: the text can't be used, or is longer than the model reads and `long_text` is `error`.
    """
    checked_text(text)
    if config.long_text == "truncate":
        return _beginning(encoder, text, title)
    cutter = cutter_for(encoder.tokenize, encoder.max_tokens, title, config)
    windows = cutter.feed(text) + cutter.close()
    seen = cutter.seen
    if config.long_text == "error" and len(windows) > 1:
        raise InvalidTextError(
            f"text has {seen} tokens, the model reads {encoder.max_tokens - 2}: cut it, or choose another `long_text`"
        )
    used = sum(window.used for window in windows)
    vectors = _vectors(encoder, windows)
    if config.long_text == "mean":
        return EncodedText(
            unit_mean(vectors.sum(axis=0), vectors[0])[None], ((0, len(text)),), seen, used, len(windows)
        )
    spans = tuple((window.start, window.end) for window in windows)
    return EncodedText(vectors, spans, seen, used, len(windows))


def _beginning(encoder: WindowEncoder, text: str, title: str) -> EncodedText:
    """Encode as much as the model reads at once."""
    titled = len(encoder.tokenize(title).ids)
    starts = [*encoder.tokenize(text).starts, len(text)]
    used = min(encoder.max_tokens - 2, titled + len(starts) - 1)
    end = starts[max(0, used - titled)]
    vector = encoder.encode([f"{title}\n{text}" if title else text])
    return EncodedText(np.asarray(vector, np.float32), ((0, end),), titled + len(starts) - 1, used, 1)


def _vectors(encoder: WindowEncoder, windows: Sequence[Window]) -> Vector:
    parts = [encoder.encode(list(windows[at : at + _AT_ONCE])) for at in range(0, len(windows), _AT_ONCE)]
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
