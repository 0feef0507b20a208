"""The console at `/`: a page of static files, served by this process alone, for which no API key is needed."""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from niruhybrid.server.problems import RequestError
from niruhybrid.server.routing import LeanRoute

__all__ = ("PATHS", "router")

_CONSOLE = Path(__file__).parent / "static" / "console"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",  # a licence
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # kept, and asked for again: an upgrade is seen at once, and costs a 304 otherwise
}


@dataclass(frozen=True, slots=True)
class _Asset:
    body: bytes
    media_type: str
    etag: str


def _files() -> Iterator[tuple[str, Path]]:
    """Yield the path at which each file is served, and the file."""
    yield "/", _CONSOLE / "index.html"
    for file in sorted(_CONSOLE.rglob("*")):
        if file.is_file() and file.suffix in _TYPES:
            yield f"/console/{file.relative_to(_CONSOLE).as_posix()}", file


PATHS = frozenset(path for path, _ in _files()) | {"/niru-client.js"}
"""What a page needs before anybody can give it an API key; the same for everybody, with nothing of what is stored."""


def router() -> APIRouter:
    """Return the paths of the console."""
    paths = APIRouter(route_class=LeanRoute)

    @paths.get("/", include_in_schema=False)
    @paths.get("/console/{name:path}", include_in_schema=False)  # the endpoint takes the request
    async def asset(request: Request) -> Response:
        """Return a file, or 304 to who has it."""
        found = _assets().get(request.scope["path"])
        if found is None:
            raise RequestError("not_found", "the console has no such file: open /")
        headers = _HEADERS | {"ETag": found.etag}
        if found.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(found.body, media_type=found.media_type, headers=headers)

    return paths


@functools.cache
def _assets() -> dict[str, _Asset]:
    """Return every file by its path. What is asked for is looked up here and never on the disk."""
    assets = {}
    for path, file in _files():
        body = file.read_bytes()
        assets[path] = _Asset(body, _TYPES[file.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return assets
