"""Passages: parts of a text small enough for the encoder to read whole."""

import math
import re
from collections.abc import Iterator

from niruhybrid.sentences import sentences

__all__ = ("passages", "size")

# About one per word piece of the model: a mark, an ideograph, or up to eight letters. 200 of them stay within its 256.
_PIECE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af]|[^\W\u2e80-\u9fff\uac00-\ud7af]{1,8}|[^\w\s]")
_PARAGRAPH = re.compile(r"\n[^\S\n]*+\n\s*+")
_WORD = re.compile(r"\S++\s*+")
DEFAULT_SIZE = 200


def size(text: str) -> int:
    """Return about how many word pieces the encoder makes of a text."""
    return sum(1 for _ in _PIECE.finditer(text))


def passages(text: str, *, max_size: int = DEFAULT_SIZE) -> list[str]:
    """Cut a text into passages of similar size, at paragraph ends where possible, else at sentence ends.

    Joined, they hold all of the text but white space between passages. No word is cut unless it alone is too big.

    Args:
        text: any text.
        max_size: word pieces (see `size`) of a passage at the most; at least 1.

    Returns:
        Passages in order, none blank; none at all for a blank text.
    """
    total = size(text)
    if total <= max_size:
        return [text.strip()] if text.strip() else []
    target = math.ceil(total / math.ceil(total / max_size))
    cut: list[str] = []
    parts: list[str] = []
    filled = 0
    for part in _parts(text, max_size):
        cost = size(part)
        if parts and (filled >= target or filled + cost > max_size):
            cut.append("".join(parts).strip())
            parts, filled = [], 0
        parts.append(part)
        filled += cost
    cut.append("".join(parts).strip())
    return [passage for passage in cut if passage]


def _parts(text: str, max_size: int) -> Iterator[str]:
    """Yield the text in order in the largest parts that fit: paragraphs, sentences, words, pieces of a huge word."""
    for paragraph in _split_after(_PARAGRAPH, text):
        if size(paragraph) <= max_size:
            yield paragraph
            continue
        for sentence in sentences(paragraph):
            if size(sentence) <= max_size:
                yield sentence
            else:
                yield from _words(sentence, max_size)


def _words(sentence: str, max_size: int) -> Iterator[str]:
    lead = len(sentence) - len(sentence.lstrip())
    if lead:
        yield sentence[:lead]
    for match in _WORD.finditer(sentence, lead):
        word = match.group()
        if size(word) <= max_size:
            yield word
        else:  # every piece is at least one character
            yield from (word[at : at + max_size] for at in range(0, len(word), max_size))


def _split_after(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    start = 0
    for match in pattern.finditer(text):
        yield text[start : match.end()]
        start = match.end()
    yield text[start:]
