"""Lexical analysis: one way from text to terms, for documents and queries alike."""

import functools
import re
import threading
import unicodedata

import Stemmer

__all__ = ("terms",)

_WORD = re.compile(r"[^\W_]+")
_MARKS = {code: " " for code in range(128) if not chr(code).isalnum()}  # of ASCII: what `_WORD` leaves out
_LONGEST = 64
_REMEMBERED = 65_536  # words whose stems are known; few words make most of any text
_SPACE = re.compile(r"\s")
_SLICE = 32_768  # characters: other threads get their turn between two slices
_local = threading.local()


def terms(text: str) -> list[str]:
    """Return the lexical terms of a text: words, Unicode-folded (NFKC, case, accents), stemmed (Snowball English).

    Args:
        text: any text.

    Returns:
        Terms in the order of the text, with repeats; words over 64 characters are cut there.
    """
    found: list[str] = []
    start = 0
    while start < len(text):
        space = _SPACE.search(text, start + _SLICE)
        end = space.start() if space else len(text)
        found += _terms_of(text[start:end])
        start = end
    return found


def _terms_of(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    if not folded.isascii():
        decomposed = unicodedata.normalize("NFKD", folded)
        folded = "".join(char for char in decomposed if not unicodedata.combining(char))
    words = folded.translate(_MARKS).split() if folded.isascii() else _WORD.findall(folded)
    return [_stem(word[:_LONGEST]) for word in words]


@functools.lru_cache(_REMEMBERED)
def _stem(word: str) -> str:
    stem: str = _stemmer().stemWord(word)
    return stem


def _stemmer() -> Stemmer.Stemmer:
    """Return this thread's stemmer: a Snowball stemmer must not be shared between threads."""
    try:
        return _local.stemmer
    except AttributeError:
        _local.stemmer = Stemmer.Stemmer("english", maxCacheSize=0)  # no cache of its own: a list for each word
        return _local.stemmer
