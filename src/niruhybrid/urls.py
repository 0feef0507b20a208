"""URLs that may hold a password: without it for screens and logs, and apart from it for requests. Pure."""

import base64
from urllib.parse import unquote

__all__ = ("shown_url", "split_credentials")

_ANONYMOUS = "…"


def shown_url(url: str) -> str:
    """Return a URL as it may be shown or logged: without user, password, query and fragment."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url if "@" not in url else _ANONYMOUS
    place, hidden = _cut(rest)
    return f"{scheme}://{_ANONYMOUS if '@' in hidden else place.rpartition('@')[2]}"


def split_credentials(url: str) -> tuple[str, str | None]:
    """Return a URL without user and password, and the value of `Authorization` that says the same (RFC 7617).

    Without a user in the URL, the second is None.
    """
    scheme, mark, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if not at:
        return url, None
    name, _, password = user.partition(":")
    secret = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return f"{scheme}{mark}{host}{slash}{path}", f"Basic {secret}"


def _cut(rest: str) -> tuple[str, str]:
    """Return what stands before a query or fragment, and these."""
    at = min((place for place in map(rest.find, "?#") if place >= 0), default=len(rest))
    return rest[:at], rest[at:]
