import logging
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niruhybrid.encoding.hybrid_encoder import HybridEncoder
from niruhybrid.errors import InvalidTextError
from niruhybrid.ports import TermEncoder
from niruhybrid.types import Vector

MakeModel = Callable[..., Path]
TEXTS = [
    "when was the last time anyone was on the moon",
    "who wrote he ain't heavy he's my brother lyrics",
    "a",
    "Ünïcödé, 東京 and 🚀 in one text",
    "Streams are read ahead no further than their bounds. " * 6,
    "An acknowledged document is visible to the next query, and survives the loss of the process. " * 12,
]


@pytest.fixture(scope="session")
def alone(encoder: HybridEncoder) -> Vector:
    return np.concatenate([encoder.encode([text]) for text in TEXTS])


def test_vectors_are_unit_float32_rows(encoder: HybridEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dimension) == (6, 384)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert vectors.flags.owndata
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_no_texts_no_rows(encoder: HybridEncoder) -> None:
    assert encoder.encode([]).shape == (0, 384)
    assert encoder.count_tokens([]) == []


def test_meaning_is_near(encoder: HybridEncoder) -> None:
    cat, kitten, market = encoder.encode(
        ["a cat sat on the mat", "a kitten is sitting on the rug", "stocks fell today"]
    )
    assert cat @ kitten > 0.5 > cat @ market + 0.2


def test_vectors_are_the_same_alone_and_together(encoder: HybridEncoder, alone: Vector) -> None:
    assert (encoder.encode(TEXTS) * alone).sum(axis=1).min() >= 0.999


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=16))
def test_vector_does_not_depend_on_its_batch_mates(encoder: HybridEncoder, alone: Vector, picks: list[int]) -> None:
    vectors = encoder.encode([TEXTS[pick] for pick in picks])
    assert (vectors * alone[picks]).sum(axis=1).min() >= 0.999


def test_threads_share_one_encoder(encoder: HybridEncoder, alone: Vector) -> None:
    together = Barrier(4)

    def encode(turn: int) -> float:
        together.wait()
        cosines = [(encoder.encode([TEXTS[pick]])[0] @ alone[pick]) for pick in (turn, turn - 1, turn - 2)]
        return float(min(cosines))

    with ThreadPoolExecutor(4) as pool:
        assert min(pool.map(encode, range(4))) >= 0.999


def test_result_is_not_overwritten_by_the_next_call(encoder: HybridEncoder) -> None:
    first = encoder.encode(TEXTS[:1])
    kept = first.copy()
    encoder.encode(TEXTS[1:2])
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("bare", "texts is one string: give a list"),
        (b"bare", "texts is one string: give a list"),
        (["fine", ""], "text 1 is empty"),
        (["fine", "fine", " \n\t"], "text 2 is empty"),
        ([None], "text 0 is None"),
        (["fine", 3], "text 1 is 3"),
        (["fine", "\ud800 alone"], "text 1 has an unpaired surrogate at character 0"),
    ],
)
def test_unusable_texts_are_refused_by_position(encoder: HybridEncoder, texts: list[str], message: str) -> None:
    with pytest.raises(InvalidTextError, match=message):
        encoder.encode(texts)
    with pytest.raises(InvalidTextError, match=message):
        encoder.count_tokens(texts)


def test_tokens_are_counted_beyond_the_window(encoder: HybridEncoder) -> None:
    assert encoder.max_tokens == 256
    assert encoder.count_tokens(["a cat", "word " * 300]) == [4, 302]


def test_truncation_is_told_once_without_the_text(make_model: MakeModel, caplog: pytest.LogCaptureFixture) -> None:
    small = HybridEncoder(make_model(window=8))
    with caplog.at_level(logging.WARNING):
        small.encode(["w1 w2 w3 w4 w5 w6"])
        assert not caplog.records
        small.encode(["w1 w2 w3 w4 w5 w6 w7", "w1"])
        small.encode(["w1 w2 w3 w4 w5 w6 w7"])
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "texts_truncated count=1 max_tokens=8"
    ]
    assert "w7" not in caplog.text


def test_text_beyond_the_window_is_its_beginning(make_model: MakeModel) -> None:
    small = HybridEncoder(make_model(window=8))
    long, cut = small.encode(["w1 w2 w3 w4 w5 w6 w7 w8", "w1 w2 w3 w4 w5 w6"])
    assert long @ cut >= 0.999


def test_terms_are_those_of_the_analysis(encoder: HybridEncoder) -> None:
    assert isinstance(encoder, TermEncoder)
    assert encoder.terms("Running Cafés") == ["run", "cafe"]


@pytest.mark.slow
@pytest.mark.integration
def test_openvino_is_loaded_with_the_first_encoder_and_never_its_telemetry(tmp_path: Path) -> None:
    code = """
import socket, sys
def refuse(*arguments):
    raise AssertionError("a connection was tried")
socket.socket.connect = refuse
from niruhybrid.encoding.hybrid_encoder import HybridEncoder
assert "openvino" not in sys.modules
HybridEncoder()
assert "openvino" in sys.modules
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
"""
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir()), "telemetry keeps its identifiers in the home folder"
