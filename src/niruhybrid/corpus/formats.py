"""Prose formats: plain text, Markdown and HTML, read into sections of readable text."""

import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from types import MappingProxyType
from typing import NamedTuple

__all__ = ("PROSE_FORMATS", "Section", "html_sections", "markdown_sections", "text_sections")


class Section(NamedTuple):
    """A part of a file under one heading.

    Attributes:
        heading: title of the file and heading of the part, such as `Guide: Set-up`; may be empty.
        text: what is read under it; not blank.
    """

    heading: str
    text: str


def text_sections(text: str) -> list[Section]:
    """Return a plain text as one section without a heading; none if it is blank."""
    return [Section("", text)] if text.strip() else []


# Markdown. No pattern can match across a line, and none scans the same part of it twice.
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?:(?!---[ \t]*$).*\n)*+---[ \t]*(?:\n|\Z)", re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-{2,})[ \t]*\Z")
_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()\[\]]*\)|\[[^\[\]]*\])")
_STRONG = re.compile(r"(?<![\w*])(\*{1,3})(?! )([^*]+)(?<! )\1(?![\w*])")
_QUOTE = re.compile(r"\A(?:[ \t]*>[ \t]?)+")


def markdown_sections(text: str) -> list[Section]:
    """Return the sections of a Markdown text, without its marks; code is kept as it is.

    The first top heading is the title of all.
    """
    sections = _Sections()
    fence = ""
    previous = ""
    for line in _COMMENT.sub("", _FRONT_MATTER.sub("", text)).splitlines():
        mark = _FENCE.match(line)
        if mark and (not fence or mark.group(1).startswith(fence)):
            fence = "" if fence else mark.group(1)
            previous = ""
        elif fence:
            sections.add(line + "\n")
        elif heading := _HEADING.match(line):
            sections.open(_plain(heading.group(2).rstrip("# \t")), len(heading.group(1)))
            previous = ""
        elif previous.strip() and _UNDERLINE.match(line):
            sections.take_back(previous + "\n")
            sections.open(previous, 1 if "=" in line else 2)
            previous = ""
        else:
            previous = _plain(_QUOTE.sub("", line))
            sections.add(previous + "\n")
    return sections.finished()


def _plain(line: str) -> str:
    line = _STRONG.sub(r"\2", _LINK.sub(r"\1", line))
    return line.replace("`", "")


_UNSHOWN = frozenset({"script", "style", "template", "noscript", "svg", "iframe", "object"})
_INLINE = frozenset(
    {"a", "abbr", "b", "bdi", "cite", "code", "del", "em", "font", "i", "ins", "kbd", "mark", "q", "s", "samp", "small"}
    | {"span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"}
)
_CLOSED_LINES = frozenset({"br", "li", "tr", "dt", "dd", "td", "th", "option"})
_SPACE = re.compile(r"\s+")


def html_sections(text: str) -> list[Section]:
    """Return the sections of an HTML page: what is shown, without scripts and styles; its title is the title of all.

    Raises:
        ValueError: the page is too broken to be parsed.
    """
    parser = _PageParser()
    try:
        parser.feed(text)
        parser.close()
    except AssertionError as err:  # how the standard parser refuses some declarations
        raise ValueError(str(err)) from err
    return parser.sections.finished(_SPACE.sub(" ", "".join(parser.title)).strip())


class _PageParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.sections = _Sections()
        self.title: list[str] = []
        self._heading: list[str] | None = None
        self._in_title = False
        self._unshown = 0
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  # the base's
        if tag in _UNSHOWN:
            self._unshown += 1
        elif tag == "title":
            self._in_title = not self.title
        elif _level(tag):
            self._heading = []
        else:
            self._preformatted += tag == "pre"
            self._break(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _UNSHOWN:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSHOWN:
            self._unshown = max(0, self._unshown - 1)
        elif tag == "title":
            self._in_title = False
        elif _level(tag) and self._heading is not None:
            self.sections.open(_SPACE.sub(" ", "".join(self._heading)).strip(), _level(tag))
            self._heading = None
        else:
            self._preformatted = max(0, self._preformatted - (tag == "pre"))
            self._break(tag)

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif self._unshown:
            return
        elif self._heading is not None:
            self._heading.append(data)
        else:
            self.sections.add(data if self._preformatted else _SPACE.sub(" ", data))

    def close(self) -> None:
        super().close()
        if self._heading:  # never ended: it is text after all
            self.sections.add("".join(self._heading))

    def _break(self, tag: str) -> None:
        if tag not in _INLINE and not self._unshown:
            self.sections.add("\n" if tag in _CLOSED_LINES else "\n\n")


def _level(tag: str) -> int:
    return int(tag[1]) if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456" else 0


class _Sections:
    """Collects text under headings."""

    def __init__(self) -> None:
        self._headings: list[tuple[str, int]] = [("", 0)]
        self._parts: list[list[str]] = [[]]

    def add(self, text: str) -> None:
        self._parts[-1].append(text)

    def take_back(self, text: str) -> None:
        """Remove what was added last: it turned out to be a heading."""
        if self._parts[-1] and self._parts[-1][-1] == text:
            self._parts[-1].pop()

    def open(self, heading: str, level: int) -> None:
        if heading:
            self._headings.append((heading, level))
            self._parts.append([])

    def finished(self, title: str = "") -> list[Section]:
        """Return the sections that have text; a heading with none is kept as the text of its own."""
        title = title or next((heading for heading, level in self._headings if level == 1), "")
        sections: list[Section] = []
        for (heading, _), parts in zip(self._headings, self._parts, strict=True):
            text = _BLANK_LINES.sub("\n\n", "".join(parts)).strip("\n ") or heading
            if text.strip():
                sections.append(Section(_joined(title, heading), text))
        return sections


_BLANK_LINES = re.compile(r"\n[^\S\n]*+\n\s*\n(?=[^\n])|\n{3,}")


def _joined(title: str, heading: str) -> str:
    return f"{title}: {heading}" if title and heading and title != heading else title or heading


PROSE_FORMATS: Mapping[str, Callable[[str], list[Section]]] = MappingProxyType(
    {
        ".txt": text_sections,
        ".text": text_sections,
        ".rst": text_sections,
        ".md": markdown_sections,
        ".markdown": markdown_sections,
        ".html": html_sections,
        ".htm": html_sections,
    }
)
