"""What values are made of, and what may be in them: refused where they enter. Pure."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import orjson
from numpy.typing import NDArray

from niruhybrid.errors import (
    InvalidIdError,
    InvalidMetadataError,
    InvalidSettingError,
    InvalidTextError,
    InvalidVectorError,
)
from niruhybrid.filters import checked_filter

__all__ = (
    "MAX_ID_CHARS",
    "MAX_TOP_K",
    "NO_METADATA",
    "FinishReason",
    "Metadata",
    "SearchMode",
    "Vector",
    "checked_id",
    "checked_metadata",
    "checked_text",
    "checked_timeout",
    "checked_top_k",
    "checked_vector",
    "no_metadata",
    "refuse_search",
    "refuse_surrogates",
    "shown",
)

Vector = NDArray[np.float32]
"""One embedding, `(dim,)` float32, or several, `(n, dim)`; C-contiguous, unit length unless said otherwise."""

Metadata = Mapping[str, Any]
"""A JSON object: string keys; strings, numbers, booleans, null, arrays and objects as values."""

SearchMode = Literal["hybrid", "dense", "lexical"]
"""What a search goes by: meaning and words, meaning alone, or words alone."""

FinishReason = Literal["stop", "length", "content_filter"]
"""Why a complete answer ends: it was at its end, at its longest, or the model's provider withheld the rest."""

MAX_ID_CHARS = 512
MAX_TOP_K = 1000
NO_METADATA: Metadata = MappingProxyType({})


def no_metadata() -> Metadata:
    """Return an object without fields."""
    return NO_METADATA


def checked_id(value: object) -> str:
    """Return `value` if it can serve as an id.

    Raises:
        InvalidIdError: it is not a string of 1 to 512 printable, encodable characters.
    """
    if not isinstance(value, str):
        raise InvalidIdError(f"id is {shown(value)}: give a string")
    if not 1 <= len(value) <= MAX_ID_CHARS:
        raise InvalidIdError(f"id has {len(value)} characters: give 1 to {MAX_ID_CHARS}")
    if not value.isprintable():
        raise InvalidIdError(f"id {value!r} has control or unpaired characters: use printable ones")
    return value


def checked_text(value: object, *, what: str = "text", max_chars: int | None = None) -> str:
    """Return `value` if it can be encoded.

    Args:
        value: the text.
        what: how an error names it.
        max_chars: characters at the most; None for no bound.

    Raises:
        InvalidTextError: it is not a string, is blank or too long, or has an unpaired surrogate.
    """
    if not isinstance(value, str):
        raise InvalidTextError(f"{what} is {shown(value)}: give a string")
    if not value or value.isspace():
        raise InvalidTextError(f"{what} is empty ({len(value)} characters, all blank): give some text")
    if max_chars is not None and len(value) > max_chars:
        raise InvalidTextError(
            f"{what} has {len(value)} characters of {max_chars} allowed: split it, or raise the limit"
        )
    refuse_surrogates(value, what)
    return value


def checked_top_k(value: object) -> int:
    """Return `value` if it is a number of hits one may ask for.

    Raises:
        InvalidSettingError: it is not a whole number from 1 to 1000.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TOP_K:
        raise InvalidSettingError(f"`top_k` is {shown(value)}: give a whole number from 1 to {MAX_TOP_K}")
    return value


def checked_vector(value: object, *, dim: int | None = None) -> Vector:
    """Return `value` as a unit vector: float32, C-contiguous, read-only, `(dim,)`.

    Args:
        value: a sequence or array of numbers, of any length but 0.
        dim: the dimension asked for; None takes any.

    Raises:
        InvalidVectorError: it is not one-dimensional, not of `dim` numbers, not finite, or all zeros.
    """
    try:
        vector = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as err:
        raise InvalidVectorError("embedding is not a list of numbers: give one number per dimension") from err
    if vector.ndim != 1 or vector.size == 0:
        raise InvalidVectorError(f"embedding has shape {vector.shape}: give one flat list of numbers")
    if dim is not None and vector.size != dim:
        raise InvalidVectorError(f"embedding has {vector.size} dimensions, the encoder has {dim}: use the same model")
    if not np.isfinite(vector).all():
        where = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise InvalidVectorError(f"embedding has {vector[where]} at position {where}: give finite numbers")
    top = float(np.abs(vector).max())
    if top == 0.0:
        raise InvalidVectorError("embedding is all zeros, it has no direction: give a non-zero vector")
    vector /= top  # first, so that the norm can neither overflow nor vanish
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    unit.flags.writeable = False
    return unit


def checked_metadata(value: object) -> Metadata:
    """Return `value` as a read-only JSON object; None gives an empty one.

    Raises:
        InvalidMetadataError: it is not a mapping with string keys and JSON values.
    """
    if value is None or (isinstance(value, Mapping) and not value):
        return NO_METADATA
    if not isinstance(value, Mapping):
        raise InvalidMetadataError(f"metadata is {shown(value)}: give a JSON object")
    copy = dict(value)
    try:
        orjson.dumps(copy)
    except (TypeError, ValueError) as err:
        raise InvalidMetadataError(f"metadata is not JSON ({err}): use string keys and JSON values") from err
    return MappingProxyType(copy)


def refuse_surrogates(value: str, what: str) -> None:
    """Refuse half a character, which no UTF-8 can carry.

    Raises:
        InvalidTextError: there is one; the message calls the text `what`.
    """
    if value.isascii():
        return
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as err:
        raise InvalidTextError(
            f"{what} has an unpaired surrogate at character {err.start}: send valid Unicode"
        ) from err


def shown(value: object) -> str:
    """Name a refused value without repeating more than a few characters of it."""
    text = repr(value) if isinstance(value, int | float | bool | None) else type(value).__name__
    return text[:40]


def checked_timeout(value: object) -> None:
    """Refuse what can't be a time limit.

    Raises:
        InvalidSettingError: it is neither None nor finite seconds above 0.
    """
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:  # type: ignore[operator,arg-type]  # `number` says it
        raise InvalidSettingError(f"`timeout` is {shown(value)}: give seconds above 0, or None for the default")


_MODES = get_args(SearchMode)


def refuse_search(wanted: object, mode: object, min_watermark: object) -> None:
    """Refuse what can't say which documents a search may find, and by what.

    Raises:
        InvalidSettingError: `wanted` is no filter, `mode` is none, or `min_watermark` is no whole number from 0 up.
    """
    if wanted is not None:
        checked_filter(wanted)
    if mode not in _MODES:
        raise InvalidSettingError(f"`mode` is {shown(mode)}: give one of {', '.join(_MODES)}")
    if isinstance(min_watermark, bool) or not isinstance(min_watermark, int) or min_watermark < 0:
        raise InvalidSettingError(f"`min_watermark` is {shown(min_watermark)}: give a whole number from 0 up")
