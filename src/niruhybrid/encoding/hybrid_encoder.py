"""The encoder: dense vectors and lexical terms of the same text."""

import logging
from collections.abc import Sequence
from pathlib import Path
from threading import get_ident

import numpy as np
from tokenizers import Encoding, Tokenizer

from niruhybrid import analysis
from niruhybrid.config import LongText, StreamingConfig
from niruhybrid.encoding.model_config import ModelConfig, read_config
from niruhybrid.encoding.packing import Row, lay_out, plan
from niruhybrid.encoding.weights import locate
from niruhybrid.encoding.windows import EncodedText, EncodingStream, encoded, stream_of
from niruhybrid.errors import InvalidTextError, ModelCorruptError, ModelUnsupportedError
from niruhybrid.forks import forked_error, watch
from niruhybrid.types import Vector
from niruhybrid.types.checks import checked_text
from niruhybrid.windows import MARKS, Tokens, Window

__all__ = ("HybridEncoder",)

_log = logging.getLogger(__name__)

_WARMED = (8, 12, 16, 20, 24)  # tokens of a lone question: its shapes are prepared before the first one comes


class HybridEncoder:
    """Encodes texts on one processor core, with no torch and no network. Thread-safe.

    A text gets the same vector whatever it is encoded with, within 1e-3 cosine distance.

    Args:
        model: a folder with a BERT model, or a hub name, `owner/name`; None for all-MiniLM-L6-v2.

    Attributes:
        dimension: length of the vectors.
        max_tokens: tokens of a text that are read, special tokens included; `count_tokens` tells who has more.

    Raises:
        ModelNotFoundError: no such model here, and no network to fetch it.
        ModelCorruptError: a file of the model is missing or damaged.
        ModelUnsupportedError: the model is of a kind that is not supported.
    """

    def __init__(self, model: str | Path | None = None) -> None:
        from niruhybrid.encoding.runtime import Runtime  # noqa: PLC0415  # OpenVINO is loaded with the first encoder

        folder = locate(model)
        config = read_config(folder)
        self.dimension = config.hidden
        self.max_tokens = config.max_tokens
        self._pooling = config.pooling
        self._tokenizer = _tokenizer(folder, config.vocabulary)
        self._first, self._last = _marks(folder, self._tokenizer, config.vocabulary)
        self._runtime = Runtime(folder, config)
        self._told_of_truncation = False
        self._tokenizing: set[int] = set()  # threads inside the tokenizer, whose locks a fork would copy
        self._broken = False
        _tell_of_assumptions(folder, config)
        for length in _WARMED:
            self._vectors([Row([0] * min(length, self.max_tokens), (0, length))])
        watch(self)

    def after_fork(self) -> None:
        """Take note, in the child, that the process has forked: amid a call of another thread, which can't end here."""
        self._broken = self._broken or bool(self._tokenizing - {get_ident()})

    def encode(self, texts: Sequence[str | Window], /) -> Vector:
        """Return `(n, dimension)` float32 unit vectors, C-contiguous, in the order of the texts and windows.

        Of a text longer than `max_tokens`, the beginning is encoded; `encode_long` and `open_stream` read all of it.

        Raises:
            InvalidTextError: `texts` is one string, one of the texts is no string, blank or not valid Unicode, or a
                window is too long; the message gives its position. Nothing was encoded.
        """
        if isinstance(texts, str | bytes):
            raise InvalidTextError("texts is one string: give a list, such as [text]")
        rows = [self._row(text, position) for position, text in enumerate(texts)]
        self._tell_of_truncation(sum(len(row.ids) > self.max_tokens for row in rows))
        return self._vectors([_shortened(row, self.max_tokens) for row in rows])

    def encode_long(
        self,
        text: str,
        *,
        title: str = "",
        long_text: LongText = "windows",
        chunk_size: int = 128,
        overlap_size: int = 32,
    ) -> EncodedText:
        """Encode a text of any length, and say what of it was read.

        Args:
            text: not blank.
            title: read with every window; may be empty.
            long_text: `windows` gives a vector for each window, `late` too, in more context; `mean` one for all;
                `truncate` one of the beginning; `error` refuses a text longer than the model reads.
            chunk_size: tokens of a window, overlap included; 8 to 100,000.
            overlap_size: tokens that a window has in common with the one before; 0 to less than `chunk_size`.

        Raises:
            InvalidTextError: the text is no string, blank or not valid Unicode, or too long for `error`.
            InvalidSettingError: one of the others is out of its range.
        """
        return encoded(
            self, text, title, StreamingConfig(long_text=long_text, chunk_size=chunk_size, overlap_size=overlap_size)
        )

    def open_stream(
        self,
        id: str,  # noqa: A002  # the same word as everywhere
        /,
        *,
        title: str = "",
        long_text: LongText = "windows",
        chunk_size: int = 128,
        overlap_size: int = 32,
    ) -> EncodingStream:
        """Return what encodes a text that still grows, window by window, in memory for one window.

        Args:
            id: the text's name, kept for the caller.
            title: read with every window; may be empty.
            long_text: `windows` or `late`.
            chunk_size: tokens of a window, overlap included; 8 to 100,000.
            overlap_size: tokens that a window has in common with the one before; 0 to less than `chunk_size`.

        Raises:
            InvalidSettingError: an argument can't be used.
        """
        config = StreamingConfig(long_text=long_text, chunk_size=chunk_size, overlap_size=overlap_size)
        return stream_of(self, id, title, config)

    def tokenize(self, text: str, /) -> Tokens:
        """Return the text's tokens, without marks of beginning and end; they do not change when words are added."""
        found = self._tokens_of(text, with_marks=False)
        return Tokens(found.ids, [start for start, _ in found.offsets], found.word_ids)

    def terms(self, text: str, /) -> list[str]:
        """Return the text's lexical terms, in order, with repeats; the same for documents and queries."""
        return analysis.terms(text)

    def count_tokens(self, texts: Sequence[str], /) -> list[int]:
        """Return how many tokens each text has, special tokens included; above `max_tokens`, the rest is not read.

        Raises:
            InvalidTextError: as `encode` does.
        """
        if isinstance(texts, str | bytes):
            raise InvalidTextError("texts is one string: give a list, such as [text]")
        return [len(self._row(text, position).ids) for position, text in enumerate(texts)]

    def _vectors(self, rows: list[Row]) -> Vector:
        """Return the vectors of texts, `(n, dimension)`."""
        vectors = np.empty((len(rows), self.dimension), np.float32)
        for run in plan([len(row.ids) for row in rows], self._runtime.tile):
            vectors[run.texts] = self._runtime.run(lay_out(run, rows, self._pooling))
        return vectors

    def _row(self, text: str | Window, position: int) -> Row:
        """Return a text as the model reads it. One by one: the tokenizer's batches would start threads on every core.

        Raises:
            InvalidTextError: it can't be used.
        """
        if isinstance(text, Window):
            ids = [self._first, *text.ids, self._last]
            if len(ids) > self.max_tokens:
                raise InvalidTextError(
                    f"window {position} has {len(ids)} tokens, the model reads {self.max_tokens}: cut it smaller"
                )
            return Row(ids, (1 + text.pooled[0], 1 + text.pooled[1]))
        ids = self._tokens_of(checked_text(text, what=f"text {position}"), with_marks=True).ids
        return Row(ids, (0, len(ids)))

    def _tokens_of(self, text: str, *, with_marks: bool) -> Encoding:
        """Return a text's tokens, with the marks of beginning and end or without.

        Raises:
            ClosedError: the process was forked while another thread was in here, and this is the child.
        """
        if self._broken:
            raise forked_error("this encoder, which was encoding in another thread,")
        thread = get_ident()
        self._tokenizing.add(thread)
        try:
            return self._tokenizer.encode(text, add_special_tokens=with_marks)
        finally:
            self._tokenizing.discard(thread)

    def _tell_of_truncation(self, cut: int) -> None:
        if cut and not self._told_of_truncation:
            self._told_of_truncation = True
            _log.warning(
                "texts_truncated count=%d max_tokens=%d: only the beginning is encoded; split long texts (told once)",
                cut,
                self.max_tokens,
            )


def _shortened(row: Row, most: int) -> Row:
    """Cut token ids to the window, keeping the end mark that closes every text."""
    return row if len(row.ids) <= most else Row([*row.ids[: most - 1], row.ids[-1]], (0, most))


def _tokenizer(folder: Path, vocabulary: int) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_buffer(path.read_bytes())
    except FileNotFoundError as err:
        raise ModelCorruptError(f"{path} is missing: use a model with a fast tokenizer") from err
    except Exception as err:  # the tokenizer library raises nothing more specific
        raise ModelCorruptError(f"{path} can't be read ({err}): fetch the model again") from err
    words = tokenizer.get_vocab()
    if len(words) > vocabulary:
        raise ModelCorruptError(f"{path} has {len(words)} words, the model {vocabulary}: use the files of one model")
    if words and max(words.values()) >= vocabulary:
        raise ModelCorruptError(
            f"{path} has the token id {max(words.values())}, the model {vocabulary} tokens: use the files of one model"
        )
    tokenizer.no_truncation()  # files often ask for 128 tokens, padded: both are decided here
    tokenizer.no_padding()
    return tokenizer


def _marks(folder: Path, tokenizer: Tokenizer, vocabulary: int) -> tuple[int, int]:
    """Return the ids of the marks that the tokenizer puts before and after a text.

    Raises:
        ModelUnsupportedError: it does not put one on each side.
        ModelCorruptError: the model does not know them.
    """
    marks = tokenizer.encode("").ids
    if len(marks) != MARKS:
        raise ModelUnsupportedError(
            f"{folder / 'tokenizer.json'} puts {len(marks)} marks around a text, not {MARKS}: use a tokenizer with the "
            "post-processor of a BERT model"
        )
    if max(marks) >= vocabulary:
        raise ModelCorruptError(
            f"{folder / 'tokenizer.json'} has the token id {max(marks)}, the model {vocabulary} tokens: "
            "use the files of one model"
        )
    return marks[0], marks[1]


def _tell_of_assumptions(folder: Path, config: ModelConfig) -> None:
    """Log what of the model is assumed, and what is not done though its files ask for it."""
    if config.unsaid:
        _log.warning(
            "model_assumed model=%s pooling=%s max_tokens=%d: the folder has no %s to say so; get the whole model as "
            "sentence-transformers has it",
            folder,
            config.pooling,
            config.max_tokens,
            " and no ".join(config.unsaid),
        )
    if config.prompts:
        _log.warning(
            "model_prompts_ignored model=%s prompts=%s: the model was trained with these prompts before its texts, and "
            "they are not added; put them there yourself",
            folder,
            ",".join(config.prompts),
        )
