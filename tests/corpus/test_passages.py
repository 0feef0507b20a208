import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.corpus.passages import passages, size

WORDS = st.lists(
    st.sampled_from(["word", "Other", "it.", "end.\n", "x\n\n", "os.path", "中文字", "\n", "long" * 9]), max_size=80
)


@given(WORDS.map(" ".join) | st.text(max_size=200), st.integers(1, 30))
def test_nothing_but_white_space_is_lost_and_no_passage_is_too_big(text: str, max_size: int) -> None:
    cut = passages(text, max_size=max_size)
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(passage.strip() == passage != "" and size(passage) <= max_size for passage in cut)


@given(st.lists(st.text("abcXYZ.,!", min_size=1, max_size=12), max_size=120), st.integers(12, 40))
def test_words_stay_whole(words: list[str], max_size: int) -> None:
    cut = passages(" ".join(words), max_size=max_size)
    assert [word for passage in cut for word in passage.split()] == words


def test_cuts_at_paragraphs_before_sentences_before_words() -> None:
    first, second = "One two three. Four five.", "Six seven eight nine ten."
    assert passages(f"{first}\n\n{second}", max_size=8) == [first, second]
    assert passages(first, max_size=4) == ["One two three.", "Four five."]
    assert passages("one two three four five six", max_size=3) == ["one two three", "four five six"]


def test_passages_are_balanced_rather_than_leaving_a_scrap() -> None:
    sizes = [size(part) for part in passages("A b c d e f g h i. " * 41, max_size=200)]
    assert len(sizes) == 3
    assert max(sizes) - min(sizes) <= 20


def test_a_word_over_the_size_is_cut() -> None:
    assert [size(part) <= 200 for part in passages("x" * 5_000)] == [True] * len(passages("x" * 5_000))


@pytest.mark.parametrize("blank", ["", " \n\t "])
def test_a_blank_text_has_no_passages(blank: str) -> None:
    assert passages(blank) == []
