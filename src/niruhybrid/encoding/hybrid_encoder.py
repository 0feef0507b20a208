"""The encoder: dense vectors and lexical terms of the same text."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from niruhybrid import analysis
from niruhybrid.encoding.model_config import read_config
from niruhybrid.encoding.packing import lay_out, plan
from niruhybrid.encoding.weights import locate
from niruhybrid.errors import InvalidTextError, ModelCorruptError
from niruhybrid.types import Vector, checked_text

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
        ModelCorruptError: a file of the model is damaged, or the model is of a kind that is not supported.
    """

    def __init__(self, model: str | Path | None = None) -> None:
        from niruhybrid.encoding.runtime import Runtime  # noqa: PLC0415  # OpenVINO is loaded with the first encoder

        folder = locate(model)
        config = read_config(folder)
        self.dimension = config.hidden
        self.max_tokens = config.max_tokens
        self._pooling = config.pooling
        self._tokenizer = _tokenizer(folder, config.vocabulary)
        self._runtime = Runtime(folder, config)
        self._told_of_truncation = False
        for length in _WARMED:
            self._vectors([[0] * min(length, self.max_tokens)])

    def encode(self, texts: Sequence[str], /) -> Vector:
        """Return `(n, dimension)` float32 unit vectors, C-contiguous, in the texts' order.

        Of a text longer than `max_tokens`, the beginning is encoded.

        Raises:
            InvalidTextError: `texts` is one string, or one of the texts is no string, blank or not valid Unicode;
                the message gives its position. Nothing was encoded.
        """
        rows = self._tokenized(texts)
        self._tell_of_truncation(sum(len(row) > self.max_tokens for row in rows))
        return self._vectors([_shortened(row, self.max_tokens) for row in rows])

    def terms(self, text: str, /) -> list[str]:
        """Return the text's lexical terms, in order, with repeats; the same for documents and queries."""
        return analysis.terms(text)

    def count_tokens(self, texts: Sequence[str], /) -> list[int]:
        """Return how many tokens each text has, special tokens included; above `max_tokens`, the rest is not read.

        Raises:
            InvalidTextError: as `encode` does.
        """
        return [len(row) for row in self._tokenized(texts)]

    def _vectors(self, rows: list[list[int]]) -> Vector:
        """Return the vectors of token ids, `(n, dimension)`."""
        vectors = np.empty((len(rows), self.dimension), np.float32)
        for run in plan([len(row) for row in rows]):
            vectors[run.texts] = self._runtime.run(lay_out(run, rows, self._pooling))
        return vectors

    def _tokenized(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids. One by one: the tokenizer's batches would start threads on every core."""
        if isinstance(texts, str | bytes):
            raise InvalidTextError("texts is one string: give a list, such as [text]")
        checked = [checked_text(text, what=f"text {position}") for position, text in enumerate(texts)]
        return [self._tokenizer.encode(text).ids for text in checked]

    def _tell_of_truncation(self, cut: int) -> None:
        if cut and not self._told_of_truncation:
            self._told_of_truncation = True
            _log.warning(
                "texts_truncated count=%d max_tokens=%d: only the beginning is encoded; split long texts (told once)",
                cut,
                self.max_tokens,
            )


def _shortened(row: list[int], most: int) -> list[int]:
    """Cut token ids to the window, keeping the end mark that closes every text."""
    return row if len(row) <= most else [*row[: most - 1], row[-1]]


def _tokenizer(folder: Path, vocabulary: int) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_buffer(path.read_bytes())
    except FileNotFoundError as err:
        raise ModelCorruptError(f"{path} is missing: use a model with a fast tokenizer") from err
    except Exception as err:  # the tokenizer library raises nothing more specific
        raise ModelCorruptError(f"{path} can't be read ({err}): fetch the model again") from err
    if tokenizer.get_vocab_size() > vocabulary:
        words = tokenizer.get_vocab_size()
        raise ModelCorruptError(f"{path} has {words} words, the model {vocabulary}: use the files of one model")
    tokenizer.no_truncation()  # files often ask for 128 tokens, padded: both are decided here
    tokenizer.no_padding()
    return tokenizer
