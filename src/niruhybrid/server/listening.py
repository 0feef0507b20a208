"""The listening socket, its certificate, and the loop that accepts connections while there is room for them."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from niruhybrid.config import ServerConfig
from niruhybrid.errors import InvalidSettingError
from niruhybrid.server.connections import peer_of
from niruhybrid.server.front import configured_keys
from niruhybrid.server.protocol import BoundedProtocol, Connections

__all__ = ("accept", "listen", "open_files", "tls_context")

logger = logging.getLogger(__name__)

_BACKLOG = 2048
_PAUSE = 0.5  # seconds without accepting, after the system could not
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    b"Cache-Control: no-store\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
)
_TOO_MANY = (
    b'{"type":"/docs#overloaded","title":"The server is busy","status":503,"detail":"too many connections are open: '
    b'try again","code":"overloaded","retry_after":1}'
)


def listen(config: ServerConfig) -> socket.socket:
    """Return a listening socket; a connection on which a client takes no bytes for `send_timeout` is cut by the system.

    Raises:
        InvalidSettingError: the address can't be listened on, or not without API keys; or the certificate can't be
            used.
    """
    configured_keys(config)
    tls_context(config)
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # said, so that asyncio sets TCP_NODELAY
    try:
        # On Windows, SO_REUSEADDR would let another process take the port while it is in use.
        alone = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR if alone is None else alone, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # finds dead peers that send and never end
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(config.send_timeout * 1000)))
        listener.bind((config.host, config.port))
        listener.listen(_BACKLOG)
    except OSError as err:
        listener.close()
        remedy = "choose another `port`, or 0" if err.errno == errno.EADDRINUSE else "check `host` and `port`"
        raise InvalidSettingError(f"can't listen on {config.host}:{config.port} ({err.strerror}): {remedy}") from err
    listener.setblocking(False)  # noqa: FBT003  # its only argument
    return listener


def tls_context(config: ServerConfig) -> ssl.SSLContext | None:
    """Return what encrypts connections; None without `tls_cert`.

    Raises:
        InvalidSettingError: a file can't be read, or is not what it should be.
    """
    if config.tls_cert is None or config.tls_key is None:
        return None
    for name, path in (("tls_cert", config.tls_cert), ("tls_key", config.tls_key)):
        try:
            Path(path).read_bytes()
        except OSError as err:
            raise InvalidSettingError(f"`{name}` {path!r} can't be read ({err.strerror}): check the path") from err
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key, password="")  # else it would ask at the terminal
    except (ssl.SSLError, OSError, ValueError) as err:
        raise InvalidSettingError(
            f"`tls_cert` {config.tls_cert!r} and `tls_key` {config.tls_key!r} can't be used together "
            f"({getattr(err, 'reason', None) or err}): give a certificate and its own key in PEM, without a password"
        ) from err
    return context


def open_files() -> int | None:
    """Return how many files this process may have open; None where there is no such limit."""
    try:
        import resource  # noqa: PLC0415  # not on every system
    except ModuleNotFoundError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


async def accept(
    listener: socket.socket,
    connections: Connections,
    make: Callable[[str | None], BoundedProtocol],
    tls: ssl.SSLContext | None,
) -> None:
    """Accept connections until cancelled; close the one that has waited longest for a request where there is no room.

    Where none waits, or too many are from the same address, the new one is refused with 503.

    Args:
        listener: from `listen`.
        connections: counts them.
        make: returns what serves a connection of a peer.
        tls: encrypts them; None leaves them plain.
    """
    loop = asyncio.get_running_loop()
    beginning: set[asyncio.Task[None]] = set()
    try:
        while True:
            try:
                taken, address = await loop.sock_accept(listener)
            except ConnectionError:
                await asyncio.sleep(0)
                continue
            except OSError as err:
                logger.warning("accept_failed error=%s", err)
                await asyncio.sleep(_PAUSE)  # it is out of files or memory, and nothing tells when there is some again
                continue
            peer = peer_of(address[0])
            connections.make_room()
            if connections.table.admit(peer):
                protocol = make(peer)
                protocol.handshake = asyncio.ensure_future(_begin(taken, protocol, tls))
                connections.wait(protocol)
                beginning.add(protocol.handshake)
                protocol.handshake.add_done_callback(beginning.discard)
            else:
                connections.warn()
                _refuse(taken, encrypted=tls is not None)
            await asyncio.sleep(0)  # a queue that never empties must leave the others their turn
    finally:
        for task in beginning:
            task.cancel()
        if beginning:
            await asyncio.wait(beginning)


async def _begin(taken: socket.socket, protocol: BoundedProtocol, tls: ssl.SSLContext | None) -> None:
    """Hand a socket to what serves it, once TLS is agreed on; a connection that does not come about is dropped."""
    try:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, taken, ssl=tls)
    except OSError as err:
        logger.debug("handshake_failed error=%s", err)
    finally:
        if protocol.handshake is not None:
            protocol.release()


def _refuse(taken: socket.socket, *, encrypted: bool) -> None:
    with taken, suppress(OSError):
        if not encrypted:
            taken.setblocking(False)  # noqa: FBT003  # its only argument
            taken.send(_REFUSAL % (len(_TOO_MANY), _TOO_MANY))
