"""Citations in a text as it arrives: `[2]` becomes the id of the second source. Pure."""

import re
from collections.abc import Iterator, Sequence

from niruhybrid.types import Token

__all__ = ("CitationReader",)

_CITATION = re.compile(r"\[\s?[1-9]\d{0,2}(?:\s?[,;]\s?[1-9]\d{0,2})*\s?\]")
_NUMBER = re.compile(r"\d+")
_UNFINISHED = re.compile(r"(?:`+|\[(?:\s?[1-9]\d{0,2}\s?[,;])*\s?(?:[1-9]\d{0,2})?\s?)\Z")
_MARK = re.compile(r"`+|\n|" + _CITATION.pattern)
_LONGEST = 80  # characters that may turn out to be a citation; more of them are none


class CitationReader:
    """Cuts a text that arrives in pieces so that each citation is a token of its own, with its source.

    All tokens together are the text, to the character. `[1, 3]` is two tokens, one for each source. A number that no
    source has, and whatever stands in code, is text like any other. What may be half a citation is held back until the
    next piece decides it.

    Args:
        sources: ids of the sources; number n is element n - 1.

    Attributes:
        unknown: numbers that were cited and that no source has, in order, each once.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self.unknown: list[int] = []
        self._sources = sources
        self._held = ""
        self._code = ""  # the back-ticks that opened the code we are in

    def feed(self, piece: str) -> list[Token]:
        """Return the tokens that are certain with this piece."""
        text = self._held + piece
        unfinished = _UNFINISHED.search(text)
        split = unfinished.start() if unfinished and len(text) - unfinished.start() <= _LONGEST else len(text)
        self._held = text[split:]
        return list(self._tokens(text[:split]))

    def finish(self) -> list[Token]:
        """Return what was held back; nothing follows."""
        text, self._held = self._held, ""
        return list(self._tokens(text))

    def _tokens(self, text: str) -> Iterator[Token]:
        plain = 0
        for mark in _MARK.finditer(text):
            if not mark[0].startswith("["):
                self._code = self._after(mark[0])
            elif not self._code and (cited := self._cited(mark[0])):
                if mark.start() > plain:
                    yield Token(text[plain : mark.start()])
                yield from cited
                plain = mark.end()
        if plain < len(text):
            yield Token(text[plain:])

    def _after(self, mark: str) -> str:
        """Return the state of code after back-ticks or a line's end; code in a line does not outlast it."""
        if mark == "\n":
            return self._code if len(self._code) >= 3 else ""
        if not self._code:
            return mark
        closes = mark == self._code or (len(self._code) >= 3 and len(mark) >= len(self._code))
        return "" if closes else self._code

    def _cited(self, citation: str) -> list[Token]:
        """Return a token for each number, or none if one of them is unknown."""
        numbers = [int(number) for number in _NUMBER.findall(citation)]
        unknown = [number for number in numbers if number > len(self._sources)]
        self.unknown += [number for number in dict.fromkeys(unknown) if number not in self.unknown]
        if unknown:
            return []
        ends = [found.end() for found in _NUMBER.finditer(citation)]
        ends[-1] = len(citation)
        return [
            Token(citation[start:end], self._sources[number - 1])
            for number, start, end in zip(numbers, [0, *ends], ends, strict=False)
        ]
