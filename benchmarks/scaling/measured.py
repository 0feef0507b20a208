"""What other benchmarks have measured, as the few figures that capacity is reckoned from.

Results that are not there yet are named in `Measured.absent`; what they would have told is then `None` or taken from
the embedded store, and whoever uses it says so.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ("Encoder", "Measured", "Server", "Store", "StorePoint", "read")

RESULTS = Path(__file__).resolve().parents[1] / "results"
WANTED = ("encoder", "long_text", "load", "store", "scheduler", "postgres", "hops", "broker")
FULL = 32  # texts of a full batch of queries
WINDOW = 128  # tokens of a window in long_text.json
NORMAL_RANGE = 2.97  # standard deviations between the least and the most of nine repeats, which encoder.json keeps


@dataclass(frozen=True, slots=True)
class Encoder:
    """What a batch costs one core: `fixed + per_token * tokens`, in seconds.

    Attributes:
        fixed: seconds a batch costs, however small.
        per_token: seconds a token costs.
        query_tokens: tokens of a query as measured.
        passage_tokens: tokens of a passage as measured.
        spread: standard deviation of a batch's cost, as a share of it.
    """

    fixed: float
    per_token: float
    query_tokens: int
    passage_tokens: int
    spread: float


@dataclass(frozen=True, slots=True)
class Server:
    """What a query costs a server on one core: `batch` for each batch of them, and `each`, in processor seconds.

    Attributes:
        batch: seconds of any batch, the encoder's fixed part and the handing around of it.
        own: seconds of each query for HTTP, scheduling and the answer, without encoder and search.
        ready: seconds from the start until queries are taken.
        resident: bytes of memory after load, with a small store.
        small_rows: passages in that store.
    """

    batch: float
    own: float
    ready: float
    resident: float
    small_rows: int


@dataclass(frozen=True, slots=True)
class StorePoint:
    """A store of one size.

    Attributes:
        rows: passages.
        search: processor seconds of a search in batches of 32.
        memory: bytes of memory, index and all.
        disk: bytes on disk.
        writes: passages a second that are written in batches of 32.
    """

    rows: int
    search: float
    memory: float
    disk: float
    writes: float


@dataclass(frozen=True, slots=True)
class Store:
    """How a store grows, from the two largest sizes measured.

    Attributes:
        low: the smaller of them.
        high: the larger.
    """

    low: StorePoint
    high: StorePoint

    @property
    def exponent(self) -> float:
        """The power of the rows that search time grows with."""
        return math.log(self.high.search / self.low.search) / math.log(self.high.rows / self.low.rows)

    def search(self, rows: float) -> float:
        """Return the processor seconds of one search over so many rows; beyond the larger size it is drawn out."""
        growth: float = (rows / self.high.rows) ** self.exponent
        return self.high.search * growth

    def memory(self, rows: float) -> float:
        """Return the bytes of memory that so many rows take, along the line through both sizes."""
        slope = (self.high.memory - self.low.memory) / (self.high.rows - self.low.rows)
        return self.high.memory + slope * (rows - self.high.rows)

    def disk(self, rows: float) -> float:
        """Return the bytes on disk."""
        return self.high.disk / self.high.rows * rows


@dataclass(frozen=True, slots=True)
class Measured:
    """All that is known.

    Attributes:
        encoder: what batches cost.
        server: what a query costs beside.
        embedded: the embedded store.
        postgres: the store on PostgreSQL; None while it is not measured.
        broker: seconds that a document costs more if it comes through NATS; None while it is not measured.
        ray: processor seconds that an answer costs more on Ray Serve than of a server; None while it is not measured.
        absent: the results that are not there.
    """

    encoder: Encoder
    server: Server
    embedded: Store
    postgres: Store | None
    broker: float | None
    ray: float | None
    absent: tuple[str, ...]


def read(results: Path = RESULTS) -> Measured:
    """Return what the files in a folder of results say.

    Raises:
        FileNotFoundError: a result that nothing can be reckoned without is not there.
    """
    found = {name: _json(results / f"{name}.json") for name in WANTED if (results / f"{name}.json").is_file()}
    needed = [name for name in ("encoder", "long_text", "load", "store") if name not in found]
    if needed:
        raise FileNotFoundError(f"{', '.join(needed)} not in {results}: run these benchmarks first")
    encoder = _encoder(found["encoder"]["cases"], found["long_text"]["lengths"][-1])
    embedded = _embedded(found["store"])
    if embedded is None:
        raise FileNotFoundError(f"store.json in {results} has not two sizes: run `benchmarks/store.py` for both")
    return Measured(
        encoder=encoder,
        server=_server(found["load"], encoder, embedded),
        embedded=embedded,
        postgres=_postgres(found.get("postgres", {})),
        broker=_broker(found["broker"]["rate"]["documents_per_s"]) if "broker" in found else None,
        ray=_ray(found["hops"]["results"]) if "hops" in found else None,
        absent=tuple(name for name in WANTED if name not in found),
    )


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _encoder(cases: dict[str, Any], long_text: dict[str, Any]) -> Encoder:
    """Fit seconds a batch by its texts, each size by its share of the error; tokens come from windows of known size."""
    sizes = [int(name.removeprefix("query x")) for name in cases if name.startswith("query x")]
    rates = [cases[f"query x{size}"]["ours_texts_per_s"] for size in sizes]
    seconds = [size / rate["median"] for size, rate in zip(sizes, rates, strict=True)]
    each, fixed = np.polyfit(sizes, seconds, 1, w=[1 / one for one in seconds])
    windows_per_s = long_text["tokens_per_s"] * long_text["windows"] / long_text["tokens"]
    per_token = 1.0 / (windows_per_s * WINDOW)
    passage = 1.0 / cases["passage x8"]["ours_texts_per_s"]["median"] - float(fixed) / 8
    spreads = [(rate["high"] - rate["low"]) / rate["median"] / NORMAL_RANGE for rate in rates]
    return Encoder(
        fixed=float(fixed),
        per_token=per_token,
        query_tokens=round(float(each) / per_token),
        passage_tokens=round(passage / per_token),
        spread=float(np.mean(spreads)),
    )


def _server(load: dict[str, Any], encoder: Encoder, store: Store) -> Server:
    """Part a query's processor time by what it is alone and in full batches."""
    results = {part: rows["niruhybrid"] for part, rows in load["results"].items()}
    alone, full = (results["serving"][name]["server_cpu_ms"]["median"] / 1000 for name in ("1 client", "32 clients"))
    batch = (alone - full) * FULL / (FULL - 1)
    each = alone - batch
    return Server(
        batch=batch,
        own=each - encoder.per_token * encoder.query_tokens - store.search(load["documents"]),
        ready=_median(results["footprint"]["ready_s"]),
        resident=_median(results["footprint"]["rss_after_load_mb"]) * 1e6,
        small_rows=load["documents"],
    )


def _embedded(result: dict[str, Any]) -> Store | None:
    return _two_largest(
        StorePoint(
            rows=int(rows),
            search=each["figures"]["query in 32s p50, ms each"] / 1000,
            memory=each["figures"]["peak RSS, MB"] * 1e6,
            disk=each["figures"]["disk, MB"] * 1e6,
            writes=each["figures"]["ingest in 32s, rows/s"],
        )
        for rows, each in result.items()
        if rows.isdigit()
    )


def _postgres(result: dict[str, Any]) -> Store | None:
    """Read the store on PostgreSQL; all that it keeps on disk is to be in its memory, where searches find it."""
    points = []
    for rows, each in result.get("rows", {}).items():
        figures = each["postgres"]
        disk = sum(size for name, size in figures.items() if name.startswith("disk of ")) * 1e6
        search, writes = figures["query in 32s p50, ms each"] / 1000, figures["upsert in 32s, rows/s"]
        points.append(StorePoint(int(rows), search, memory=disk, disk=disk, writes=writes))
    return _two_largest(points)


def _broker(rates: dict[str, Any]) -> float:
    direct, through = (1.0 / float(rates[way]["median"]) for way in ("pipeline", "through NATS"))
    return max(0.0, through - direct)


def _ray(ways: dict[str, Any]) -> float:
    plain, spread = (
        float(ways[f"{way} over PostgreSQL"]["8"]["cpu_ms_per_answer"]["median"]) for way in ("HTTP", "Ray")
    )
    return max(0.0, spread - plain) / 1000


def _two_largest(points: Iterable[StorePoint]) -> Store | None:
    """Return the store of which two sizes are known, by the two largest; None if there is but one."""
    known = sorted(points, key=lambda point: point.rows)[-2:]
    return Store(*known) if len(known) == 2 else None


def _median(value: Any) -> float:
    return float(value["median"] if isinstance(value, dict) else value)
