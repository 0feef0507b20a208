"""URLs that may hold a password: without it for screens and logs, and apart from it for requests. Pure."""

import base64
from urllib.parse import unquote, urlsplit

__all__ = ("is_url", "request_parts", "shown_url", "split_credentials")

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


def request_parts(url: str, api_key: str | None) -> tuple[str, dict[str, str]]:
    """Return a URL without user and password, and the headers that send these and an API key.

    The key goes into `Authorization`, or into `X-API-Key` if user and password need that.
    """
    place, login = split_credentials(url)
    if login is None:
        return place, {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    return place, {"Authorization": login} | ({} if api_key is None else {"X-API-Key": api_key})


def is_url(url: str, *schemes: str) -> bool:
    """Return whether a text is a URL of one of the schemes, with a host and, if it has a port, a whole number there."""
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _cut(rest: str) -> tuple[str, str]:
    """Return what stands before a query or fragment, and these."""
    at = min((place for place in map(rest.find, "?#") if place >= 0), default=len(rest))
    return rest[:at], rest[at:]
