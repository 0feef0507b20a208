"""Errors on the wire: RFC 9457 problem details. One table says which code has which status."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from niruhybrid.errors import ClosedError, DeadlineExceededError, NiruError, OverloadedError

__all__ = ("PROBLEMS", "Kind", "RequestError", "details", "of_status", "response", "wire_error")

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """What all problems of one code have in common.

    Attributes:
        status: HTTP status.
        title: a short sentence, always the same for a code.
        detail: what a client is told where the error's own message is not for it; None passes the message on.
    """

    status: int
    title: str
    detail: str | None = None


_LOOK_IN_LOG = "This is a fault of the server; its log says more."
_STORE = "The store can't be used at the moment; the server's log says more."

PROBLEMS: Mapping[str, Kind] = {
    # of HTTP itself
    "malformed_request": Kind(400, "The request is malformed"),
    "malformed_json": Kind(400, "The body is not JSON"),
    "unauthorized": Kind(401, "An API key is needed"),
    "forbidden": Kind(403, "The API key is not for this"),
    "not_found": Kind(404, "There is nothing here"),
    "method_not_allowed": Kind(405, "This method is not for this path"),
    "request_timeout": Kind(408, "The request took too long to arrive"),
    "body_too_large": Kind(413, "The body is too large"),
    "line_too_long": Kind(413, "A line is too long"),
    "head_too_large": Kind(431, "The head of the request is too large"),
    "unsupported_media_type": Kind(415, "The body is of the wrong type"),
    "misdirected_request": Kind(421, "This server does not go by that name"),
    "rate_limited": Kind(429, "Too many requests with this API key"),
    "http_error": Kind(400, "The request can't be served"),
    # of the server's life
    "starting": Kind(503, "The server is starting"),
    "start_failed": Kind(503, "The server could not start", _LOOK_IN_LOG),
    "shutting_down": Kind(503, "The server is shutting down"),
    "internal": Kind(500, "Something failed inside", _LOOK_IN_LOG),
    # of `niruhybrid.errors`
    "invalid_input": Kind(422, "A value can't be used"),
    "invalid_setting": Kind(422, "A value is out of range"),
    "invalid_text": Kind(422, "A text can't be used"),
    "invalid_id": Kind(422, "An id can't be used"),
    "invalid_vector": Kind(422, "An embedding can't be used"),
    "invalid_metadata": Kind(422, "Metadata can't be used"),
    "invalid_passage": Kind(409, "A passage does not continue its document"),
    "unknown_watermark": Kind(409, "The store has not come to this watermark"),
    "overloaded": Kind(503, "The server is busy"),
    "queue_full": Kind(429, "Too much is waiting already"),
    "deadline_unreachable": Kind(503, "The deadline can't be met"),
    "deadline_exceeded": Kind(504, "It was not finished in time"),
    "superseded": Kind(409, "A newer query of the session took its place"),
    "closed": Kind(503, "The pipeline is closed"),
    "dropped": Kind(503, "It was dropped before it was processed"),
    "encoder_error": Kind(500, "The encoder failed", _LOOK_IN_LOG),
    "encoder_failed": Kind(500, "The encoder failed", _LOOK_IN_LOG),
    "encoder_output": Kind(500, "The encoder failed", _LOOK_IN_LOG),
    "encoder_hung": Kind(503, "The encoder did not return in time", _LOOK_IN_LOG),
    "model_error": Kind(503, "The model can't be loaded", _LOOK_IN_LOG),
    "model_not_found": Kind(503, "The model can't be loaded", _LOOK_IN_LOG),
    "model_corrupt": Kind(503, "The model can't be loaded", _LOOK_IN_LOG),
    "model_unsupported": Kind(503, "The model can't be loaded", _LOOK_IN_LOG),
    "store_error": Kind(503, "The store failed", _STORE),
    "store_locked": Kind(503, "The store is in use elsewhere", _STORE),
    "store_corrupt": Kind(503, "The store is damaged", _STORE),
    "store_read_only": Kind(503, "The store can't be written to", _STORE),
    "store_full": Kind(507, "The disk is full", _STORE),
    "store_version": Kind(503, "The store is of a newer version", _STORE),
    "store_unreachable": Kind(503, "The store can't be reached", _STORE),
    "generation_failed": Kind(
        502, "The answer could not be generated", "The answer broke off; what came of it is true."
    ),
    "access_denied": Kind(502, "Another server refused this one", _LOOK_IN_LOG),
    "unreachable": Kind(502, "Another server can't be reached", _LOOK_IN_LOG),
    "replica_lost": Kind(503, "The replica that worked on it was lost"),
    "stream_lost": Kind(502, "A stream of another server broke off", _LOOK_IN_LOG),
    "undeliverable": Kind(503, "It was given up after too many tries", _LOOK_IN_LOG),
    "source_unreadable": Kind(422, "A source can't be read", "A source can't be read; the server's log says more."),
}

_OF_STATUS = {
    400: "malformed_request",
    404: "not_found",
    405: "method_not_allowed",
    500: "internal",
}
_WORTH_RETRYING = frozenset({429, 503})


class RequestError(Exception):
    """A request can't be served, for a reason that only HTTP knows.

    Attributes:
        code: a code of `PROBLEMS`.
        errors: what is wrong, field by field.
        headers: sent with the response.
        retry_after: seconds after which a retry has a fair chance; None where nobody knows.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.code = code
        self.errors = errors
        self.headers = headers or {}


_NO_FAULTS = (RequestError, OverloadedError, DeadlineExceededError, ClosedError)
"""What a sound server answers too, when it is busy or stops: a log of these would say nothing and cost much."""


def details(error: BaseException) -> dict[str, Any]:
    """Return the problem object of an error: `type`, `title`, `status`, `detail`, `code`; no internals.

    An error that is neither `NiruError` nor `RequestError` becomes `internal`.
    """
    code = _code(error)
    kind = PROBLEMS[code]
    problem = _problem(code, kind.detail or str(error))
    if isinstance(error, OverloadedError) or kind.status in _WORTH_RETRYING:
        problem["retry_after"] = _retry_after(error)
    if isinstance(error, RequestError) and error.errors:
        problem["errors"] = list(error.errors)
    return problem


def wire_error(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of an `error` event as it may leave: a problem object with the payload's other members."""
    code = str(data.get("code", "internal"))
    code = code if code in PROBLEMS else "internal"
    return {**data, **_problem(code, PROBLEMS[code].detail or str(data.get("detail", "")))}


def of_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> RequestError:
    """Return the error for a status that the framework decided on, such as 404."""
    return RequestError(_OF_STATUS.get(status, "http_error"), detail, headers=headers)


def response(error: BaseException) -> Response:
    """Return the HTTP response for an error, with `Retry-After` where a retry may succeed; log faults of the server."""
    problem = details(error)
    if problem["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, _NO_FAULTS):
        logger.error("request_failed code=%s", problem["code"], exc_info=error)
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if "retry_after" in problem:
        headers["Retry-After"] = str(problem["retry_after"])
    if isinstance(error, RequestError):
        headers.update(error.headers)
    return Response(orjson.dumps(problem), status_code=problem["status"], headers=headers, media_type=MEDIA_TYPE)


def _problem(code: str, detail: str) -> dict[str, Any]:
    kind = PROBLEMS[code]
    return {"type": f"/docs#{code}", "title": kind.title, "status": kind.status, "detail": detail, "code": code}


def _code(error: BaseException) -> str:
    """Return the error's code, or for a subclass made elsewhere that of its nearest known base."""
    if isinstance(error, RequestError):
        return error.code if error.code in PROBLEMS else "internal"
    codes = (base.code for base in type(error).__mro__ if issubclass(base, NiruError))
    return next((code for code in codes if code in PROBLEMS), "internal")


def _retry_after(error: BaseException) -> int:
    """Return whole seconds, at least one: what `Retry-After` can say."""
    seconds = error.retry_after if isinstance(error, OverloadedError | RequestError) else None
    return max(1, math.ceil(seconds or 0))
