"""NATS JetStream as a worker's broker."""

from niruhybrid.errors import InvalidSettingError

try:
    from niruhybrid.cluster.nats.broker import NatsBroker
    from niruhybrid.cluster.nats.connection import ask_health
except ModuleNotFoundError as err:
    raise InvalidSettingError(f"the package {err.name!r} is missing: pip install 'niruhybrid[nats]'") from err

__all__ = ("NatsBroker", "ask_health")
