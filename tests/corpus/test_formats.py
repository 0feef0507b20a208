import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.corpus.formats import html_sections, markdown_sections, text_sections

MARKDOWN = """---
author: x
---
# Guide

Read **this** and [that](https://x.org), `code` too.<!-- not this -->

## Set-up ##
> quoted
- item

```python
# no heading
x = a[0](1) ** 2
```

Under
-----
a*b*c
"""

HTML = """<!doctype html><html><head><title>Page &amp; more</title><style>p {}</style></head><body>
<h1>Top</h1><p>One <b>bold</b>
word.</p><p>Two.</p><script>if (a < b) {}</script><ul><li>x</li><li>y</li></ul>
<h2>Part</h2><pre>a
  b</pre></body></html>"""


def test_markdown_headings_become_titles_and_marks_go() -> None:
    first, second, third = markdown_sections(MARKDOWN)
    assert first == ("Guide", "Read this and that, code too.")
    assert second.heading == "Guide: Set-up"
    assert second.text == "quoted\n- item\n\n# no heading\nx = a[0](1) ** 2"
    assert third == ("Guide: Under", "a*b*c")


def test_html_gives_what_is_shown() -> None:
    first, second = html_sections(HTML)
    assert first.heading == "Page & more: Top"
    assert first.text.split("\n\n")[:2] == ["One bold word.", "Two."]
    assert "if (a" not in first.text
    assert [line for line in first.text.splitlines() if line.strip() in {"x", "y"}]
    assert second == ("Page & more: Part", "a\n  b")


def test_a_heading_without_text_is_kept_as_text() -> None:
    assert markdown_sections("# Only") == [("Only", "Only")]
    assert html_sections("<h1>Only</h1>") == [("Only", "Only")]


def test_plain_text_stays_as_it_is() -> None:
    assert text_sections("# a **b**") == [("", "# a **b**")]
    assert text_sections(" \n") == []


@given(st.text(st.sampled_from("ab #*`>[]()!-=\n"), max_size=120))
def test_markdown_never_loses_a_letter(text: str) -> None:
    shown = "".join(section.heading + section.text for section in markdown_sections(text.replace("](", "] (")))
    assert shown.count("a") >= sum(line.count("a") for line in text.splitlines() if "`" not in line)


@given(st.text(st.sampled_from("ab<>/!-h1 &;[]?\"'=\n"), max_size=80) | st.text(max_size=80))
def test_html_of_any_kind_is_read_or_refused(text: str) -> None:
    try:
        sections = html_sections(text)
    except ValueError:
        return
    assert all(section.text.strip() for section in sections)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["[", "[a](", "*a", "**a ", "`", "> ", "#", "<!--", "---\n", "a\n-\n", "![", "~~~\n"])
def test_hostile_markdown_takes_linear_time(unit: str) -> None:
    assert isinstance(markdown_sections(unit * (500_000 // len(unit))), list)
