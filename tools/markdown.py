"""Markdown as the programs that write pages need it."""

from collections.abc import Iterable, Iterator

__all__ = ("code", "sentence", "table")


def code(text: str) -> str:
    """Return text as code."""
    return f"`{text}`"


def sentence(text: str) -> str:
    """Return text with its first letter as a capital."""
    return f"{text[:1].upper()}{text[1:]}"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """Yield the lines of a table, and an empty one."""
    names = list(head)
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"
    yield ""
