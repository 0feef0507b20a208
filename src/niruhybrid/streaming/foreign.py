"""Errors that are not ours: of encoders, stores and tokenizers."""

from collections.abc import Callable

from niruhybrid.errors import NiruError

__all__ = ("as_ours",)


def as_ours(error: BaseException, kind: Callable[[str], NiruError], what: str) -> NiruError:
    """Return an error of ours for one that was raised, with it as the cause; itself if it is one.

    Args:
        error: what was raised.
        kind: makes the error of ours.
        what: what happened; `{}` is where the name of the error's class goes.
    """
    if isinstance(error, NiruError):
        return error
    ours = kind(what.format(type(error).__name__))
    ours.__cause__ = error
    return ours
