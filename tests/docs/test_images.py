"""Drawings are seen in light and dark, said in words, and fetch nothing."""

import re
from xml.etree import ElementTree as ET

import pytest

from tests.docs.pages import PAGES, ROOT

DRAWINGS = sorted((ROOT / "docs" / "images").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.name)
def test_a_drawing_has_words_for_who_does_not_see_it_and_colours_for_the_dark(path: object) -> None:
    text = (ROOT / "docs" / "images" / str(path)).read_text(encoding="utf-8")
    drawing = ET.fromstring(text)  # noqa: S314  # a file of our own
    assert drawing.get("role") == "img"
    assert len(drawing.findtext(f"{SVG}title") or "") > 8
    assert len(drawing.findtext(f"{SVG}desc") or "") > 80
    assert "prefers-color-scheme: dark" in text
    assert {element.tag for element in drawing.iter()} & {f"{SVG}script", f"{SVG}image", f"{SVG}foreignObject"} == set()
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)|\bon\w+=|@import", text) == []


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.name)
def test_a_drawing_has_its_words_within_its_frame(path: object) -> None:
    drawing = ET.fromstring((ROOT / "docs" / "images" / str(path)).read_text(encoding="utf-8"))  # noqa: S314  # ours
    width, height = float(drawing.get("width", 0)), float(drawing.get("height", 0))
    for element in drawing.iter(f"{SVG}text"):
        kind, words = element.get("class", ""), element.text or ""
        long = len(words) * (6.6 if "small" in kind else 8.2)
        left = float(element.get("x", 0)) - (long / 2 if "mid" in kind else long if "end" in kind else 0)
        assert left >= 0, words
        assert left + long <= width, words
        assert 10 <= float(element.get("y", 0)) <= height - 4, words


def test_every_drawing_is_shown_and_every_picture_has_a_text() -> None:
    shown = [
        found for page in PAGES for found in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert {drawing.name for drawing in DRAWINGS} <= {path.rpartition("/")[2] for _, path in shown}
    assert [path for words, path in shown if len(words) < 20] == []
