"""Sentence boundaries: where a text can be cut without hurting it."""

import re

__all__ = ("sentences",)

_CLOSERS = "\"')]\u201d\u2019\u00bb\u300d\u300f"  # quotation marks and brackets
_WIDE_ENDS = "\u3002\uff01\uff1f"  # of languages that put no space between sentences
_ENDS = ".!?\u2026" + _WIDE_ENDS
_CLOSING, _WIDE_ENDING, _ENDING = (re.escape(marks) for marks in (_CLOSERS, _WIDE_ENDS, _ENDS))
_ITEM = re.compile(r"[^\S\n]*+(?:>>>|#{1,6}|[-*+•]|\d{1,3}[.)])\s")  # of a list; or a prompt, or a heading

# A candidate begins at one of few characters, so that all others are passed over quickly. Each branch starts only where
# the one before it can't have scanned already, so the search is linear on any text.
_CANDIDATE = re.compile(
    rf"[{_ENDING}{_CLOSING}\n](?:"
    rf"(?<=[{_ENDING}{_CLOSING}])\s++"  # space after an end or a closing mark
    r"|(?<=\n)[^\S\n]*+\n\s*+"  # a blank line
    rf"|(?<=\n)(?={_ITEM.pattern})"
    rf"|(?<=[{_WIDE_ENDING}])(?![{_WIDE_ENDING}{_CLOSING}\s]))"  # no space needed
)
_BLANK_LINE = re.compile(r"\n[^\S\n]*+\n")
_LOOK_BACK = 40
_LAST_WORD = re.compile(r"[^\s(\[\"'\u201c\u2018]+\Z")
_INITIAL = re.compile(r"(?:[^\W\d_]\.)+\Z")
_ABBREVIATION = re.compile(
    r"(?:approx|ca|cf|ch|col|dr|e\.g|ed|eds|eq|esp|fig|figs|gen|i\.e|incl|jr|mr|mrs|ms|mt|nr|p|pp"
    r"|prof|ref|refs|rev|sec|sr|st|viz|vol|vs)\.\Z"
)
_BEFORE_NUMBERS = frozenset(["no.", "nos.", "art.", "para."])


def sentences(text: str) -> list[str]:
    """Cut a text at its sentence ends; blank lines, list items and interpreter prompts are ends as well.

    Takes time in proportion to the text's length, whatever is in it.

    Args:
        text: any text; abbreviations, initials, decimals and dotted names such as `os.path` are not cut.

    Returns:
        Pieces in order, each with the white space that follows it: joined, they are the text.
    """
    pieces: list[str] = []
    start = 0
    for found in _CANDIDATE.finditer(text):
        resume = found.end()
        if start < resume < len(text) and _is_end(text, found.start() + (text[found.start()] != "\n"), resume):
            pieces.append(text[start:resume])
            start = resume
    if start < len(text):
        pieces.append(text[start:])
    return pieces


def _is_end(text: str, stop: int, resume: int) -> bool:
    """Tell whether a sentence ends at `stop` and another begins at `resume`, with only white space between."""
    gap = text[stop:resume]
    if not gap or _BLANK_LINE.search(gap) or ("\n" in gap and _ITEM.match(text, gap.rfind("\n") + stop + 1)):
        return True
    before = text[max(0, stop - _LOOK_BACK) : stop].rstrip(_CLOSERS)
    if not before.endswith(tuple(_ENDS)):
        return False
    following = text[resume]
    if following.islower() or following in ",;:)]}":
        return False
    return not before.endswith(".") or not _abbreviates(before, following)


def _abbreviates(before: str, following: str) -> bool:
    """Tell whether the full stop that ends `before` belongs to its last word."""
    if before.endswith("..."):
        return False
    found = _LAST_WORD.search(before)
    word = found.group().casefold() if found else ""
    if _ABBREVIATION.match(word) or (following.isdigit() and word in _BEFORE_NUMBERS):
        return True
    return bool(_INITIAL.match(word)) and word != "i."
