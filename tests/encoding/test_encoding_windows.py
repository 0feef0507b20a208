"""Long and growing texts through a real model."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niruhybrid.config import LongText
from niruhybrid.encoding.hybrid_encoder import HybridEncoder
from niruhybrid.encoding.windows import EncodedWindow
from niruhybrid.errors import ClosedError, InvalidSettingError, InvalidTextError
from niruhybrid.ports import WindowEncoder
from niruhybrid.windows import Window

MakeModel = Callable[..., Path]
SENTENCE = "Streams are read ahead no further than their bounds, and nothing is dropped in silence. "
LONG = "".join(f"{SENTENCE}Number {number} says so. " for number in range(40))
MIXED = "Ünïcödé, 東京タワー。 Привет, мир! 👩‍🚀 e\u0301 שלום Thai: ภาษาไทย [SEP] os.path\x00 1,000.5 \u200bend. "
MODES: list[LongText] = ["windows", "mean", "late", "truncate", "error"]


def collected(encoder: HybridEncoder, pieces: list[str], **more: object) -> list[EncodedWindow]:
    session = encoder.open_stream("t", **more)  # type: ignore[arg-type]  # the tests' own keywords
    return [window for piece in pieces for window in session.feed(piece)] + session.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("title", "text"), [("", "a"), ("", SENTENCE), ("Bounds", SENTENCE * 6), ("", MIXED)])
def test_a_text_that_fits_has_the_vector_of_plain_attention(
    encoder: HybridEncoder, mode: LongText, title: str, text: str
) -> None:
    found = encoder.encode_long(text, title=title, long_text=mode)
    plain = encoder.encode([f"{title}\n{text}" if title else text])
    assert found.vectors.shape == (1, 384)
    assert (found.vectors * plain).sum() >= 0.9999
    assert found.spans == ((0, len(text)),)
    assert found.windows == 1
    assert found.tokens_seen == found.tokens_used == encoder.count_tokens([f"{title} {text}"])[0] - 2


@pytest.mark.parametrize(("mode", "vectors"), [("windows", 10), ("late", 10), ("mean", 1), ("truncate", 1)])
def test_a_long_text_says_what_was_read(encoder: HybridEncoder, mode: LongText, vectors: int) -> None:
    found = encoder.encode_long(LONG, long_text=mode)
    assert found.tokens_seen == encoder.count_tokens([LONG])[0] - 2 == 880
    assert found.tokens_used == (254 if mode == "truncate" else 880)
    assert len(found.vectors) == len(found.spans) == vectors
    assert found.windows == (1 if mode == "truncate" else 10)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1.0, atol=1e-5)
    assert (found.spans[0][0], found.spans[-1][1] == len(LONG)) == (0, mode != "truncate")


def test_a_text_that_is_too_long_for_error_is_refused(encoder: HybridEncoder) -> None:
    with pytest.raises(InvalidTextError, match="880 tokens, the model reads 254"):
        encoder.encode_long(LONG, long_text="error")


def test_truncation_reads_what_a_plain_encode_reads(encoder: HybridEncoder) -> None:
    found = encoder.encode_long(LONG, title="On bounds", long_text="truncate")
    assert (found.vectors * encoder.encode([f"On bounds\n{LONG}"])).sum() >= 0.9999
    ((_, end),) = found.spans
    assert encoder.count_tokens(["On bounds " + LONG[:end]]) == [256]


def test_windows_know_what_came_before_and_the_title(encoder: HybridEncoder) -> None:
    text = SENTENCE * 20 + "It was written by her. " + SENTENCE * 10
    titled = encoder.encode_long(text, title="Marie Curie's notebook").vectors
    bare = encoder.encode_long(text).vectors
    query = encoder.encode(["Marie Curie"])[0]
    assert ((titled @ query) > (bare @ query) + 0.05).all()
    alone = encoder.encode_long(text, overlap_size=0)
    assert len(alone.vectors) < len(bare)


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 4 * len(MIXED)), max_size=40), st.sampled_from(["windows", "late"]))
def test_a_growing_text_has_the_same_windows_however_it_is_fed(
    encoder: HybridEncoder, cuts: list[int], mode: LongText
) -> None:
    text = MIXED * 4
    places = [0, *sorted(cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    fed = collected(encoder, pieces, long_text=mode, chunk_size=32, overlap_size=8)
    whole = encoder.encode_long(text, long_text=mode, chunk_size=32, overlap_size=8)
    assert "".join(window.text for window in fed) == text
    assert tuple(window.span for window in fed) == whole.spans
    assert (np.array([window.vector for window in fed]) * whole.vectors).sum(axis=1).min() >= 0.999


def test_a_window_comes_as_soon_as_it_is_final(encoder: HybridEncoder) -> None:
    session = encoder.open_stream("t", title="On bounds")
    fed = [len(session.feed(word + " ")) for word in LONG.split()]
    assert session.windows == sum(fed) > 5
    assert max(fed) <= 2
    assert session.close()
    assert session.tokens_used == encoder.count_tokens(["On bounds " + LONG])[0] - 2
    with pytest.raises(ClosedError, match="t is closed"):
        session.feed("more")
    with pytest.raises(ClosedError):
        session.close()


def test_an_empty_text_has_no_windows(encoder: HybridEncoder) -> None:
    assert collected(encoder, []) == []
    assert [window.text for window in collected(encoder, ["", " ", "a", ""])] == [" a"]
    with pytest.raises(InvalidTextError):
        encoder.encode_long(" ")


def test_unusable_streams_are_refused(encoder: HybridEncoder) -> None:
    session = encoder.open_stream("t")
    with pytest.raises(InvalidTextError, match="surrogate"):
        session.feed("\ud83d")
    with pytest.raises(InvalidTextError, match="bytes"):
        session.feed(b"bytes")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(InvalidSettingError, match="'mean'"):
        encoder.open_stream("t", long_text="mean")
    with pytest.raises(InvalidSettingError, match="`overlap_size` is 128"):
        encoder.open_stream("t", overlap_size=128)
    assert session.close() == []


@pytest.mark.slow
def test_a_million_characters_without_a_space(encoder: HybridEncoder) -> None:
    session = encoder.open_stream("t")
    windows = [window for _ in range(10) for window in session.feed("x" * 100_000)] + session.close()
    assert sum(len(window.text) for window in windows) == 1_000_000
    assert max(len(window.text) for window in windows) <= 32 * 128 + 1024


def test_a_small_model_reads_small_windows(make_model: MakeModel) -> None:
    small = HybridEncoder(make_model(window=8))
    found = small.encode_long("w1 w2 w3 w4 w5 w6 w7 w8", title="w9 w10 w11 w12 w13")
    assert (found.tokens_seen, found.tokens_used) == (13, 11)
    assert found.windows == 6
    late = small.encode_long("w1 w2 w3 w4 w5 w6 w7 w8 w9", long_text="late")
    assert late.tokens_used == 9


def test_a_windows_vector_is_of_the_tokens_that_it_names(encoder: HybridEncoder) -> None:
    ids = tuple(encoder.tokenize("Streams are read ahead. Cats sleep on the lawn.").ids)
    whole = Window(0, 0, "", ids, (0, len(ids)), (0, len(ids)))
    end = replace(whole, pooled=(5, len(ids)))
    cats = encoder.encode(["Where do cats sleep?"])[0]
    of_all, of_end = encoder.encode([whole, end]) @ cats
    assert of_end > of_all + 0.02


def test_the_encoder_is_one_for_windows(encoder: HybridEncoder) -> None:
    assert isinstance(encoder, WindowEncoder)
