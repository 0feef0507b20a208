"""What settings may be: each check names the setting, its value and what to give instead."""

from niruhybrid.errors import InvalidSettingError

__all__ = ("number", "seconds", "share", "shown_value", "text", "whole")

_LONGEST = 200


def shown_value(value: object) -> str:
    """Return a value as an error message shows it: cut where it is long."""
    if isinstance(value, int) and value.bit_length() > _LONGEST:
        return f"a number of {value.bit_length()} bits"  # Python refuses to write a longer one in decimal
    written = repr(value)
    return written if len(written) <= _LONGEST else f"{written[:_LONGEST]}…"


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
        raise InvalidSettingError(f"`{name}` is {shown_value(value)}: give a whole number from {low} to {high}")


def seconds(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is not finite seconds in a range.

    Raises:
        InvalidSettingError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidSettingError(f"`{name}` is {shown_value(value)}: give seconds from {low:g} to {high:g}")


def number(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is not a number in a range.

    Raises:
        InvalidSettingError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidSettingError(f"`{name}` is {shown_value(value)}: give a number from {low:g} to {high:g}")


def share(name: str, value: object, low: float = 0.0, high: float = 1.0) -> None:
    """Refuse what is not a share in a range.

    Raises:
        InvalidSettingError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidSettingError(f"`{name}` is {shown_value(value)}: give a share from {low:g} to {high:g}")
