"""The commands' way to a running server."""

from typing import TYPE_CHECKING, Any

import click
import orjson

from niruhybrid.config import RetryPolicy
from niruhybrid.errors import AccessDeniedError, OverloadedError
from niruhybrid.urls import is_url, request_parts, shown_url

if TYPE_CHECKING:
    from niruhybrid.client.tasks import AsyncClient

__all__ = ("client_of", "counters_of")

_TIMEOUT = 10.0
_IMPATIENT = RetryPolicy(3, 0.1, 1.0, on=(ConnectionError, OverloadedError))  # somebody waits


def client_of(url: str, api_key: str | None, *, patient: bool) -> "AsyncClient":
    """Return a client of the server.

    Args:
        url: where it is.
        api_key: its key, if it wants one.
        patient: whether to try for about ten seconds to reach it, rather than for a few tenths.

    Raises:
        ClickException: the client's package is missing.
        InvalidSettingError: the URL or the key can't be used.
    """
    try:
        from niruhybrid.client.tasks import AsyncClient  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as err:
        raise click.ClickException(f"the package {err.name!r} is missing: pip install 'niruhybrid[client]'") from err
    return AsyncClient(url, api_key=api_key, retry=None if patient else _IMPATIENT)


def counters_of(url: str, api_key: str | None) -> dict[str, Any]:
    """Return the counters of a server; needs no package beside the command's own.

    Raises:
        UsageError: the URL is none.
        AccessDeniedError: the key is missing, or not for this.
        ClickException: there are no counters there.
    """
    from urllib.error import HTTPError, URLError  # noqa: PLC0415  # only here
    from urllib.request import ProxyHandler, Request, build_opener  # noqa: PLC0415  # only here

    shown = shown_url(url)
    if not is_url(url, "http", "https"):
        raise click.UsageError(f"--url is {shown!r}: give one that starts with http:// or https://")
    place, headers = request_parts(url, api_key)
    asked = Request(f"{place.rstrip('/')}/stats", headers=headers)  # noqa: S310  # its scheme was looked at
    try:
        with build_opener(ProxyHandler({})).open(asked, timeout=_TIMEOUT) as answer:
            counters: dict[str, Any] = orjson.loads(answer.read())
    except (URLError, TimeoutError, orjson.JSONDecodeError) as err:
        if isinstance(err, HTTPError) and err.code in {401, 403}:
            raise AccessDeniedError(f"{shown} wants an API key that may read: set NIRU_API_KEY") from err
        raise click.ClickException(f"no counters from {shown} ({err}): is the server running there?") from err
    return counters
