"""Vectors kept on disk: a text that this model has encoded before is not encoded again.

Texts are encoded and kept 256 at a time, so a run that was stopped goes on where it stopped, and a collection that grew
costs only what is new. A file is found by its texts and by the vector that the model gives a fixed text: another
model, or the same at another precision, shares nothing. The files least used make room for new ones.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import cast

import numpy as np

from niruhybrid.ports import Encoder
from niruhybrid.types import Vector
from niruhybrid.windows import Window

__all__ = ("VectorCache",)

_log = logging.getLogger(__name__)

_TEXTS_A_FILE = 256
_PROBE = "The quick brown fox jumps over the lazy dog."


class VectorCache:
    """Encodes texts, or finds their vectors in a folder.

    A folder that can't be written to, or a damaged file, costs time and nothing else.

    Args:
        encoder: what encodes.
        folder: where the files are, made if there is none; None keeps none.
        max_bytes: size of all files together at the most.

    Attributes:
        encoder: what encodes.
    """

    def __init__(self, encoder: Encoder, folder: Path | None, max_bytes: int = 2 << 30) -> None:
        self.encoder = encoder
        self._folder = folder
        self._max_bytes = max_bytes
        self._model = hashlib.sha256(self._encode([_PROBE]).tobytes()).digest()

    def encode(self, texts: Sequence[str | Window], on_progress: Callable[[int], None] | None = None) -> Vector:
        """Return `(n, dim)` float32 vectors, in the texts' order.

        Args:
            texts: at least one; windows only where the encoder takes windows.
            on_progress: told after each part how many texts are done.
        """
        parts: list[Vector] = []
        for start in range(0, len(texts), _TEXTS_A_FILE):
            parts.append(self._part(texts[start : start + _TEXTS_A_FILE]))
            if on_progress is not None:
                on_progress(min(start + _TEXTS_A_FILE, len(texts)))
        self._make_room()
        return np.concatenate(parts)

    def _part(self, texts: Sequence[str | Window]) -> Vector:
        if self._folder is None:
            return self._encode(texts)
        path = self._folder / f"{self._key(texts)}.npy"
        kept = _read(path, len(texts))
        if kept is not None:
            return kept
        vectors = self._encode(texts)
        try:
            _write(path, vectors)
        except OSError as err:
            _log.warning("vectors_not_kept reason=%s: set XDG_CACHE_HOME to a folder with room", err.strerror)
        return vectors

    def _encode(self, texts: Sequence[str | Window]) -> Vector:
        return np.ascontiguousarray(self.encoder.encode(cast("list[str]", list(texts))), np.float32)

    def _key(self, texts: Sequence[str | Window]) -> str:
        digest = hashlib.sha256(self._model)
        for text in texts:
            data = text.encode() if isinstance(text, str) else repr((text.ids, text.own)).encode()
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
        return digest.hexdigest()

    def _make_room(self) -> None:
        if self._folder is None or not self._folder.is_dir():
            return
        files = sorted(((path.stat(), path) for path in self._folder.glob("*.npy")), key=lambda pair: pair[0].st_mtime)
        excess = sum(stat.st_size for stat, _ in files) - self._max_bytes
        for stat, path in files:
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= stat.st_size


def _read(path: Path, count: int) -> Vector | None:
    """Return the vectors of a file and note its use; None if there is no such file, or not a whole one."""
    try:
        vectors = np.load(path, allow_pickle=False)
        os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    fits = vectors.ndim == 2 and len(vectors) == count and vectors.dtype == np.float32 and np.isfinite(vectors).all()
    return vectors if fits else None


def _write(path: Path, vectors: Vector) -> None:
    """Keep a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            np.save(file, vectors, allow_pickle=False)
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
