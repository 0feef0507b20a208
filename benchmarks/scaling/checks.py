"""Is the simulation true? The loads that `scheduler.py` and `load.py` put on a real replica, put on a simulated one.

What `Cost` is made of is a server's processor time a query, alone and with 32 clients, and the length of the documents
of an ingest, which is chosen so that as many are stored a second as were. Nothing else is fitted to these rows.
"""

import random
from typing import Any, NamedTuple

from .arrivals import poisson
from .fleet import Fleet, FleetConfig, Record, answered
from .measured import Measured
from .replica import Cost, cost_of

__all__ = ("Check", "checks")

Results = dict[str, Any]
TIMED = Cost(batch=0.020)  # the encoder of scheduler.json that takes 20 ms a batch
TIMED_TOKENS = 9  # of its texts, as the batcher estimates them
BACKLOG = 2000
LONG = 60.0  # seconds of time enough


class Check(NamedTuple):
    """One figure, simulated and measured.

    Attributes:
        what: the load and the figure.
        measured: from a file of results.
        simulated: of the same load.
    """

    what: str
    measured: float
    simulated: float

    @property
    def ratio(self) -> float:
        """Simulated over measured."""
        return self.simulated / self.measured

    @property
    def far_off(self) -> bool:
        """Whether a median or a rate is off by more than a quarter, a 99th percentile by more than a half."""
        most = 1.5 if "p99" in self.what else 1.25
        return not 1 / most <= self.ratio <= most


def checks(measured: Measured, scheduler: Results, load: Results, seconds: float) -> list[Check]:
    """Return every figure that both have.

    Args:
        measured: what costs are made of.
        scheduler: the results of `scheduler.py`.
        load: those of `load.py`.
        seconds: simulated seconds of each load.
    """
    ours = scheduler["results"]["niruhybrid"]
    server = {part: rows["niruhybrid"] for part, rows in load["results"].items()}
    return [
        *_backlogs(ours["query_behind_bulk"]),
        *_saturated(ours["saturated"], seconds),
        *_burst(ours["burst_800"]),
        *_clients(measured, server["serving"], load["documents"], seconds),
        *_ingest(measured, server["ingest"], load["documents"], seconds),
        *_overload(measured, server["overload"], load["documents"], seconds),
    ]


def _backlogs(row: Results) -> list[Check]:
    """Put queries at random moments behind documents that wait already."""
    chance = random.Random(3)
    lasts = BACKLOG / 32 * TIMED.batch
    samples = Record()
    for backlog in range(row["backlogs"]):
        fleet = Fleet(FleetConfig(1, TIMED, query_tokens=TIMED_TOKENS, timeout=LONG, seed=backlog))
        fleet.backlog(0, [TIMED_TOKENS] * BACKLOG)
        fleet.ask_at(iter(sorted(chance.uniform(0.05, 0.9) * lasts for _ in range(row["queries_per_backlog"]))))
        fleet.clock.run(LONG)
        fleet.check()
        samples.queries += fleet.record.queries
    told = answered(samples, 0.0, LONG)
    return _both("20 ms encoder, a query behind 2,000 documents", row["query_ms"], told, ("p50", "p99"))


def _saturated(row: Results, seconds: float) -> list[Check]:
    told = _closed(FleetConfig(1, TIMED, query_tokens=TIMED_TOKENS, timeout=LONG), row["clients"], seconds)
    what = f"20 ms encoder, {row['clients']} clients"
    rate = Check(f"{what}, queries a second", row["per_second"], told["in_time_per_s"])
    return [rate, *_both(what, row["request_ms"], told, ("p50", "p99"))]


def _burst(row: Results) -> list[Check]:
    fleet = Fleet(FleetConfig(1, TIMED, query_tokens=TIMED_TOKENS, timeout=0.5))
    for _ in range(8):  # the real one had lone requests before, from which it knew what a batch costs
        fleet.ask()
        fleet.clock.run(fleet.clock.now + 0.1)
    began = fleet.clock.now
    for _ in range(row["asked"]):
        fleet.ask()
    fleet.clock.run(LONG)
    told = answered(fleet.record, began, LONG)["ends"]
    return [Check(f"20 ms encoder, {row['asked']} at once, in time", row["answered_in_time"], told["delivered"])]


def _clients(measured: Measured, rows: Results, documents: int, seconds: float) -> list[Check]:
    found = []
    for clients in (1, 32):
        row = rows[f"{clients} client" + "s" * (clients > 1)]
        config = FleetConfig(1, cost_of(measured, documents), query_tokens=measured.encoder.query_tokens, timeout=LONG)
        told = _closed(config, clients, seconds)
        what = f"server, {clients} client" + "s" * (clients > 1)
        found.append(Check(f"{what}, queries a second", row["queries_per_s"]["median"], told["in_time_per_s"]))
        found += [
            Check(f"{what}, {percent} ms", row[f"last_{percent}_ms"]["median"], told[f"answer_{percent}_ms"])
            for percent in ("p50", "p99")
        ]
    return found


def _ingest(measured: Measured, row: Results, documents: int, seconds: float) -> list[Check]:
    cost, alone = cost_of(measured, documents), row["documents_per_s_alone"]["median"]
    tokens = round((1.0 / alone - cost.batch - cost.document) / cost.token)
    config = FleetConfig(
        1,
        cost,
        query_tokens=measured.encoder.query_tokens,
        document_tokens=(tokens,),
        bulk=True,
        timeout=LONG,
    )
    fleet = Fleet(config)
    fleet.ask_at(poisson(lambda _: 20.0, random.Random(7)))
    fleet.clock.run(seconds)
    fleet.check()
    told = answered(fleet.record, 1.0, seconds)
    rate = fleet.record.ends["bulk", "delivered"] / seconds
    return [
        Check("server, 20 queries a second beside an ingest, p50 ms", row["query_p50_ms"], told["answer_p50_ms"]),
        Check("server, 20 queries a second beside an ingest, p99 ms", row["query_p99_ms"], told["answer_p99_ms"]),
        Check("server, documents a second beside them", row["documents_per_s_beside_queries"]["median"], rate),
    ]


def _overload(measured: Measured, row: Results, documents: int, seconds: float) -> list[Check]:
    config = FleetConfig(1, cost_of(measured, documents), query_tokens=measured.encoder.query_tokens)
    fleet = Fleet(config)
    fleet.ask_at(poisson(lambda _: row["offered_per_s"], random.Random(7)))
    fleet.clock.run(seconds)
    fleet.check()
    told = answered(fleet.record, min(5.0, seconds / 2), seconds - 1.0)  # by then the queue is full
    what = "server, twice its capacity offered, answered in 1 s"
    return [Check(what, row["goodput_per_s"], told["in_time_per_s"])]


def _closed(config: FleetConfig, clients: int, seconds: float) -> dict[str, Any]:
    """Have clients ask again as soon as they are answered."""
    fleet = Fleet(config)

    def again() -> None:
        fleet.ask(again)

    for _ in range(clients):
        again()
    fleet.clock.run(seconds)
    fleet.check()
    return answered(fleet.record, 1.0, seconds - 1.0)


def _both(what: str, row: Results, told: Results, percents: tuple[str, ...]) -> list[Check]:
    return [Check(f"{what}, {percent} ms", row[percent], told[f"answer_{percent}_ms"]) for percent in percents]
