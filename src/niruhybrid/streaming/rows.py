"""What an encoder returned, checked row by row. Pure."""

import numpy as np

from niruhybrid.errors import EncoderOutputError
from niruhybrid.types import Vector

__all__ = ("checked_rows",)

_UNIT = 1e-3  # rows this near to unit length are left as they are


def checked_rows(raw: object, count: int, dim: int | None) -> list[Vector | EncoderOutputError]:
    """Return one unit vector per text, or the error of that text alone.

    Args:
        raw: what the encoder returned: anything that NumPy reads as `(count, dim)` numbers.
        count: texts it was given.
        dim: the dimension asked for; None takes any.

    Returns:
        `count` entries, each a read-only float32 C-contiguous `(dim,)` unit vector of its own memory, or an error where
        a row has values that are not finite, or no direction.

    Raises:
        EncoderOutputError: the whole is not `(count, dim)` numbers, so that no row can be told from another.
    """
    try:
        rows = np.ascontiguousarray(raw, dtype=np.float32)
    except (TypeError, ValueError) as err:
        raise EncoderOutputError(f"the encoder returned {type(raw).__name__}, not rows of numbers: fix it") from err
    if rows.ndim != 2 or rows.shape[0] != count or rows.shape[1] == 0:
        raise EncoderOutputError(f"the encoder returned shape {rows.shape} for {count} texts: return one row per text")
    if dim is not None and rows.shape[1] != dim:
        raise EncoderOutputError(
            f"the encoder returned {rows.shape[1]} dimensions, {dim} before: always return the same"
        )
    checked: list[Vector | EncoderOutputError] = []
    for row, square in zip(rows, np.vecdot(rows, rows).tolist(), strict=True):
        if not abs(square - 1.0) <= 2 * _UNIT:  # `not`: so that NaN goes there too
            checked.append(_scaled_row(row))
            continue
        own = row.copy()
        own.setflags(write=False)
        checked.append(own)
    return checked


def _scaled_row(row: Vector) -> Vector | EncoderOutputError:
    norm = float(np.sqrt(np.vecdot(row, row, dtype=np.float64)))  # in float32 the squares of 1e-30 and 1e30 are lost
    if not np.isfinite(norm):
        return EncoderOutputError("the encoder returned values that are not finite for this text: fix it or the text")
    if norm == 0.0:
        return EncoderOutputError("the encoder returned all zeros for this text: a vector needs a direction")
    own: Vector = (row / norm).astype(np.float32)
    own.setflags(write=False)
    return own
