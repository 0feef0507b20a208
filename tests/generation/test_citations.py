"""Citations in a text that arrives in pieces."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from niruhybrid.generation.citations import CitationReader

SOURCES = ("a", "b", "c")


def read(*pieces: str) -> list[tuple[str, str | None]]:
    reader = CitationReader(SOURCES)
    tokens = [token for piece in pieces for token in reader.feed(piece)] + reader.finish()
    return [(token.text, token.source) for token in tokens]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Yes [1].", [("Yes ", None), ("[1]", "a"), (".", None)]),
        ("[2][3]", [("[2]", "b"), ("[3]", "c")]),
        ("so [1, 3]!", [("so ", None), ("[1", "a"), (", 3]", "c"), ("!", None)]),
        ("a[1]", [("a", None), ("[1]", "a")]),
        ("[4] [0] [x] [] [1", [("[4] [0] [x] [] ", None), ("[1", None)]),
        ("[1, 9]", [("[1, 9]", None)]),
        ("`x[1]` [1]", [("`x[1]` ", None), ("[1]", "a")]),
        ("```\nx[1]\ny[2]\n``` [1]", [("```\nx[1]\ny[2]\n``` ", None), ("[1]", "a")]),
        ("a stray ` here\n[1]", [("a stray ` here\n", None), ("[1]", "a")]),
    ],
)
def test_a_citation_is_a_token_with_its_source(text: str, tokens: list[tuple[str, str | None]]) -> None:
    assert read(text) == tokens


def test_a_citation_in_two_pieces_is_one_token() -> None:
    assert read("Yes [", "1", "]", ".") == [("Yes ", None), ("[1]", "a"), (".", None)]


def test_what_can_be_no_citation_is_not_held_back() -> None:
    reader = CitationReader(SOURCES)
    assert [token.text for token in reader.feed("see [the")] == ["see [the"]
    assert reader.feed("[1") == []
    assert [token.text for token in reader.feed("x")] == ["[1x"]


def test_numbers_that_no_source_has_are_kept_for_a_note() -> None:
    reader = CitationReader(SOURCES)
    reader.feed("[7] [1] [9, 7] `[5]`")
    assert reader.unknown == [7, 9]


MARKED = st.text(st.sampled_from("[]123 ,`\nx"), max_size=40)


@given(MARKED, st.lists(st.integers(0, 40), max_size=8))
@example("```x[1]```", [2])
@example("[1, 2]", [3])
def test_pieces_change_neither_text_nor_sources(text: str, cuts: list[int]) -> None:
    ends = sorted({*(cut for cut in cuts if cut < len(text)), len(text)})
    pieces = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert "".join(part for part, _ in read(*pieces)) == text
    assert [token for token in read(*pieces) if token[1]] == [token for token in read(text) if token[1]]
