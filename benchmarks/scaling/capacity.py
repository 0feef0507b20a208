"""How many cores, how much memory, which part is the bottleneck: formulas over measured figures, no simulation.

    cores of servers     queries/s * seconds of a query without search / planned share
    cores on Ray         queries/s * seconds that an answer costs more there / planned share
    cores of the store   queries/s * seconds of a search over a shard's rows * shards / planned share
    cores of workers     documents/s * seconds to encode one, and to come through the broker / planned share
    memory of the store  rows * bytes a row
    shards               memory of the store / memory of one machine
    copies               cores of the store / (shards * cores of one machine)
    open answers         queries/s * seconds an answer is open                                          (Little's law)

A document is one passage as long as those that the encoder was measured with; a longer one counts as many.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from .measured import FULL, Measured, Store, StorePoint

__all__ = ("Machine", "Plan", "Wanted", "bends", "passage_seconds", "plan", "sensitivity", "server_seconds")


@dataclass(frozen=True, slots=True)
class Machine:
    """What can be bought.

    Attributes:
        cores: of one machine.
        memory: bytes.
        planned: share of a core's time that is planned for; what is above waits too long, says the simulation.
        filled: share of the memory that the store may take.
    """

    cores: int = 32
    memory: float = 256e9
    planned: float = 0.7
    filled: float = 0.75


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be served.

    Attributes:
        documents: in the store.
        queries: a second.
        renewed: seconds in which as many documents come as there are: the rate of the ingest.
        open_seconds: how long an answer is open, a model's writing included.
    """

    documents: float
    queries: float
    renewed: float = 30 * 86_400.0
    open_seconds: float = 10.0


class Plan(NamedTuple):
    """What to buy. Cores and bytes in all, copies included.

    Attributes:
        server_cores: encode queries and answer them; each core is one replica.
        server_memory: bytes, for all replicas.
        ray_cores: that servers take more if they run on Ray Serve, not counted in `cores`; 0 while it is not measured.
        store_cores: search.
        store_memory: bytes that the index wants to be in.
        store_disk: bytes.
        shards: parts of the corpus, each on a machine of its own.
        copies: machines with the same part.
        worker_cores: encode documents.
        writes: documents a second that each shard takes.
        open_answers: at an instant.
        bottleneck: the part that takes the most cores: `servers`, `store` or `workers`.
    """

    server_cores: int
    server_memory: float
    ray_cores: int
    store_cores: int
    store_memory: float
    store_disk: float
    shards: int
    copies: int
    worker_cores: int
    writes: float
    open_answers: float
    bottleneck: str

    @property
    def cores(self) -> int:
        """All cores, without Ray's."""
        return self.server_cores + self.store_cores + self.worker_cores


def plan(measured: Measured, wanted: Wanted, machine: Machine) -> Plan:
    """Return what serves what is wanted, each part by its formula, rounded up to whole cores and machines."""
    store = measured.postgres or measured.embedded
    shards = max(1, math.ceil(store.memory(wanted.documents) / (machine.memory * machine.filled)))
    rows = wanted.documents / shards
    search = wanted.queries * store.search(rows) * shards / machine.planned
    copies = max(1, math.ceil(search / (shards * machine.cores)))
    open_answers = wanted.queries * wanted.open_seconds
    parts = {
        "servers": wanted.queries * server_seconds(measured) / machine.planned,
        "store": search,
        "workers": wanted.documents / wanted.renewed * passage_seconds(measured) / machine.planned,
    }
    servers = math.ceil(parts["servers"])
    return Plan(
        server_cores=servers,
        server_memory=servers * measured.server.resident,
        ray_cores=math.ceil(wanted.queries * (measured.ray or 0.0) / machine.planned),
        store_cores=math.ceil(search),
        store_memory=shards * copies * store.memory(rows),
        store_disk=shards * copies * store.disk(rows),
        shards=shards,
        copies=copies,
        worker_cores=math.ceil(parts["workers"]),
        writes=wanted.documents / wanted.renewed / shards,
        open_answers=open_answers,
        bottleneck=max(parts, key=lambda part: parts[part]),
    )


def server_seconds(measured: Measured) -> float:
    """Return the core seconds of a query in full batches: its encoding and the server's own part, without search."""
    encoder, server = measured.encoder, measured.server
    return server.batch / FULL + encoder.per_token * encoder.query_tokens + server.own


def passage_seconds(measured: Measured) -> float:
    """Return the core seconds in which a document comes and is encoded."""
    encoder = measured.encoder
    encoding = encoder.fixed + encoder.per_token * encoder.passage_tokens  # beside queries each is a batch of its own
    return encoding + (measured.broker or 0.0)


def bends(measured: Measured, machine: Machine) -> dict[str, float]:
    """Return where one machine with the embedded store ends, each part looked at by itself.

    Rows by memory; rows at which search costs as much as all else of a query; queries a second over few and over
    many rows; documents a second.
    """
    store, cores = measured.embedded, machine.cores * machine.planned
    own = server_seconds(measured)
    slope = (store.high.memory - store.low.memory) / (store.high.rows - store.low.rows)
    room = machine.memory * machine.filled - measured.server.resident
    return {
        "rows_by_memory": room / slope,
        "rows_where_search_costs_half": store.high.rows * (own / store.high.search) ** (1 / store.exponent),
        "queries_per_s_small": cores / (own + store.search(measured.server.small_rows)),
        "queries_per_s_low": cores / (own + store.low.search),
        "queries_per_s_high": cores / (own + store.high.search),
        "documents_per_s": cores / passage_seconds(measured),
        "writes_per_s": store.high.writes,
    }


def sensitivity(measured: Measured, wanted: Wanted, machine: Machine) -> Iterator[tuple[str, float, float, str, str]]:
    """Yield for each figure how many times the cores are if it is half or twice what was measured, and the bottlenecks.

    Rows are: the figure's name, times at half of it, times at twice, the bottleneck at half, at twice.
    """
    usual = plan(measured, wanted, machine)
    for name, changed in FIGURES.items():
        half, twice = (plan(changed(measured, factor), wanted, machine) for factor in (0.5, 2.0))
        yield name, half.cores / usual.cores, twice.cores / usual.cores, half.bottleneck, twice.bottleneck


def _token(measured: Measured, factor: float) -> Measured:
    encoder = measured.encoder
    return replace(measured, encoder=replace(encoder, per_token=encoder.per_token * factor))


def _own(measured: Measured, factor: float) -> Measured:
    server = measured.server
    return replace(measured, server=replace(server, own=server.own * factor))


def _points(change: Callable[[StorePoint], StorePoint], measured: Measured) -> Measured:
    store = measured.postgres or measured.embedded
    changed = Store(change(store.low), change(store.high))
    return replace(measured, postgres=changed) if measured.postgres else replace(measured, embedded=changed)


def _search(measured: Measured, factor: float) -> Measured:
    return _points(lambda point: replace(point, search=point.search * factor), measured)


def _memory(measured: Measured, factor: float) -> Measured:
    return _points(lambda point: replace(point, memory=point.memory * factor), measured)


def _growth(measured: Measured, factor: float) -> Measured:
    """Have search time grow with another power of the rows, from the larger size measured on."""
    store = measured.postgres or measured.embedded
    ratio = (store.low.rows / store.high.rows) ** (store.exponent * factor)
    low = replace(store.low, search=store.high.search * ratio)
    changed = Store(low, store.high)
    return replace(measured, postgres=changed) if measured.postgres else replace(measured, embedded=changed)


FIGURES: dict[str, Callable[[Measured, float], Measured]] = {
    "seconds a token": _token,
    "the server's own seconds": _own,
    "seconds a search": _search,
    "the power that search grows with": _growth,
    "bytes a row": _memory,
}
