"""Answers that are errors, made into this library's own. Pure."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import orjson

from niruhybrid import errors
from niruhybrid.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    InvalidInputError,
    NiruError,
    OverloadedError,
    UnreachableError,
)

__all__ = ("error_from", "refusal", "unreachable")

_BY_CODE: Mapping[str, type[NiruError]] = {
    kind.code: kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, NiruError) and kind is not NiruError
}
_BY_STATUS: Mapping[int, type[NiruError]] = {
    401: AccessDeniedError,
    403: AccessDeniedError,
    408: DeadlineExceededError,
    429: OverloadedError,
    502: UnreachableError,
    503: OverloadedError,
    504: DeadlineExceededError,
}


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> NiruError:
    """Return the error that a response means: by the code of its problem object, else by its status.

    Args:
        status: not that of a success.
        headers: names in lower case, or a mapping that does not mind.
        body: a problem object (RFC 9457), an OpenAI error object, or what a proxy says.
    """
    try:
        problem = orjson.loads(body)
    except orjson.JSONDecodeError:
        problem = None
    if isinstance(problem, dict) and isinstance(problem.get("error"), dict):  # as OpenAI's clients want it
        told = problem["error"]
        problem = {"code": told.get("code"), "detail": told.get("message")}
    if not isinstance(problem, dict):
        problem = {}
    return error_from({"retry_after": _seconds(headers.get("retry-after")), **problem, "status": status})


def error_from(problem: Mapping[str, Any]) -> NiruError:
    """Return the error that a problem object names. A code of a server's own is known by its status."""
    status = problem.get("status")
    kind = _BY_CODE.get(str(problem.get("code"))) or _of_status(status if isinstance(status, int) else 500)
    detail = problem.get("detail") or problem.get("message")
    message = str(detail) if detail else f"the server answered with status {status}: look at its log"
    if issubclass(kind, OverloadedError):
        return kind(message, retry_after=_seconds(problem.get("retry_after")) or 0.0)
    return kind(message)


def unreachable(error: Exception | None) -> UnreachableError:
    """Return the error of a connection that broke, or was closed before its end (None)."""
    what = "closed the connection early" if error is None else f"can't be reached ({type(error).__name__}: {error})"
    found = UnreachableError(f"the server {what}: check that it runs")
    found.__cause__ = error
    return found


def _of_status(status: int) -> type[NiruError]:
    return _BY_STATUS.get(status) or (InvalidInputError if 400 <= status < 500 else NiruError)


def _seconds(value: object) -> float | None:
    try:
        seconds = float(value)  # type: ignore[arg-type]  # what is no number is refused here
    except (TypeError, ValueError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
