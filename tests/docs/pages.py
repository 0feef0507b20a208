"""What the tests of pages share: all pages, and their fenced blocks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ("PAGES", "ROOT", "Fence", "fences", "of_language")

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(
    r'^(?P<ticks>```+)(?P<language>\w*)(?: title="(?P<title>[^"]*)")?(?P<rest>[^\n]*)\n(?P<code>.*?)^(?P=ticks)$',
    re.MULTILINE | re.DOTALL,
)


class Fence(NamedTuple):
    """A fenced block of a page.

    Attributes:
        page: where it is, below the root, and the line of its first line of code.
        language: what follows the opening fence, or "".
        title: the block's title, or "".
        code: the text between the fences.
    """

    page: str
    language: str
    title: str
    code: str


def fences() -> Iterator[Fence]:
    """Yield every fenced block of every page."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in _FENCE.finditer(text):
            line = text.count("\n", 0, found.start("code")) + 1
            place = f"{page.relative_to(ROOT)}:{line}"
            yield Fence(place, found["language"] + found["rest"], found["title"] or "", found["code"])


def of_language(*languages: str) -> list[Fence]:
    """Return the blocks in one of some languages."""
    return [fence for fence in fences() if fence.language in languages]
