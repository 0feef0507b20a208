import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from niruhybrid.evaluation.vectors import VectorCache
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Vector

TEXTS = [f"text number {number}" for number in range(600)]


def encoded(encoder: HashEncoder) -> int:
    """Return how many texts an encoder was given, besides the one that tells models apart."""
    return sum(len(batch) for batch in encoder.calls if len(batch) > 1 or batch[0] in TEXTS)


def test_vectors_are_those_of_the_encoder_in_the_order_of_the_texts(tmp_path: Path) -> None:
    vectors = VectorCache(HashEncoder(), tmp_path).encode(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, HashEncoder().encode(TEXTS))


def test_what_was_encoded_before_is_not_encoded_again(tmp_path: Path) -> None:
    first = VectorCache(HashEncoder(), tmp_path).encode(TEXTS)
    encoder = HashEncoder()
    np.testing.assert_array_equal(VectorCache(encoder, tmp_path).encode(TEXTS), first)
    assert encoded(encoder) == 0


def test_a_collection_that_grew_costs_what_is_new(tmp_path: Path) -> None:
    VectorCache(HashEncoder(), tmp_path).encode(TEXTS[:512])
    encoder = HashEncoder()
    VectorCache(encoder, tmp_path).encode(TEXTS)
    assert encoded(encoder) == len(TEXTS) - 512


def test_another_model_shares_nothing(tmp_path: Path) -> None:
    class Turned(HashEncoder):
        def encode(self, texts: Sequence[str], /) -> Vector:
            return -super().encode(texts)

    first = VectorCache(HashEncoder(), tmp_path).encode(TEXTS)
    np.testing.assert_array_equal(VectorCache(Turned(), tmp_path).encode(TEXTS), -first)


def test_texts_that_join_to_the_same_are_told_apart(tmp_path: Path) -> None:
    cache = VectorCache(HashEncoder(), tmp_path)
    np.testing.assert_array_equal(cache.encode(["ab", "c"]), HashEncoder().encode(["ab", "c"]))
    np.testing.assert_array_equal(cache.encode(["a", "bc"]), HashEncoder().encode(["a", "bc"]))


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", b"not a file of NumPy's"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: bytes) -> None:
    VectorCache(HashEncoder(), tmp_path).encode(TEXTS[:10])
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(damage)
    np.testing.assert_array_equal(
        VectorCache(HashEncoder(), tmp_path).encode(TEXTS[:10]), HashEncoder().encode(TEXTS[:10])
    )
    assert len(np.load(file, allow_pickle=False)) == 10


def test_a_file_with_pickled_objects_is_not_loaded(tmp_path: Path) -> None:
    VectorCache(HashEncoder(), tmp_path).encode(TEXTS[:10])
    (file,) = tmp_path.glob("*.npy")
    with file.open("wb") as opened:
        np.save(opened, np.array([{}] * 10, object), allow_pickle=True)
    assert VectorCache(HashEncoder(), tmp_path).encode(TEXTS[:10]).dtype == np.float32


def test_the_files_least_used_make_room(tmp_path: Path) -> None:
    cache = VectorCache(HashEncoder(dimension=8), tmp_path, max_bytes=3 * (8 * 4 * 256 + 128))
    cache.encode(TEXTS[:256])
    (first,) = tmp_path.glob("*.npy")
    other = [f"other {number}" for number in range(512)]
    cache.encode(other)
    assert first.exists()
    cache.encode([f"more {number}" for number in range(256)])
    assert not first.exists()
    assert len(list(tmp_path.glob("*.npy"))) == 3


def test_what_is_used_again_stays(tmp_path: Path) -> None:
    cache = VectorCache(HashEncoder(dimension=8), tmp_path, max_bytes=2 * (8 * 4 * 256 + 128))
    cache.encode(TEXTS[:256])
    (used,) = tmp_path.glob("*.npy")
    cache.encode(TEXTS[256:512])
    for path in tmp_path.glob("*.npy"):
        os.utime(path, (1.0, 1.0) if path == used else (2.0, 2.0))
    cache.encode(TEXTS[:256])
    cache.encode([f"more {number}" for number in range(256)])
    assert used.exists()


def test_a_file_of_another_length_is_made_again(tmp_path: Path) -> None:
    VectorCache(HashEncoder(), tmp_path).encode(TEXTS[:10])
    (file,) = tmp_path.glob("*.npy")
    np.save(file, HashEncoder().encode(TEXTS[:9]), allow_pickle=False)
    assert len(VectorCache(HashEncoder(), tmp_path).encode(TEXTS[:10])) == 10


def test_a_folder_that_cannot_be_written_to_costs_time_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        vectors = VectorCache(HashEncoder(), tmp_path / "file" / "vectors").encode(TEXTS[:10])
    np.testing.assert_array_equal(vectors, HashEncoder().encode(TEXTS[:10]))
    assert "vectors_not_kept" in caplog.text


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    told: list[int] = []
    VectorCache(HashEncoder(), tmp_path).encode(TEXTS, told.append)
    assert told == [256, 512, 600]
