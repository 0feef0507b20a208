"""Connections under bounds: how many there may be, from one address too, and how long each may take to send a request.

Pure: it is told the time and which connections come, wait and go, and says which are to be closed.
"""

import ipaddress
from dataclasses import dataclass
from typing import Generic, TypeVar

from niruhybrid.config import ServerConfig
from niruhybrid.server.front import is_loopback

__all__ = ("ConnectionLimits", "ConnectionTable", "limits", "peer_of")

Connection = TypeVar("Connection")

_MOST = 20_000
_FEWEST = 16
_SPARE_FILES = 64
"""Files that are left for the store and the model, at the least."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds on connections.

    Attributes:
        total: connections open at once.
        per_peer: connections open at once from one address; addresses of this machine have no bound of their own.
        serving: connections that may have a request under way; the others are kept for health checks.
        head_timeout: seconds until the head of a request is complete.
    """

    total: int
    per_peer: int
    serving: int
    head_timeout: float


def limits(config: ServerConfig, open_files: int | None) -> ConnectionLimits:
    """Return the bounds that the settings ask for, or those that fit the process's limit on open files.

    Args:
        config: the settings.
        open_files: files that the process may have open; None where the system has no such limit.
    """
    total = config.max_connections
    if total is None:
        fits = _MOST if open_files is None else open_files - max(_SPARE_FILES, open_files // 4)
        total = max(_FEWEST, min(_MOST, fits))
    per_peer = max(1, total // 2) if config.max_connections_per_peer is None else config.max_connections_per_peer
    return ConnectionLimits(total, per_peer, max(1, total - total // 16), config.head_timeout)


def peer_of(host: str) -> str | None:
    """Return what connections from an address are counted by; None for an address of this machine.

    Of IPv6 it is the network of 64 bits: whoever has one address there has all of them.
    """
    host = host.partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None  # a socket of the file system
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return None if address.is_loopback else address.packed[:8].hex()
        address = address.ipv4_mapped
    return None if is_loopback(str(address)) else str(address)


class ConnectionTable(Generic[Connection]):
    """All open connections: counted by address, and in order of how long they have waited for a request.

    Args:
        limits: the bounds.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._open = 0
        self._of_peer: dict[str, int] = {}
        self._waiting: dict[Connection, float] = {}  # since when; the longest first

    @property
    def open(self) -> int:
        """Connections that are open."""
        return self._open

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more connection."""
        return self._open >= self.limits.total

    @property
    def is_busy(self) -> bool:
        """Whether more connections have a request under way than may have one."""
        return self._open - len(self._waiting) > self.limits.serving

    def admit(self, peer: str | None) -> bool:
        """Count one more connection, if there is room for it."""
        if self.is_full:
            return False
        if peer is not None:
            if self._of_peer.get(peer, 0) >= self.limits.per_peer:
                return False
            self._of_peer[peer] = self._of_peer.get(peer, 0) + 1
        self._open += 1
        return True

    def release(self, peer: str | None) -> None:
        """Take back what `admit` counted."""
        self._open -= 1
        if peer is not None:
            self._of_peer[peer] -= 1
            if not self._of_peer[peer]:
                del self._of_peer[peer]

    def wait(self, connection: Connection, now: float) -> None:
        """Note that a connection waits for a request from now on."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = now

    def stop_waiting(self, connection: Connection) -> None:
        """Note that a connection has its request, or is gone."""
        self._waiting.pop(connection, None)

    def longest_waiting(self) -> Connection | None:
        """Return the connection that has waited longest for a request; None if none waits."""
        return next(iter(self._waiting), None)

    def take_overdue(self, now: float, most: int) -> list[Connection]:
        """Return up to `most` connections that have waited for `head_timeout`, and forget that they wait."""
        overdue: list[Connection] = []
        for connection, since in self._waiting.items():
            if since + self.limits.head_timeout > now or len(overdue) == most:
                break
            overdue.append(connection)
        for connection in overdue:
            del self._waiting[connection]
        return overdue

    def due(self) -> float | None:
        """Return when the next connection will be overdue; None if none waits."""
        since = next(iter(self._waiting.values()), None)
        return None if since is None else since + self.limits.head_timeout
