"""What values are made of, and what may be in them: refused where they enter. Pure."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from niruhybrid.errors import (
    InvalidIdError,
    InvalidSettingError,
    InvalidTextError,
    InvalidVectorError,
)
from niruhybrid.filters import Filter, checked_filter
from niruhybrid.ranges import shown as shown_in_full
from niruhybrid.types.metadata import NO_METADATA, Metadata, checked_metadata, no_metadata

__all__ = (
    "MAX_ID_CHARS",
    "MAX_SECONDS",
    "MAX_TITLE_CHARS",
    "MAX_TOP_K",
    "NO_METADATA",
    "FinishReason",
    "Metadata",
    "SearchMode",
    "Vector",
    "checked_id",
    "checked_metadata",
    "checked_search",
    "checked_text",
    "checked_timeout",
    "checked_title",
    "checked_top_k",
    "checked_vector",
    "no_metadata",
    "refuse_surrogates",
    "shown",
)

Vector = NDArray[np.float32]
"""One embedding, `(dim,)` float32, or several, `(n, dim)`; C-contiguous, unit length unless said otherwise."""

SearchMode = Literal["hybrid", "dense", "lexical"]
"""What a search goes by: meaning and words, meaning alone, or words alone."""

FinishReason = Literal["stop", "length", "content_filter"]
"""Why a complete answer ends: it was at its end, at its longest, or the model's provider withheld the rest."""

MAX_ID_CHARS = 512
MAX_TOP_K = 1000
MAX_TITLE_CHARS = 2000
MAX_SECONDS = 86_400.0
"""The longest time limit: a day."""

_MAX_WATERMARK = 2**63 - 1


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


def checked_title(value: object) -> str:
    """Return `value` if it can be a document's title; it may be empty.

    Raises:
        InvalidTextError: it is not a string, has more than 2,000 characters, or has an unpaired surrogate.
    """
    if not isinstance(value, str):
        raise InvalidTextError(f"document title is {shown(value)}: give a string")
    if len(value) > MAX_TITLE_CHARS:
        raise InvalidTextError(
            f"document title has {len(value)} characters of {MAX_TITLE_CHARS} allowed: shorten it, "
            "or put it at the beginning of the text"
        )
    refuse_surrogates(value, "document title")
    return value


def checked_vector(value: object, *, dim: int | None = None) -> Vector:
    """Return `value` as a unit vector: float32, C-contiguous, read-only, `(dim,)`.

    Args:
        value: a sequence or array of numbers, of any length but 0.
        dim: the dimension asked for; None takes any.

    Raises:
        InvalidVectorError: it is not one-dimensional, not of `dim` numbers, not finite, or all zeros.
    """
    vector = _numbers(value)
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


def _numbers(value: object) -> NDArray[np.float64]:
    """Return a copy of `value` as float64, of any shape.

    Raises:
        InvalidVectorError: it is not made of numbers.
    """
    try:
        found = np.asarray(value)
        if found.dtype.kind not in _NO_NUMBERS:
            return np.array(found, dtype=np.float64)
    except Exception as err:  # an object that gives an array may raise anything
        raise InvalidVectorError("embedding is not a list of numbers: give one number per dimension") from err
    raise InvalidVectorError(f"embedding is a list of {found.dtype}, not of numbers: give one number per dimension")


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
    """Name a refused value without repeating text: numbers as they are, anything else by its type."""
    text = shown_in_full(value) if isinstance(value, int | float | bool | None) else type(value).__name__
    return text[:40]


def checked_timeout(value: object) -> None:
    """Refuse what can't be a time limit.

    Raises:
        InvalidSettingError: it is neither None nor seconds above 0 and up to 86,400.
    """
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= MAX_SECONDS:  # type: ignore[operator]  # `number` says it
        raise InvalidSettingError(
            f"`timeout` is {shown(value)}: give seconds above 0, up to {MAX_SECONDS:g}, or None for the default"
        )


_MODES = get_args(SearchMode)
_NO_NUMBERS = frozenset("bcmMSU")  # kinds of NumPy's types: booleans, complex numbers, times, bytes, text


def checked_search(wanted: object, mode: object, min_watermark: object) -> Filter | None:
    """Return a copy of the filter `wanted`, or None, if these can say which documents a search may find.

    Raises:
        InvalidSettingError: `wanted` is no filter, `mode` is none, or `min_watermark` is no whole number from 0 to
            2**63 - 1.
    """
    if mode not in _MODES:
        raise InvalidSettingError(f"`mode` is {shown(mode)}: give one of {', '.join(_MODES)}")
    whole = isinstance(min_watermark, int) and not isinstance(min_watermark, bool)
    if not whole or not 0 <= min_watermark <= _MAX_WATERMARK:  # type: ignore[operator]  # `whole` says it
        raise InvalidSettingError(
            f"`min_watermark` is {shown(min_watermark)}: give a whole number from 0 to {_MAX_WATERMARK}"
        )
    return None if wanted is None else checked_filter(wanted)
