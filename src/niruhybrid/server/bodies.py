"""Bodies and query strings: read within their bounds, parsed, refused with what is wrong."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request

from niruhybrid.config import ServerConfig
from niruhybrid.server.problems import RequestError

__all__ = ("in_body", "in_url", "json_values", "media_type", "parsed", "read_body")

_QUERY_STRING_FIELDS = 20


def media_type(request: Request) -> str:
    """Return the type that the body is said to be of, in lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def in_body(request: Request, config: ServerConfig) -> Mapping[str, Any]:
    """Return the JSON object that a request's body is.

    Raises:
        RequestError: it is of another type, too large, too slow or malformed.
        ClientDisconnect: the client left.
    """
    if media_type(request) != "application/json":
        raise RequestError("unsupported_media_type", "send JSON, with the header `Content-Type: application/json`")
    values = parsed(await read_body(request, config))
    if not isinstance(values, dict):
        raise RequestError("invalid_input", "the body is not a JSON object: send one")
    return values


async def json_values(request: Request, config: ServerConfig) -> list[Any]:
    """Return the values of a JSON array, or the one value that is not an array.

    Raises:
        RequestError: the body is of another type, too large, too slow or malformed.
        ClientDisconnect: the client left.
    """
    if media_type(request) != "application/json":
        raise RequestError(
            "unsupported_media_type", "send lines of JSON as `application/x-ndjson`, or JSON as `application/json`"
        )
    values = parsed(await read_body(request, config))
    return values if isinstance(values, list) else [values]


def parsed(body: bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        RequestError: it is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as err:
        raise RequestError("malformed_json", f"line {err.lineno}, column {err.colno}: {err.msg}") from err


async def read_body(request: Request, config: ServerConfig) -> bytes:
    """Return the whole body, refusing as soon as it is known to be over `max_body_bytes`, or to be late.

    Raises:
        RequestError: it is too large or too slow.
        ClientDisconnect: the client left.
    """
    most = config.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    body = bytearray()
    try:
        async with asyncio.timeout(config.send_timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise _too_large(most)
    except TimeoutError as err:
        raise RequestError(
            "request_timeout", "the body did not arrive in time: send it faster", headers={"Connection": "close"}
        ) from err
    return bytes(body)


def _too_large(most: int) -> RequestError:
    detail = f"the body is over {most} bytes: send less, or raise `max_body_bytes`"
    return RequestError("body_too_large", detail, headers={"Connection": "close"})


def in_url(request: Request) -> Mapping[str, str]:
    """Return the parameters of a query string.

    Raises:
        RequestError: it is malformed, has too many or one twice.
    """
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_QUERY_STRING_FIELDS,
        )
    except (ValueError, UnicodeError) as err:
        raise RequestError("malformed_request", "the query string is not UTF-8 in percent-encoding: encode it") from err
    values = dict(pairs)
    if len(values) < len(pairs):
        raise RequestError("invalid_input", "the query string has a parameter twice: send each once")
    return values
