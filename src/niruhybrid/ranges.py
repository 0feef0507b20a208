"""What settings may be: each check names the setting, its value and what to give instead."""

import math

from niruhybrid.errors import InvalidSettingError

__all__ = ("number", "seconds", "share", "whole")


def whole(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is not a whole number in a range.

    Raises:
        InvalidSettingError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidSettingError(f"`{name}` is {value!r}: give a whole number from {low} to {high}")


def seconds(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is not finite seconds in a range.

    Raises:
        InvalidSettingError: it is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]  # `number` says it
        raise InvalidSettingError(f"`{name}` is {value!r}: give seconds from {low:g} to {high:g}")


def number(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is not a number in a range.

    Raises:
        InvalidSettingError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidSettingError(f"`{name}` is {value!r}: give a number from {low:g} to {high:g}")


def share(name: str, value: object, low: float = 0.0, high: float = 1.0) -> None:
    """Refuse what is not a share in a range.

    Raises:
        InvalidSettingError: it is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]  # `number` says it
        raise InvalidSettingError(f"`{name}` is {value!r}: give a share from {low:g} to {high:g}")
