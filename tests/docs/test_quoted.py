"""Figures that pages quote are those of the results."""

import json
from pathlib import Path

import pytest

from tools import quoted as program
from tools.quoted import QuoteError, quoted


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "tea.json").write_text(
        json.dumps({"runs": [{"cups/s": 2.5, "hot": True}], "a~b": 0.4567, "tries": [3, 1, 8]})
    )
    return tmp_path


def figure(source: str, text: str = "old") -> str:
    return f'<data value="{source}">{text}</data>'


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("tea#/runs/0/cups~1s", "2.5"),
        ("tea#/a~0b:.2f", "0.46"),
        ("tea#/a~0b*100:.0f", "46"),
        ("tea#/runs/0/cups~1s*1000:,.0f", "2,500"),
        ("tea#/tries", "3"),
    ],
)
def test_a_quoted_figure_is_read_scaled_and_written_as_asked(results: Path, source: str, text: str) -> None:
    assert quoted(f"It takes {figure(source)} s.", results) == f"It takes {figure(source, text)} s."


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tea", "write file#/pointer"),
        ("tea#", "write file#/pointer"),
        ("milk#/runs", "'milk.json', which is not there"),
        ("tea#/runs/1", "ends at '1'"),
        ("tea#/runs/x", "ends at 'x'"),
        ("tea#/runs/0/cups", "ends at 'cups'"),
        ("tea#/runs/0/hot", "is True: quote a number"),
        ("tea#/runs/0", "quote a number"),
    ],
)
def test_a_figure_that_no_result_has_is_refused(results: Path, source: str, message: str) -> None:
    with pytest.raises(QuoteError, match=message):
        quoted(figure(source), results)


@pytest.mark.parametrize("path", program.PAGES, ids=lambda path: path.name)
def test_every_quoted_figure_is_current(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert quoted(text) == text, "run `make figures`"


def test_pages_quote_figures() -> None:
    assert sum(path.read_text(encoding="utf-8").count("<data value=") for path in program.PAGES) > 20
