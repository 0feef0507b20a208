"""What settings may be: each check names the setting, its value and what to give instead."""

import reprlib

from niruhybrid.errors import InvalidSettingError

__all__ = ("HIGHEST_INTEGER", "LOWEST_INTEGER", "number", "seconds", "share", "shown", "text", "whole")

LOWEST_INTEGER = -(2**63)
HIGHEST_INTEGER = 2**64 - 1
"""The whole numbers that JSON may carry here: 64 bits, signed or unsigned."""

_MOST_SHOWN = 60  # characters of a refused value in an error

_short = reprlib.Repr()
_short.maxlevel = 3
_short.maxdict = _short.maxlist = _short.maxtuple = 3
_short.maxstring = _short.maxlong = _short.maxother = _MOST_SHOWN


def shown(value: object) -> str:
    """Return a refused value as an error may show it: up to 60 characters, whatever the value is."""
    try:
        return _short.repr(value)[:_MOST_SHOWN]
    except ValueError:  # a whole number of more digits than Python writes out
        return f"a {type(value).__name__} of very many digits"


def text(name: str, value: object) -> None:
    """Refuse what is neither a text nor None; the message does not show it, as it may be secret.

    Raises:
        InvalidSettingError: it is neither.
    """
    if value is not None and not isinstance(value, str):
        raise InvalidSettingError(f"`{name}` is of type {type(value).__name__}: give text")


def whole(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is not a whole number in a range.

    Raises:
        InvalidSettingError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidSettingError(f"`{name}` is {shown(value)}: give a whole number from {low} to {high}")


def seconds(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is not finite seconds in a range.

    Raises:
        InvalidSettingError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidSettingError(f"`{name}` is {shown(value)}: give seconds from {low:g} to {high:g}")


def number(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is not a number in a range.

    Raises:
        InvalidSettingError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidSettingError(f"`{name}` is {shown(value)}: give a number from {low:g} to {high:g}")


def share(name: str, value: object, low: float = 0.0, high: float = 1.0) -> None:
    """Refuse what is not a share in a range.

    Raises:
        InvalidSettingError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidSettingError(f"`{name}` is {shown(value)}: give a share from {low:g} to {high:g}")
