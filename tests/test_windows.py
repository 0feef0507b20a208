"""Windows of a text: nothing lost, nothing beyond the bounds, the same however the text comes."""

import re
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from niruhybrid.config import LongText, StreamingConfig
from niruhybrid.windows import Cut, Tokens, Window, WindowCutter, cut_for, estimated_tokens, unit_mean

WORDS = st.sampled_from(
    [
        "the",
        "end",
        "e.g.",
        "one.",
        "Two!",
        "3.",
        "- item",
        "x" * 1030,
        "漢字かな。",
        "naïve",
        "🚀",
        "👩‍🚀",
        "e\u0301",
        "\u0301",
        "\x00",
    ]
)
GAPS = st.sampled_from([" ", "", "\n", "\n\n", "   ", "\u3000", "\x0c", " " * 1100])
TEXTS = st.lists(st.tuples(WORDS, GAPS), max_size=120).map(lambda parts: "".join(word + gap for word, gap in parts))
CUTS = st.builds(
    lambda size, overlap, ahead, sinks, whole: Cut(size, min(overlap, size - 1), ahead, sinks, whole),
    st.integers(2, 40),
    st.integers(0, 39),
    st.integers(0, 8),
    st.integers(0, 4),
    st.integers(0, 60),
)


def letters(text: str) -> Tokens:
    """Every character that is no white space is a token, known by its code point."""
    found = [(ord(each), at) for at, each in enumerate(text) if not each.isspace()]
    numbers = {at: number for number, found in enumerate(re.finditer(r"\S+", text)) for at in range(*found.span())}
    return Tokens([one for one, _ in found], [at for _, at in found], [numbers[at] for _, at in found])


def windows(text: str, cut: Cut, cuts: list[int] | None = None, title: tuple[int, ...] = ()) -> list[Window]:
    cutter = WindowCutter(letters, cut, title)
    places = sorted({0, len(text), *(place % (len(text) + 1) for place in cuts or ())})
    found = [window for start, end in pairwise(places) for window in cutter.feed(text[start:end])]
    return found + cutter.close()


@pytest.mark.slow
@settings(deadline=None)  # a busy machine
@given(TEXTS, CUTS, st.lists(st.integers(0, 10_000), max_size=30))
@example("one. Two! " * 30, Cut(8, 2), list(range(300)))
@example("x" * 3000, Cut(8, 2), [1023, 1024, 1025, 2048])
@example(" " * 3000 + "x" + " " * 3000, Cut(4, 0), [1024])
def test_however_a_text_is_fed_its_windows_are_the_same(text: str, cut: Cut, cuts: list[int]) -> None:
    assert windows(text, cut, cuts) == windows(text, cut)


@pytest.mark.slow
@settings(deadline=None)  # a busy machine
@given(TEXTS, CUTS)
def test_passages_are_the_text_and_tokens_are_read_once_but_for_the_overlap(text: str, cut: Cut) -> None:
    found = windows(text, cut)
    assert "".join(window.text for window in found) == text
    assert [window.start for window in found] == [0, *(window.end for window in found[:-1])][: len(found)]
    assert [window.part for window in found] == list(range(len(found)))
    own = [one for window in found for one in window.ids[slice(*window.own)]]
    assert own == list(letters(text).ids)
    assert [window.whole for window in found] == [len(found) == 1] * len(found)


@pytest.mark.slow
@settings(deadline=None)  # a busy machine
@given(TEXTS, CUTS)
@example(" " * 3000 + "x", Cut(4, 0))
def test_every_token_of_title_and_text_is_counted_once(text: str, cut: Cut) -> None:
    cutter = WindowCutter(letters, cut, (7, 8), unread=3)
    used = sum(window.used for window in cutter.feed(text) + cutter.close())
    assert cutter.seen == 5 + len(letters(text).ids)
    assert used == (2 + len(letters(text).ids) if text else 0)


@settings(deadline=None)  # a busy machine
@given(TEXTS, CUTS)
def test_no_window_exceeds_its_bounds(text: str, cut: Cut) -> None:
    for window in windows(text, cut):
        assert len(window.ids) <= max(cut.size, cut.whole) + cut.ahead + cut.sinks
        assert len(window.text) <= max(32 * cut.size, 1100 * cut.whole) + 3 * 1024


@settings(deadline=None)  # a busy machine
@given(TEXTS, CUTS)
def test_a_window_reads_what_is_around_its_passage(text: str, cut: Cut) -> None:
    found, tokens = windows(text, cut), list(letters(text).ids)
    at = 0
    for window in found:
        first, end = window.own
        before = min(cut.overlap, at)
        assert list(window.ids[first - before : first]) == tokens[at - before : at]
        sinks = window.ids[: first - before]
        assert len(sinks) == min(cut.sinks, at - before) or window.part > 1
        assert list(sinks) == tokens[: len(sinks)], "the beginning"
        assert len(sinks) <= at - before, "and nothing twice"
        at += end - first
        assert list(window.ids[end:]) == tokens[at : at + cut.ahead]


def test_a_title_is_read_by_every_window_and_belongs_to_the_first() -> None:
    first, second, *_ = windows("a b c d e f g h", Cut(4, 1, sinks=2), title=(7, 8))
    assert (first.ids[:3], first.own) == ((7, 8, ord("a")), (0, 6))
    assert second.ids[:5] == (7, 8, ord("a"), ord("b"), ord("d"))
    assert second.own[0] == 5


@settings(deadline=None)  # a busy machine
@given(TEXTS, CUTS, st.booleans())
@example(text="abcdefgh" + " " * 9000, cut=Cut(4, 2, sinks=2), alone=True)
def test_a_vector_is_of_the_passages_tokens_alone_or_of_all_that_are_read(
    text: str, cut: Cut, alone: bool
) -> None:  # drawn
    for window in windows(text, replace(cut, alone=alone)):
        assert window.pooled == (window.own if alone and window.used else (0, len(window.ids)))


def test_a_window_ends_at_a_sentence_if_one_ends_in_its_last_quarter() -> None:
    text = "Aa bb cc dd ee ff gg. Hh ii jj kk ll mm nn oo pp."
    assert windows(text, Cut(18, 0))[0].text == "Aa bb cc dd ee ff gg. "
    assert windows(text, Cut(15, 0))[0].text == "Aa bb cc dd ee ff gg. "
    assert windows(text, Cut(14, 0))[0].text == "Aa bb cc dd ee ff gg"[:-2]
    assert windows(text, Cut(24, 0))[0].text == "Aa bb cc dd ee ff gg. Hh ii jj kk "


def test_words_are_parted_in_need_only() -> None:
    assert [window.text for window in windows("abc def ghi", Cut(8, 0))] == ["abc def ", "ghi"]
    assert [window.text for window in windows("abcdefghi", Cut(5, 0))] == ["abcde", "fghi"]


def test_between_words_without_a_space_there_is_a_cut_before_one_within_a_word() -> None:
    def threes(text: str) -> Tokens:
        return Tokens([ord(each) for each in text], range(len(text)), [at // 3 for at in range(len(text))])

    cutter = WindowCutter(threes, Cut(8, 0))
    assert [window.text for window in cutter.feed("abcdefghijkl") + cutter.close()] == ["abcdef", "ghijkl"]


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("a", 1), (" ", 1), ("\x00", 1), ("a b c d", 1), ("a b c d e", 2)]
)
def test_small_texts(text: str, count: int) -> None:
    assert len(windows(text, Cut(4, 1))) == count


def test_a_text_that_the_model_can_read_whole_stays_whole() -> None:
    assert len(windows("a " * 9, Cut(4, 1, whole=9))) == 1
    assert len(windows("a " * 10, Cut(4, 1, whole=9))) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("letter", "feeds"), [("x", 100), (" ", 100), ("漢", 10), ("\u0301", 10), (".", 10)])
def test_a_million_characters_of_one_kind_take_little_memory(letter: str, feeds: int) -> None:
    cutter = WindowCutter(estimated_tokens, Cut(128, 32))
    total, most = 0, 0
    tracemalloc.start()
    for _ in range(feeds):
        total += sum(len(window.text) for window in cutter.feed(letter * 10_000))
        most = max(most, tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert total + sum(len(window.text) for window in cutter.close()) == feeds * 10_000
    assert most < 1_000_000


@settings(deadline=None)  # a busy machine
@given(st.integers(8, 300), st.integers(0, 299), st.integers(4, 600), st.sampled_from(get_args(LongText)))
def test_windows_are_no_wider_than_the_encoder_reads(size: int, overlap: int, room: int, mode: LongText) -> None:
    config = StreamingConfig(chunk_size=size, overlap_size=min(overlap, size - 1), long_text=mode)
    cut = cut_for(config, room)
    assert 2 <= cut.size + cut.ahead + cut.sinks <= room
    assert 0 <= cut.overlap < cut.size <= size
    assert min(cut.ahead, cut.sinks) >= 0


def test_a_late_window_gives_way_to_what_is_read_with_it() -> None:
    cut = cut_for(StreamingConfig(long_text="late"), 120)
    assert (cut.size, cut.overlap, cut.ahead, cut.sinks) == (72, 32, 32, 16)


def test_a_mean_without_a_direction_is_that_of_the_first() -> None:
    up = np.array([1.0, 0.0], np.float32)
    np.testing.assert_array_equal(unit_mean(up - up, up), up)
    np.testing.assert_allclose(unit_mean(np.array([3.0, 4.0], np.float32), up), [0.6, 0.8])


def test_estimated_tokens_are_near_those_of_a_model() -> None:
    tokens = estimated_tokens("Internationalization of 漢字, done.")
    assert list(tokens.starts) == [0, 8, 16, 21, 24, 25, 26, 28, 32]
