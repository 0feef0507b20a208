"""What every request passes first: is it meant for this server, from whom, how often; and what every response has."""

import contextvars
import functools
import ipaddress
import logging
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from niruhybrid.config import ServerConfig
from niruhybrid.errors import InvalidSettingError
from niruhybrid.server import console, problems
from niruhybrid.server.auth import ApiKey, TokenBucket, find_key, parse_keys
from niruhybrid.server.gate import ANONYMOUS
from niruhybrid.server.problems import RequestError

__all__ = ("REQUEST_ID", "Front", "configured_keys", "is_loopback")

logger = logging.getLogger("niruhybrid.server.access")

REQUEST_ID: contextvars.ContextVar[str | None] = contextvars.ContextVar("niru_request_id", default=None)
"""The id of the request that is being served; everything that is begun for it inherits it."""

_OPEN = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"}) | console.PATHS
_HEALTH = frozenset({"/healthz", "/readyz"})
_WRITES = frozenset({"/stream/data"})
_USABLE_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
_SECURITY = (
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID, X-API-Key, X-Request-ID",
    "Access-Control-Max-Age": "600",
}


@functools.lru_cache(256)  # the same few names come with every request
def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def configured_keys(config: ServerConfig) -> tuple[ApiKey, ...]:
    """Return the API keys that the settings and their file name.

    Raises:
        InvalidSettingError: one is malformed, the file can't be read, or there are none and others than this machine
            can reach the server.
    """
    text = config.api_keys or ""
    if config.api_keys_file is not None:
        try:
            text += "\n" + Path(config.api_keys_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as err:
            raise InvalidSettingError(
                f"`api_keys_file` {config.api_keys_file!r} can't be read ({type(err).__name__}): check the path"
            ) from err
    keys = parse_keys(text)
    if not keys and not is_loopback(config.host):
        raise InvalidSettingError(
            f"`host` is {config.host!r}, which others can reach, and there are no API keys: set `api_keys` or "
            "`api_keys_file`, or listen on 127.0.0.1"
        )
    return keys


class Front:
    """Stands before applications: refuses what is not to be served, and completes the headers of what is.

    Args:
        config: keys, rate, names, origins.

    Raises:
        InvalidSettingError: the keys can't be used, or are needed.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._keys = configured_keys(config)
        self._rate, self._burst = config.rate_limit, config.rate_burst
        self._buckets: dict[str, TokenBucket] = {}
        self._names = frozenset(_listed(config.allowed_hosts))
        self._checks_names = bool(self._names) or is_loopback(config.host)
        self._origins = frozenset(_listed(config.cors_origins))
        strict = ((b"strict-transport-security", b"max-age=31536000"),) if config.tls_cert is not None else ()
        self._always = (*_SECURITY, *strict)

    def before(self, app: ASGIApp) -> ASGIApp:
        """Return an application that serves what `app` does, of what is to be served."""

        async def fronted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._serve(app, scope, receive, send)
            else:
                await app(scope, receive, send)

        return fronted

    async def _serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        REQUEST_ID.set(request_id)
        began, status = time.perf_counter(), 0
        extra = (*self._always, (b"x-request-id", request_id.encode()), *self._allowed_origin(headers))

        async def completed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        try:
            await (self._refusal(scope, headers) or app)(scope, receive, completed)
        finally:
            if logger.isEnabledFor(logging.DEBUG):
                _log(scope, status, began)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the response to a request that is not to be served, and note who asks otherwise."""
        try:
            _refuse_when_busy(scope)
            self._refuse_other_names(headers)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                return self._preflight(headers)
            if scope["path"] not in _OPEN:
                self._admit(scope, headers)
        except RequestError as err:
            return problems.response(err)
        return None

    def _refuse_other_names(self, headers: Headers) -> None:
        """Refuse a name that some page elsewhere may have made up to reach this machine (DNS rebinding)."""
        host = headers.get("host")
        if not self._checks_names or host is None:
            return
        name = re.sub(r":\d*$", "", host).lower()
        if name not in self._names and not is_loopback(name):
            raise RequestError("misdirected_request", "add the name you use to `allowed_hosts`, or use localhost")

    def _admit(self, scope: Scope, headers: Headers) -> None:
        owner = ANONYMOUS
        if self._keys:
            key = find_key(self._keys, _secret(headers))
            if key is None:
                raise RequestError(
                    "unauthorized",
                    "send an API key that this server knows, as `Authorization: Bearer …`",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            writes = scope["path"] in _WRITES or scope["method"] == "DELETE"  # these look for the scope themselves
            if not writes and "read" not in key.scopes:
                raise RequestError("forbidden", "this API key may not read: use one with the scope `read`")
            owner = key.name
            scope["niru.scopes"] = key.scopes
        scope["niru.owner"] = owner
        self._slow_down(owner)

    def _slow_down(self, owner: str) -> None:
        if not self._rate:
            return
        now = time.monotonic()
        bucket = self._buckets.setdefault(owner, TokenBucket(self._rate, self._burst, now))
        if (seconds := bucket.take(now)) > 0:
            raise RequestError("rate_limited", "too many requests: wait, or raise `rate_limit`", retry_after=seconds)

    def _allowed_origin(self, headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
        if not self._origins:
            return ()
        vary = (b"vary", b"Origin")
        if "*" in self._origins:
            return ((b"access-control-allow-origin", b"*"), _EXPOSED)
        origin = headers.get("origin")
        if origin not in self._origins:
            return (vary,)
        return ((b"access-control-allow-origin", origin.encode("latin-1")), _EXPOSED, vary)

    def _preflight(self, headers: Headers) -> Response:
        if not any(name == b"access-control-allow-origin" for name, _ in self._allowed_origin(headers)):
            raise RequestError("forbidden", "pages of this origin may not ask: add it to `cors_origins`")
        return Response(status_code=204, headers=_PREFLIGHT)


_EXPOSED = (b"access-control-expose-headers", b"Retry-After, X-Request-ID")


def _refuse_when_busy(scope: Scope) -> None:
    """Refuse what is no health check, when the last free connections are kept for these."""
    if scope.get("niru.busy") and scope["path"] not in _HEALTH:
        raise RequestError(
            "overloaded",
            "too many connections are open: try again",
            headers={"Connection": "close"},
            retry_after=1,
        )


def _listed(text: str | None) -> list[str]:
    return [part for part in re.split(r"[\s,]+", (text or "").lower()) if part]


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _USABLE_ID.fullmatch(given) else secrets.token_urlsafe(9)


def _secret(headers: Mapping[str, str]) -> bytes:
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    given = secret.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return given.encode("latin-1", "replace")


def _log(scope: Scope, status: int, began: float) -> None:
    """Note a request, by the path it asked for as it is described: what is in it, an id say, may be private."""
    path = getattr(scope.get("route"), "path", "")
    logger.debug(
        "request method=%s path=%s status=%d ms=%.1f owner=%s",
        scope["method"],
        path,
        status,
        (time.perf_counter() - began) * 1000,
        scope.get("niru.owner", "-"),
    )
