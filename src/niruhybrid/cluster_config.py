"""Settings of what runs past one machine, as frozen, validated values like those of `niruhybrid.config`."""

import re
from dataclasses import dataclass, field

from niruhybrid.errors import InvalidSettingError
from niruhybrid.ranges import number, seconds, shown, whole
from niruhybrid.urls import is_url

__all__ = ("RayConfig", "WorkerConfig")

_NAME = "[A-Za-z0-9_-]{1,64}"


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Which broker a worker takes messages from, and how many at a time.

    Attributes:
        url: the broker's address, such as `nats://host:4222` or `tls://user:password@host:4222`; several of one cluster
            between blanks or commas. Give one that holds a secret by variable, never as an argument.
        stream: name of the stream of data messages; made if there is none.
        group: name of the group of workers that share the messages; another group gets them all again.
        prefix: what the subjects begin with.
        in_flight: messages this worker has at a time; 1 to 4096.
        ack_wait: seconds after which a message that nobody works on is given to another worker; 1 to 3600.
        max_deliveries: how often a message is tried before it becomes a dead letter; 1 to 1000.
        drain: seconds that what is in flight may take when the worker is told to stop; 0 to 3600.
        max_queries: queries answered at a time, the next is refused; 1 to 100,000.
        max_query_chars: characters of one query at the most; 1 to 1,000,000.
        max_subscribers: standing queries of this worker, the next is refused; 0 to 100,000.
        lease: seconds a standing query stays without being renewed; 1 to 86,400.

    Raises:
        InvalidSettingError: a value is out of its range.
    """

    url: str = field(default="nats://127.0.0.1:4222", repr=False)
    stream: str = "niru"
    group: str = "niru"
    prefix: str = "niru"
    in_flight: int = 256
    ack_wait: float = 30.0
    max_deliveries: int = 20
    drain: float = 20.0
    max_queries: int = 256
    max_query_chars: int = 8_000
    max_subscribers: int = 1000
    lease: float = 60.0

    def __post_init__(self) -> None:
        urls = self.url.replace(",", " ").split() if isinstance(self.url, str) else []
        if not urls or not all(is_url(url, "nats", "tls", "ws", "wss") for url in urls):
            raise InvalidSettingError("`url` is not an address of NATS: give one, such as nats://127.0.0.1:4222")
        for name, pattern in (("stream", _NAME), ("group", _NAME), ("prefix", rf"{_NAME}(?:\.{_NAME})*")):
            value = getattr(self, name)
            if not isinstance(value, str) or not re.fullmatch(pattern, value):
                raise InvalidSettingError(f"`{name}` is {shown(value)}: give letters, digits, - and _, at most 64")
        whole("in_flight", self.in_flight, 1, 4096)
        seconds("ack_wait", self.ack_wait, 1.0, 3600.0)
        whole("max_deliveries", self.max_deliveries, 1, 1000)
        seconds("drain", self.drain, 0.0, 3600.0)
        whole("max_queries", self.max_queries, 1, 100_000)
        whole("max_query_chars", self.max_query_chars, 1, 1_000_000)
        whole("max_subscribers", self.max_subscribers, 0, 100_000)
        seconds("lease", self.lease, 1.0, 86_400.0)


@dataclass(frozen=True, slots=True)
class RayConfig:
    """How a pipeline is spread over a cluster of Ray: `niru deploy ray`.

    Attributes:
        replicas: pipelines that run at the least, each with an encoder of its own; 1 to 10,000.
        max_replicas: pipelines at the most, as many as the load asks for; 1 to 10,000. None holds them at `replicas`.
        ingress: HTTP servers; 1 to 10,000.
        cpus: cores that Ray sets aside for each pipeline; 0 to 1024.
        drain: seconds a replica that is to go has for what it has begun; 0 to 3600.

    Raises:
        InvalidSettingError: a value is out of its range.
    """

    replicas: int = 1
    max_replicas: int | None = None
    ingress: int = 1
    cpus: float = 1.0
    drain: float = 30.0

    def __post_init__(self) -> None:
        whole("replicas", self.replicas, 1, 10_000)
        if self.max_replicas is not None:
            whole("max_replicas", self.max_replicas, self.replicas, 10_000)
        whole("ingress", self.ingress, 1, 10_000)
        number("cpus", self.cpus, 0.0, 1024.0)
        seconds("drain", self.drain, 0.0, 3600.0)
