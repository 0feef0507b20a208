"""Long texts as windows: which tokens the model reads together, and which passage each window stands for. Pure.

A text comes in pieces, however cut. It is tokenized only where it can't change any more, at white space, so all ways to
cut it give the same windows. A window ends where a sentence ends, if one does in its last quarter, else between words.
Passages leave no gap: joined, they are the text.

What is held is in proportion to a window, whatever the text. A word of more than 1024 characters is cut at every
1024th, and a passage has at most 32 characters for each token of a window.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from niruhybrid.config import StreamingConfig
from niruhybrid.sentences import sentences
from niruhybrid.types import Vector

__all__ = (
    "Cut",
    "Tokenize",
    "Tokens",
    "Window",
    "WindowCutter",
    "cut_for",
    "cutter_for",
    "estimated_tokens",
    "unit_mean",
)

MARKS = 2
"""Tokens that the encoder adds to every window: of beginning and end."""

_LONGEST_WORD = 1024  # characters
_CHARS_A_TOKEN = 32  # of a passage at the most, for each token of a window
_AT_ONCE = 8192  # characters
_SINKS = 16  # tokens of the text's beginning that late windows read
_NO_LENGTH = 1e-6
_NO_TOKEN = -1  # stands where a stretch of text has none, so that it can be cut

# Only white space that models see as such: the control characters among Python's vanish, and join their neighbours.
_SPACES = " \t\n\r\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_WORD = re.compile(rf"[^{_SPACES}]*+[{_SPACES}]*+")
_PIECE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af]|[^\W\u2e80-\u9fff\uac00-\ud7af]{1,8}|[^\w\s]")


class Tokens(NamedTuple):
    """The tokens of a stretch of text.

    Attributes:
        ids: what the model knows them by.
        starts: where each begins in the stretch, in characters, ascending.
        words: for each the number of its word; a cut parts tokens of one word only in need.
    """

    ids: Sequence[int]
    starts: Sequence[int]
    words: Sequence[int | None]


Tokenize: TypeAlias = Callable[[str], Tokens]
"""Tokens of a stretch of text, without marks of beginning and end; the same whatever words stand beside it."""


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens that are read together, and the passage whose vector they give.

    Attributes:
        part: its number in the text, from 0.
        start: where its passage begins in the text, in characters (code points).
        text: the passage.
        ids: what the model reads between its marks: sinks, tokens before the passage, the passage's, tokens after it.
        own: where the passage's tokens begin and end in `ids`.
        pooled: where those begin and end in `ids` that make the vector.
        whole: whether the passage is all of the text.
    """

    part: int
    start: int
    text: str
    ids: tuple[int, ...]
    own: tuple[int, int]
    pooled: tuple[int, int]
    whole: bool = False

    @property
    def end(self) -> int:
        """Where its passage ends in the text, in characters."""
        return self.start + len(self.text)

    @property
    def used(self) -> int:
        """Tokens of the passage."""
        return self.own[1] - self.own[0]


@dataclass(frozen=True, slots=True)
class Cut:
    """How a text becomes windows, in tokens.

    Attributes:
        size: tokens of a window, those before the passage included; at least 2.
        overlap: tokens before a passage that are read with it; below `size`.
        ahead: tokens after a passage that are read with it, on top of `size`.
        sinks: tokens of the text's beginning that every later window reads first, on top of `size`.
        whole: a text of up to so many tokens is one window, though it has more than `size`.
        alone: whether the passage's tokens alone make its vector, or all that are read.
    """

    size: int
    overlap: int
    ahead: int = 0
    sinks: int = 0
    whole: int = 0
    alone: bool = False


class WindowCutter:
    """Cuts one text into windows as it comes.

    Args:
        tokenize: called with whole words, or with pieces of a huge one.
        cut: sizes.
        title: tokens of the text's title, the first thing that every window reads.
        unread: tokens of the title that are left out.
    """

    def __init__(self, tokenize: Tokenize, cut: Cut, title: Sequence[int] = (), *, unread: int = 0) -> None:
        self._tokenize = tokenize
        self._cut = cut
        self._title = tuple(title)
        self._sinks: tuple[int, ...] = ()  # of the text's beginning
        self._unsettled = ""  # a word that may go on
        self._text = ""  # from where the next passage begins
        self._begin = 0  # of `_text` in the text
        self._ids: list[int] = []  # of the tokens before the next passage that its window reads, and all since
        self._starts: list[int] = []
        self._words: list[bool] = []  # whether a word begins here
        self._own = 0  # where the next passage's begin among them
        self._part = 0
        self._seen = len(self._title) + unread

    @property
    def seen(self) -> int:
        """Tokens that title and text have had so far, as far as words are complete."""
        return self._seen

    def feed(self, text: str) -> list[Window]:
        """Return the windows that are final, now that the text goes on with `text`; often none."""
        windows: list[Window] = []
        for start in range(0, len(text), _AT_ONCE):
            self._unsettled += text[start : start + _AT_ONCE]
            self._settle(_settled(self._unsettled))
            while (first := self._first_beyond()) is not None:
                windows.append(self._next(first))
        return windows

    def close(self) -> list[Window]:
        """Return the last windows: the text has ended; none at all for an empty text. To be called once."""
        self._settle(_settled(self._unsettled, whole=True))
        windows: list[Window] = []
        while (first := self._first_beyond(ended=True)) is not None:
            windows.append(self._next(first))
        if self._text:
            windows.append(self._window(len(self._ids), len(self._text), whole=not self._part))
        return windows

    def _settle(self, stretches: Sequence[str]) -> None:
        """Tokenize stretches that can't change any more."""
        for stretch in stretches:
            at = self._begin + len(self._text)
            ids, starts, words = self._tokenize(stretch)
            if not ids and len(stretch) == _LONGEST_WORD:
                ids, starts, words = [_NO_TOKEN], [0], [None]
            self._ids.extend(ids)
            self._starts.extend(at + start for start in starts)
            self._words.extend(word != before for before, word in pairwise([_NO_TOKEN, *words]))
            self._seen += sum(each != _NO_TOKEN for each in ids)
            self._text += stretch
            self._unsettled = self._unsettled[len(stretch) :]

    def _first_beyond(self, *, ended: bool = False) -> int | None:
        """Return the first token that the next window has no room for; None if it is not yet known."""
        cut, own = self._cut, self._own
        room = cut.size - own
        most = self._starts[own] + _CHARS_A_TOKEN * cut.size if own < len(self._starts) else 0
        beyond = min(own + room, bisect_left(self._starts, most, lo=own))
        needed = max(beyond, cut.whole if not self._part and beyond == room else 0)
        if len(self._ids) <= needed or (not ended and len(self._ids) <= beyond + cut.ahead):
            return None
        return beyond

    def _next(self, beyond: int) -> Window:
        """Take the next window, which ends before the token `beyond` at the latest."""
        end = self._best_end(beyond)
        window = self._window(end, self._starts[end] - self._begin)
        gone = max(0, end - self._cut.overlap)
        if not self._part:
            self._sinks = tuple(self._ids[: min(self._cut.sinks, gone)])
        self._text = self._text[self._starts[end] - self._begin :]
        self._begin = self._starts[end]
        del self._ids[:gone], self._starts[:gone], self._words[:gone]
        self._own = end - gone
        self._part += 1
        return window

    def _best_end(self, beyond: int) -> int:
        """Return the token that begins the passage after this one: a sentence's if possible, a word's if not."""
        first = max(self._own + 1, beyond - (beyond - self._own) // 4)
        known = self._text[: self._starts[beyond] - self._begin + 1]
        ends, at = set(), self._begin
        for sentence in sentences(known):
            at += len(sentence)
            ends.add(bisect_left(self._starts, at))
        return max(range(first, beyond + 1), key=lambda token: (self._fitness(token, ends), token))

    def _fitness(self, token: int, ends: set[int]) -> int:
        if token in ends:
            return 3
        if self._text[self._starts[token] - self._begin - 1].isspace():
            return 2
        return int(self._words[token])

    def _window(self, end: int, chars: int, *, whole: bool = False) -> Window:
        before = (*self._title, *self._sinks, *self._ids[: self._own])
        own = self._ids[self._own : end]
        after = self._ids[end : end + self._cut.ahead]
        ids = tuple(each for each in (*before, *own, *after) if each != _NO_TOKEN)
        first = sum(each != _NO_TOKEN for each in before)
        used = sum(each != _NO_TOKEN for each in own)
        if not self._part:
            first, used = 0, first + used  # the title is a part of what the first window says
        place = first, first + used
        pooled = place if self._cut.alone and used else (0, len(ids))
        return Window(self._part, self._begin, self._text[:chars], ids, place, pooled, whole)


def cutter_for(tokenize: Tokenize, reads: int | None, title: str, config: StreamingConfig) -> WindowCutter:
    """Return what cuts a text as the settings say.

    Args:
        tokenize: the encoder's tokens.
        reads: tokens that the encoder reads at once, its two marks included; None for no bound that is known.
        title: the text's; at the most half of what the encoder reads is taken of it.
        config: `long_text`, `chunk_size` and `overlap_size`.
    """
    ids = tokenize(title).ids if title else ()
    if reads is None:
        return WindowCutter(tokenize, cut_for(config, None), ids)
    room = max(2, reads - MARKS)
    kept = ids[: room // 2]
    return WindowCutter(tokenize, cut_for(config, room - len(kept)), kept, unread=len(ids) - len(kept))


def cut_for(config: StreamingConfig, room: int | None) -> Cut:
    """Return the sizes of windows.

    Args:
        config: `late` has each passage read with the beginning of the text and with what follows it too, and makes its
            vector of its own tokens alone; all other modes cut alike.
        room: tokens that the encoder can read at once, beside its marks and the title; None for no bound.
    """
    size, overlap = config.chunk_size, config.overlap_size
    late = config.long_text == "late"
    if room is None:
        room = size + (overlap + _SINKS if late else 0)
    if not late:
        size = min(size, room)
        whole = room if config.long_text in {"error", "truncate"} else 0
        return Cut(size, min(overlap, size - 1), whole=whole)
    size = min(size, max(2, room - overlap - _SINKS))
    ahead = min(overlap, room - size)
    return Cut(size, min(overlap, size - 1), ahead, min(_SINKS, room - size - ahead), alone=True)


def unit_mean(total: Vector, first: Vector) -> Vector:
    """Return the direction of a sum of unit vectors, `(dim,)` float32; `first` where it has none."""
    length = float(np.linalg.norm(total))
    return first if length < _NO_LENGTH else np.ascontiguousarray(total / length, np.float32)


def estimated_tokens(text: str) -> Tokens:
    """Return about the tokens that a model would see: a mark, an ideograph, or up to eight letters each.

    For encoders that don't tell of their tokens; the ids mean nothing.
    """
    starts = [found.start() for found in _PIECE.finditer(text)]
    return Tokens([0] * len(starts), starts, list(range(len(starts))))


def _settled(text: str, *, whole: bool = False) -> list[str]:
    """Return the stretches of a text, from its beginning, that what follows can't change.

    Args:
        text: begins with a word, or with white space.
        whole: nothing follows.
    """
    stretches: list[str] = []
    first = at = 0  # of the words not yet in a stretch, and of the next one
    while at < len(text):
        found = _WORD.match(text, at)
        end = len(text) if found is None else found.end()
        if end - at > _LONGEST_WORD:
            if first < at:
                stretches.append(text[first:at])
            stretches.append(text[at : at + _LONGEST_WORD])
            first = at = at + _LONGEST_WORD
        elif end == len(text) and not whole:
            break
        else:
            at = end
    if first < at:
        stretches.append(text[first:at])
    return stretches
