"""The capacity model and the simulation behind `benchmarks/scale.py`, in small."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.scaling import capacity, measured, report, scenarios, waiting
from benchmarks.scaling.arrivals import read_trace
from benchmarks.scaling.checks import checks
from benchmarks.scaling.fleet import Fleet, FleetConfig, answered
from benchmarks.scaling.replica import Cost
from benchmarks.scaling.routing import ROUTERS

RESULTS = measured.RESULTS
KNOWN = measured.Measured(
    encoder=measured.Encoder(fixed=0.002, per_token=0.0001, query_tokens=10, passage_tokens=200, spread=0.0),
    server=measured.Server(batch=0.0064, own=0.0018, ready=2.0, resident=4e8, small_rows=1000),
    embedded=measured.Store(
        measured.StorePoint(100_000, 0.001, 1e9, 1e9, 5000.0), measured.StorePoint(1_000_000, 0.01, 1e10, 1e10, 4000.0)
    ),
    postgres=None,
    broker=None,
    ray=None,
    absent=(),
)
MACHINE = capacity.Machine(cores=10, memory=100e9, planned=0.5, filled=0.5)
TINY = scenarios.Scale((1, 10), (0.7,), (0.9,), 200, 1.0, 20.0, 6.0)
ROWS = 2_000_000  # search is dear over so many: fewer queries to simulate


# --- the model ------------------------------------------------------------------------------------------------------


def test_each_part_of_a_plan_is_what_its_formula_says() -> None:
    wanted = capacity.Wanted(documents=1e7, queries=1000.0, renewed=1e7, open_seconds=2.0)
    found = capacity.plan(KNOWN, wanted, MACHINE)
    assert found.server_cores == 6  # 1,000 times .2 + 1 + 1.8 ms, twice as many as would be busy
    assert found.shards == 2  # 100 GB, of which a machine takes 50
    assert found.store_cores == pytest.approx(2 * 1000 * 0.05 * 2, abs=1)  # each shard of 5 million: 50 ms
    assert found.copies == 10
    assert found.worker_cores == 1  # one document a second, 22 ms each
    assert found.open_answers == 2000.0  # Little's law
    assert found.bottleneck == "store"
    assert found.cores == found.server_cores + found.store_cores + found.worker_cores


def test_the_bottleneck_is_the_part_that_takes_most_cores() -> None:
    few = capacity.Wanted(documents=1e4, queries=1000.0)
    hurried = replace(few, queries=1.0, renewed=100.0)
    assert capacity.plan(KNOWN, few, MACHINE).bottleneck == "servers"
    assert capacity.plan(KNOWN, hurried, MACHINE).bottleneck == "workers"


@pytest.mark.parametrize("more", [{"documents": 1e8}, {"queries": 5000.0}, {"renewed": 1e3}])
def test_who_wants_more_is_never_sold_less(more: dict[str, float]) -> None:
    wanted = capacity.Wanted(documents=1e6, queries=100.0)
    usual, larger = (capacity.plan(KNOWN, each, MACHINE) for each in (wanted, replace(wanted, **more)))
    assert larger.cores > usual.cores
    assert larger.store_memory >= usual.store_memory


def test_a_store_is_no_larger_on_a_machine_than_its_memory_takes() -> None:
    for documents in (1e6, 1e7, 1e8, 1e9):
        found = capacity.plan(KNOWN, capacity.Wanted(documents, 1.0), MACHINE)
        assert KNOWN.embedded.memory(documents / found.shards) <= MACHINE.memory * MACHINE.filled


def test_the_figure_that_decides_is_the_one_a_plan_is_sensitive_to() -> None:
    rows = {name: (half, twice) for name, half, twice, *_ in capacity.sensitivity(KNOWN, _many(), MACHINE)}
    assert rows["seconds a search"] == pytest.approx((0.5, 2.0), rel=0.05)
    assert rows["seconds a token"] == pytest.approx((1.0, 1.0), rel=0.05)
    assert rows["the power that search grows with"][1] > 2.0


def _many() -> capacity.Wanted:
    return capacity.Wanted(documents=1e8, queries=1000.0)


def test_a_store_on_postgresql_is_reckoned_with_where_it_is_measured() -> None:
    low, high = KNOWN.embedded.low, KNOWN.embedded.high
    faster = measured.Store(replace(low, search=low.search / 4), replace(high, search=high.search / 4))
    there = capacity.plan(replace(KNOWN, postgres=faster), _many(), MACHINE)
    assert there.store_cores == pytest.approx(capacity.plan(KNOWN, _many(), MACHINE).store_cores / 4, rel=0.01)


def test_the_way_through_a_broker_costs_workers_where_it_is_measured() -> None:
    there = replace(KNOWN, broker=0.022)  # as much as the encoder takes
    assert capacity.passage_seconds(there) == pytest.approx(2 * capacity.passage_seconds(KNOWN))


def test_replicas_on_ray_cost_more_where_it_is_measured() -> None:
    usual, spread = (capacity.plan(replace(KNOWN, ray=ray), _many(), MACHINE) for ray in (None, 0.004))
    assert (usual.ray_cores, spread.ray_cores) == (0, 8)
    assert usual.cores == spread.cores


# --- what was measured ----------------------------------------------------------------------------------------------


def test_results_that_are_not_there_are_named_and_those_that_are_needed_missed(tmp_path: Path) -> None:
    for name in ("encoder", "long_text", "load", "store"):
        shutil.copy(RESULTS / f"{name}.json", tmp_path)
    known = measured.read(tmp_path)
    assert {"postgres", "hops", "broker"} <= set(known.absent)
    assert known.postgres is None
    (tmp_path / "load.json").unlink()
    with pytest.raises(FileNotFoundError, match="load not in"):
        measured.read(tmp_path)


def test_postgresql_broker_and_hops_are_read_once_they_are_measured(tmp_path: Path) -> None:
    for name in ("encoder", "long_text", "load", "store"):
        shutil.copy(RESULTS / f"{name}.json", tmp_path)
    figures = {"query in 32s p50, ms each": 2.0, "upsert in 32s, rows/s": 900.0}
    sizes = {"disk of vectors, MB": 30.0, "disk of postings, MB": 20.0}
    one = {"20000": {"postgres": figures | sizes}}
    two = one | {"100000": {"postgres": figures | {"query in 32s p50, ms each": 4.0, "disk of vectors, MB": 150.0}}}
    (tmp_path / "postgres.json").write_text(json.dumps({"rows": one}), encoding="utf-8")
    assert measured.read(tmp_path).postgres is None
    (tmp_path / "postgres.json").write_text(json.dumps({"rows": two}), encoding="utf-8")
    rates = {"pipeline": {"median": 1000.0}, "through NATS": {"median": 500.0}}
    (tmp_path / "broker.json").write_text(json.dumps({"rate": {"documents_per_s": rates}}), encoding="utf-8")
    ways = {
        f"{way} over PostgreSQL": {"8": {"cpu_ms_per_answer": {"median": ms}}} for way, ms in (("HTTP", 6), ("Ray", 9))
    }
    (tmp_path / "hops.json").write_text(json.dumps({"results": ways}), encoding="utf-8")
    known = measured.read(tmp_path)
    assert known.broker == pytest.approx(0.001)
    assert known.ray == pytest.approx(0.003)
    assert known.absent == ("scheduler",)
    found = known.postgres
    assert found is not None
    assert found.high.rows == 100_000
    assert found.low.memory == 50e6
    assert found.search(20_000) == pytest.approx(0.002)


def test_a_query_costs_what_the_server_was_measured_to_take() -> None:
    load = json.loads((RESULTS / "load.json").read_text(encoding="utf-8"))
    row = load["results"]["serving"]["niruhybrid"]["32 clients"]
    known = measured.read()
    searched = known.embedded.search(known.server.small_rows)
    assert capacity.server_seconds(known) + searched == pytest.approx(row["server_cpu_ms"]["median"] / 1000)


# --- waiting --------------------------------------------------------------------------------------------------------


def test_with_one_core_and_no_memory_the_formula_is_that_of_the_textbook() -> None:
    assert waiting.erlang_c(1, 0.5) == pytest.approx(0.5)
    assert waiting.mean_wait(1, 0.5, 0.002, 1.0) == pytest.approx(0.002)


@pytest.mark.slow
@pytest.mark.parametrize(("cores", "share"), [(1, 0.7), (8, 0.8), (8, 0.9)])
def test_simulated_waits_are_about_what_the_formula_says(cores: int, share: float) -> None:
    mean, p99, variation = waiting.simulated_waits(cores, share, 0.002, 0.3, 60_000, seed=1)
    assert mean == pytest.approx(waiting.mean_wait(cores, share, 0.002, variation), rel=0.15)
    assert p99 > mean


# --- the simulation -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_simulated_replica_does_what_was_measured_of_a_real_one() -> None:
    scheduler, load = (
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("scheduler", "load")
    )
    found = checks(measured.read(), scheduler, load, seconds=8.0)
    assert len(found) > 10
    assert [each for each in found if each.far_off] == []


@pytest.mark.slow
def test_every_scenario_runs_and_the_same_seed_gives_the_same_figures() -> None:
    bench = scenarios.bench(measured.read(), ROWS, TINY)
    rows = scenarios.ladder(bench)
    assert rows == scenarios.ladder(bench)
    assert {row["router"] for row in rows} == set(ROUTERS)
    assert [row["how"] for row in scenarios.split(bench)] == ["ten for both", "seven and three"]
    assert {row["metric"] for row in scenarios.scaling(bench)} == {"busy", "both"}


@pytest.mark.slow
def test_a_balancer_that_counts_sends_everybody_to_the_replica_that_is_dead() -> None:
    bench = scenarios.bench(measured.read(), ROWS, TINY)
    rows = {(row["router"], row["load"]): row for row in scenarios.loss(bench)}
    assert rows["least loaded", 0.7]["unknown"]["in_time_share"] < 0.5
    assert rows["round robin", 0.7]["unknown"]["in_time_share"] > 0.99
    assert rows["round robin", 0.7]["replaced"]["in_time_share"] > 0.99


@pytest.mark.slow
def test_a_fleet_answers_what_it_can_and_refuses_the_rest_at_once() -> None:
    fleet = Fleet(FleetConfig(2, Cost(batch=0.020), query_tokens=9))
    for _ in range(5):
        fleet.ask_at(iter([fleet.clock.now + 0.01]))
        fleet.clock.run(fleet.clock.now + 0.1)
    began = fleet.clock.now
    for _ in range(5000):
        fleet.ask()
    fleet.clock.run(began + 2.0)
    fleet.check()
    told = answered(fleet.record, began, began + 1.0)
    assert told["ends"]["delivered"] == pytest.approx(2 * 32 / 0.020, rel=0.15)
    assert told["ends"]["refused: deadline_unreachable"] + told["ends"]["delivered"] == 5000


def test_what_a_dead_replica_held_is_asked_again_elsewhere() -> None:
    fleet = Fleet(FleetConfig(2, Cost(batch=0.020), router="round robin", notice=0.05))
    for _ in range(10):
        fleet.ask()
    fleet.lose(0)
    fleet.clock.run(2.0)
    fleet.check()
    assert fleet.record.ends["interactive", "delivered"] == 10
    assert fleet.record.retried >= 5


def test_a_query_that_vanishes_is_noticed() -> None:
    fleet = Fleet(FleetConfig(1, Cost(batch=0.020)))
    fleet.ask()
    fleet.clock.run(1.0)
    fleet.check()
    fleet.record.ends.clear()
    with pytest.raises(AssertionError, match="1 were offered, 0 ended, 0 are held"):
        fleet.check()


def test_a_trace_keeps_its_bursts_whatever_its_rate(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    rows = [f"2023-11-16 18:15:{second}.6805900,374,{tokens}" for second, tokens in (("46", 44), ("46", 10), ("56", 9))]
    path.write_bytes(gzip.compress("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]).encode()))
    trace = read_trace(path)
    assert trace.moments == [0.0, 0.0, 10.0]
    assert trace.generated == [44, 10, 9]
    assert list(trace.at_rate(3.0)) == pytest.approx([0.0, 0.0, 1.0])


def test_figures_are_kept_under_names() -> None:
    rows = [{"replicas": 10, "router": "random", "load": 0.7, "busy": 0.9}]
    results = report.keyed({"simulated": {"ladder": rows}, "store_waits": [{"cores": 8, "share": 0.5, "mean_ms": 1.0}]})
    assert results["simulated"]["ladder"] == {"10": {"random": {"0.7": {"busy": 0.9}}}}
    assert results["store_waits"] == {"8": {"0.5": {"mean_ms": 1.0}}}
