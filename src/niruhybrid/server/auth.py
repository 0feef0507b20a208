"""API keys: who may ask, and how often. Pure; of a key only its digest is kept."""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from niruhybrid.errors import InvalidSettingError

__all__ = ("ApiKey", "TokenBucket", "find_key", "parse_keys")

_SCOPES = frozenset({"read", "write"})
_SHORTEST = 16
_ENTRY = re.compile(r"([\w.-]{1,64}):([a-z+]+):(?:sha256:([0-9a-f]{64})|(\S+))")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that requests may bring.

    Attributes:
        name: what it is called in logs; owns the streams that are asked for with it.
        scopes: of `read` and `write`.
        digest: SHA-256 of the secret.
    """

    name: str
    scopes: frozenset[str]
    digest: bytes = field(repr=False)


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Return the keys of entries `name:scopes:secret`, between blanks, commas or line ends.

    Scopes are `read`, `write` or `read+write`; instead of the secret there may be `sha256:` and its digest in hex.
    What follows a `#` in a line is passed over.

    Raises:
        InvalidSettingError: an entry is malformed, a secret has fewer than 16 characters, or a name comes twice. The
            message does not repeat it.
    """
    lines = (line.partition("#")[0] for line in text.splitlines())
    entries = [entry for line in lines for entry in re.split(r"[\s,]+", line) if entry]
    keys = tuple(_parsed(number, entry) for number, entry in enumerate(entries, start=1))
    if len({key.name for key in keys}) < len(keys):
        raise InvalidSettingError("`api_keys` has a name twice: give each key a name of its own")
    return keys


def _parsed(number: int, entry: str) -> ApiKey:
    found = _ENTRY.fullmatch(entry)
    if found is None:
        raise InvalidSettingError(f"entry {number} of `api_keys` is malformed: write it as name:read+write:secret")
    name, scopes, digest, secret = found.groups()
    given = frozenset(scopes.split("+"))
    if not given <= _SCOPES:
        raise InvalidSettingError(f"entry {number} of `api_keys` has an unknown scope: give read, write or read+write")
    if secret is not None and len(secret) < _SHORTEST:
        raise InvalidSettingError(
            f"the secret of entry {number} of `api_keys` has {len(secret)} characters: give at least {_SHORTEST}"
        )
    return ApiKey(name, given, bytes.fromhex(digest) if digest else _digest(secret.encode()))


def find_key(keys: Iterable[ApiKey], secret: bytes) -> ApiKey | None:
    """Return the key with this secret. It takes the same time whichever it is, and whether there is one."""
    digest, found = _digest(secret), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


class TokenBucket:
    """So many requests a second, and so many at once after a while without.

    Args:
        rate: requests a second; above 0.
        burst: requests at once, from 1.
        now: seconds, of any monotonic clock.
    """

    __slots__ = ("_burst", "_level", "_rate", "_then")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._level = float(burst)
        self._then = now

    def take(self, now: float) -> float:
        """Let a request through and return 0, or return the seconds after which one will be let through."""
        self._level = min(self._burst, self._level + max(0.0, now - self._then) * self._rate)
        self._then = max(now, self._then)
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / self._rate
