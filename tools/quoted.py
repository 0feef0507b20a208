"""Bring the figures that hand-written pages quote to what benchmarks/results/ says.

A quoted figure is written `<data value="scheduler#/results/ray/idle/seconds:.0f">5</data>`: the result's file without
its ending, a JSON pointer into it (RFC 6901), perhaps `*` and a factor, perhaps `:` and a format. A list of numbers
stands for its median. A browser shows the text alone. Run by `make figures`; a test compares the pages with what this
program would write.
"""

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

__all__ = ("PAGES", "QuoteError", "main", "quoted")

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
FIGURE = re.compile(r'<data value="(?P<source>[^"]*)">(?P<text>[^<]*)</data>')
SOURCE = re.compile(r"(?P<file>\w+)#(?P<pointer>(?:/[^*:]*)+)(?:\*(?P<factor>[\d.]+))?(?::(?P<format>[^:]+))?")


class QuoteError(Exception):
    """A quoted figure names something that no result has."""


def quoted(text: str, results: Path = RESULTS) -> str:
    """Return a page with every quoted figure as the results have it.

    Raises:
        QuoteError: a figure is written in another form, or there is no such result or no such number in it.
    """
    return FIGURE.sub(lambda found: f'<data value="{found["source"]}">{_figure(found["source"], results)}</data>', text)


def main() -> int:
    """Write every page that quotes a figure."""
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        if (after := quoted(before)) != before:
            path.write_text(after, encoding="utf-8")
    return 0


def _figure(source: str, results: Path) -> str:
    parts = SOURCE.fullmatch(source)
    if parts is None:
        raise QuoteError(f"a figure is quoted from {source!r}: write file#/pointer, *factor, :format")
    path = results / f"{parts['file']}.json"
    if not path.is_file():
        raise QuoteError(
            f"a figure is quoted from {path.name!r}, which is not there: run its benchmark, or mend the page"
        )
    value = _resolved(json.loads(path.read_text(encoding="utf-8")), parts["pointer"], source)
    if isinstance(value, list) and value and all(isinstance(each, int | float) for each in value):
        value = statistics.median(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise QuoteError(f"{source!r} is {value!r}: quote a number")
    return format(value * float(parts["factor"]) if parts["factor"] else value, parts["format"] or "")


def _resolved(value: Any, pointer: str, source: str) -> object:
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, ValueError, TypeError) as err:
            raise QuoteError(f"{source!r} ends at {token!r}, which is not there: mend the page") from err
    return value


if __name__ == "__main__":
    sys.exit(main())
