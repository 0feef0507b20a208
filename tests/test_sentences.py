import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.sentences import sentences


def stripped(text: str) -> list[str]:
    return [piece.strip() for piece in sentences(text)]


@given(st.text(st.sampled_from("ab Z.!?…。\n\t\"')(>-1#é中"), max_size=80) | st.text(max_size=80))
def test_pieces_join_back_and_none_is_empty(text: str) -> None:
    pieces = sentences(text)
    assert "".join(pieces) == text
    assert all(pieces)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ('He said "go." Then (it ended.) Yes.', ['He said "go."', "Then (it ended.)", "Yes."]),
        ("A list\n\nafter a blank line", ["A list", "after a blank line"]),
        ("Wrapped at\nthe margin. Next\nline.", ["Wrapped at\nthe margin.", "Next\nline."]),
        ("Items:\n- one\n- two\n1. three", ["Items:", "- one", "- two", "1. three"]),
        ("Run:\n>>> f(1)\n2", ["Run:", ">>> f(1)\n2"]),
        ("Done.\n>>> f(1)", ["Done.", ">>> f(1)"]),
        ("終わり。次は。はい", ["終わり。", "次は。", "はい"]),
        ("Wait... Go on.", ["Wait...", "Go on."]),
        ("It ends with etc. Then more.", ["It ends with etc.", "Then more."]),
        ("", []),
        ("  \n ", [""]),
    ],
)
def test_ends(text: str, expected: list[str]) -> None:
    assert stripped(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Use os.path.join here, e.g. Windows or i.e. POSIX.",
        "Pi is 3.14 of them? no",
        "Mr. Smith met J. R. Tolkien of the U.S. Army.",
        "See Fig. 3 and No. 7 (cf. Section 2).",
        "Versions 3.11. and so on",
        "The call f(x) Returns nothing",
        "x.y(z). lower case goes on",
    ],
)
def test_what_is_no_end(text: str) -> None:
    assert stripped(text) == [text]


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", ["a", ".", "。", " ", "\n", ". ", "\n ", '"', ".)", "J. ", "- ", "\n-", "Aa. ", "\t\n"]
)
def test_hostile_texts_take_linear_time(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    start = time.perf_counter()
    assert "".join(sentences(text)) == text
    assert time.perf_counter() - start < 30  # about one second on a quiet machine; hours if quadratic
