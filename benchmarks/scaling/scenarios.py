"""Where a fleet bends: each function puts one kind of load on simulated replicas and returns rows of figures."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from .arrivals import Trace, poisson
from .fleet import Fleet, FleetConfig, answered
from .measured import Measured
from .replica import cost_of, per_second
from .routing import ROUTERS
from .scaler import Autoscaler, Metric, ScalerConfig

__all__ = ("QUICK", "Bench", "Scale", "bench", "bursts", "ladder", "loss", "scaling", "split")

Rows = list[dict[str, Any]]
START = 1.0  # seconds that are not counted: schedulers learn what batches cost
TARGETS: dict[Metric, float] = {"waiting": 8.0, "busy": 0.7}
"""What an autoscaler aims at: what `deploy/kubernetes/server.yaml` has."""

FILLED = 5.0  # the same where more is asked than can be answered: until the queues are full
WINDOW, OVERLAP = 128, 32  # tokens, as long texts are cut


class Scale(NamedTuple):
    """How long to simulate.

    Attributes:
        replicas: the sizes of fleets.
        loads: shares of the capacity, for one and ten replicas.
        loads_of_many: the same for more.
        queries: of a run at least; longer runs for more replicas, see `seconds`.
        seconds: of a run at least.
        steps: seconds of a run with an autoscaler.
        dead: seconds for which one of ten is missing.
    """

    replicas: tuple[int, ...] = (1, 10, 100)
    loads: tuple[float, ...] = (0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5)
    loads_of_many: tuple[float, ...] = (0.7, 0.9, 1.2)
    queries: int = 15_000
    seconds: float = 4.0
    steps: float = 120.0
    dead: float = 20.0


QUICK = Scale((1, 10), (0.7, 1.2), (0.9,), 2_000, 2.0, 40.0, 6.0)


@dataclass(frozen=True, slots=True)
class Bench:
    """What every run has in common.

    Attributes:
        base: a fleet of one replica.
        capacity: queries a second of a replica that has nothing else to do.
        scale: how long to simulate.
    """

    base: FleetConfig
    capacity: float
    scale: Scale

    def run(self, config: FleetConfig, moments: Iterator[float], seconds: float) -> Fleet:
        """Return a fleet that was asked at these moments, its counters checked."""
        fleet = Fleet(config)
        fleet.ask_at(moments)
        fleet.clock.run(seconds)
        fleet.check()
        return fleet

    def seconds(self, replicas: int, load: float) -> float:
        """Return how long to simulate so many replicas."""
        return max(self.scale.seconds, self.scale.queries / (self.capacity * replicas * load))

    def rate(self, replicas: int, load: float) -> float:
        """Return the queries a second that are so much of the capacity."""
        return self.capacity * replicas * load


def bench(measured: Measured, rows: int, scale: Scale) -> Bench:
    """Return a bench whose replicas cost what was measured, over a store with so many rows."""
    cost, encoder = cost_of(measured, rows), measured.encoder
    base = FleetConfig(1, cost, query_tokens=encoder.query_tokens, document_tokens=(encoder.passage_tokens,), bulk=True)
    return Bench(base, per_second(cost, encoder.query_tokens), scale)


def ladder(bench: Bench) -> Rows:
    """Put shares of the capacity, at random moments, on 1, 10 and 100 replicas behind each router, beside bulk."""
    rows = []
    for replicas in bench.scale.replicas:
        many = replicas > 10
        loads = bench.scale.loads_of_many if many else bench.scale.loads
        for router in ROUTERS if replicas == 10 else ("random", "better of two") if many else ("better of two",):
            for load in loads:
                config = replace(bench.base, replicas=replicas, router=router)
                start = START if load <= 1.0 else FILLED
                seconds, rate = start + bench.seconds(replicas, load), bench.rate(replicas, load)
                fleet = bench.run(config, _poisson(rate, replicas), seconds)
                rows.append({"replicas": replicas, "router": router, "load": load, **_figures(fleet, seconds, start)})
    return rows


def bursts(bench: Bench, trace: Trace) -> Rows:
    """Have the queries come as in the trace, and as many at random; what was generated for them is the bulk."""
    config = replace(bench.base, document_tokens=tuple(_windows(trace.generated)))
    rows = []
    for replicas in (1, 10):
        for load in (0.5, 0.7, 0.9):
            rate = bench.rate(replicas, load)
            seconds = len(trace.moments) / rate
            for name, moments in (("trace", trace.at_rate(rate)), ("random", _poisson(rate, replicas))):
                fleet = bench.run(replace(config, replicas=replicas), moments, seconds)
                rows.append({"replicas": replicas, "load": load, "moments": name, **_figures(fleet, seconds)})
    return rows


def loss(bench: Bench) -> Rows:
    """Have one of ten replicas die, and another take its place later; the router is told after five seconds."""
    before = 5.0
    replaced = before + bench.scale.dead
    until = replaced + bench.scale.dead / 2
    rows = []
    for router, load in (*((router, 0.7) for router in ROUTERS), ("better of two", 0.9)):
        fleet = Fleet(replace(bench.base, replicas=10, router=router, notice=5.0))
        fleet.ask_at(_poisson(bench.rate(10, load), 10))
        fleet.clock.run(before)
        held = fleet.replicas[0].queries
        fleet.lose(0)
        fleet.clock.at(replaced, fleet.add)
        fleet.clock.run(until)
        fleet.check()
        record = fleet.record
        spans = {"before": (START, before), "unknown": (before, before + 5), "known": (before + 5, replaced)}
        rows.append({
            "router": router,
            "load": load,
            "held_when_it_died": held,
            "tried_again": record.retried,
            "never_answered": sum(1 for each in record.queries if each[1] in {"lost", "unreachable"}),
            **{name: answered(record, *span) for name, span in spans.items()},
            "replaced": answered(record, replaced + 1, until - 1),
        })  # fmt: skip
    return rows


def scaling(bench: Bench) -> Rows:
    """Have the load of two replicas rise from .6 to 1.8 of their capacity; an autoscaler adds replicas."""
    step, until = 10.0, bench.scale.steps
    ways: dict[str, dict[Metric, float]] = {"busy": {"busy": TARGETS["busy"]}, "both": TARGETS}
    rows = []
    low, high = bench.rate(2, 0.6), bench.rate(2, 1.8)
    for metric, wanted in ways.items():
        for starts in (5.0, 20.0, 60.0):
            fleet = Fleet(replace(bench.base, replicas=2, bulk=False))
            scaler = Autoscaler(fleet, ScalerConfig(wanted, starts=starts))
            fleet.ask_at(poisson(lambda now: low if now < step else high, random.Random(11)))
            fleet.clock.run(until)
            fleet.check()
            told = answered(fleet.record, step, until - 1)
            recovered = _recovered(fleet, step, until)
            rows.append({
                "metric": metric,
                "starts": starts,
                "replicas": scaler.wanted,
                "needed": round(2 * 1.8 / 0.7, 1),
                "seconds_below_95_percent": recovered,
                "refused_or_late": round(1.0 - told["in_time_share"], 4),
            })  # fmt: skip
    return rows


def split(bench: Bench) -> Rows:
    """Give ten cores queries for half of them, and documents without end: to all ten, or to seven and three."""
    rows = []
    rate = bench.rate(10, 0.5)
    seconds = START + bench.seconds(10, 0.5)
    both = bench.run(replace(bench.base, replicas=10), _poisson(rate, 10), seconds)
    rows.append({"how": "ten for both", **_figures(both, seconds)})
    servers = bench.run(replace(bench.base, replicas=7, bulk=False), _poisson(rate, 7), seconds)
    workers = bench.run(replace(bench.base, replicas=3), iter(()), seconds)
    documents = _figures(workers, seconds)["documents_per_s"]
    rows.append({"how": "seven and three", **_figures(servers, seconds), "documents_per_s": documents})
    return rows


def _poisson(rate: float, seed: int) -> Iterator[float]:
    return poisson(lambda _: rate, random.Random(seed))


def _figures(fleet: Fleet, seconds: float, start: float = START) -> dict[str, Any]:
    last = fleet.config.timeout
    busy = sum(sum(replica.busy.values()) for replica in fleet.replicas)
    bulk = sum(replica.encoding["bulk"] for replica in fleet.replicas)
    encoding = sum(sum(replica.encoding.values()) for replica in fleet.replicas)
    return {
        **answered(fleet.record, start, max(start + 0.1, seconds - last)),
        "documents_per_s": round(fleet.record.ends["bulk", "delivered"] / seconds, 1),
        "busy": round(busy / seconds / len(fleet.replicas), 4),
        "bulk_share_of_encoder": round(bulk / max(1e-9, encoding), 4),
    }


def _recovered(fleet: Fleet, step: float, until: float) -> int:
    """Return in how many seconds after a step fewer than 95 % of the queries were answered in time."""
    spans = [answered(fleet.record, begin, begin + 1.0) for begin in (step + n for n in range(int(until - step) - 1))]
    return sum(1 for span in spans if span["in_time_share"] < 0.95)


def _windows(texts: list[int]) -> Iterator[int]:
    """Yield the tokens of each window of texts of so many tokens."""
    for tokens in texts:
        left = tokens
        while left > 0:
            yield min(WINDOW, left)
            left -= WINDOW if left <= WINDOW else WINDOW - OVERLAP
