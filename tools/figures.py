"""Write docs/measured.md from the files in benchmarks/results/, so that no figure in it is typed by hand.

Run by `make figures`; a test compares the page with what this program would write.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ("main", "page")

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "measured.md"

HEAD = """# Measured

Every figure below is read from a file in `benchmarks/results/` by `make figures`; `make bench` measures again. Each
benchmark says at its top what it does, checks its answers while it runs, and takes turns with what it is compared to.
Medians; ratios hold better from machine to machine than absolute figures do.
"""


def page() -> str:
    """Return the page as the results on disk have it."""
    sections = (
        _encoder,
        _stream,
        _buffers,
        _scheduler,
        _store,
        _race,
        _postgres,
        _standing,
        _serving,
        _load,
        _long_text,
        _long_text_quality,
    )
    return "\n".join([HEAD, *(line for section in sections for line in section())]).rstrip() + "\n"


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


def _result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _section(title: str, name: str, result: dict[str, Any]) -> Iterator[str]:
    machine = result | result["machine"]  # some benchmarks keep versions beside the machine, some with it
    versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items() if version)
    where = f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {versions}"
    yield from (f"## {title}", "", f"`benchmarks/results/{name}.json`: {where}.", "")


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    names = list(head)
    yield "| " + " | ".join(names) + " |"
    yield "|---" + "|--:" * (len(names) - 1) + "|"
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"
    yield ""


def _encoder() -> Iterator[str]:
    result = _result("encoder")
    yield from _section("The encoder, beside sentence-transformers on the same weights", "encoder", result)
    rows = (
        (
            name,
            f"{case['ours_texts_per_s']['median']:.0f}",
            f"{case['theirs_texts_per_s']['median']:.0f}",
            f"{case['times_faster']['median']:.2f}",
            f"{case['wanted']:.0f}",
        )
        for name, case in result["cases"].items()
    )
    yield from _table(("batch, one thread", "ours, texts/s", "theirs", "times faster", "wanted"), rows)
    cosine = result["cosine"]
    yield (
        f"Cosine over {cosine['texts']} real texts: to theirs at least {cosine['to_theirs_min']:.5f}; a text alone "
        f"to itself in a batch at least {cosine['alone_to_batched_min']:.5f}. Loaded in {result['load_s']:.1f} s."
    )
    yield ""


def _stream() -> Iterator[str]:
    result = _result("stream")
    title = f"{result['questions']:,} real questions as a stream, beside the bare encoder"
    yield from _section(title, "stream", result)
    rows = (
        (name, f"{found['texts_per_s']['median']:.0f}", f"{found['share']['median']:.3f}")
        for name, found in result.items()
        if isinstance(found, dict) and "share" in found
    )
    yield from _table(("", "texts/s", "share of the bare encoder's"), rows)


def _buffers() -> Iterator[str]:
    result = _result("buffers")
    yield from _section(f"Buffers: {result['items']:,} items handed over in batches", "buffers", result)
    jobs = result["items_per_second"]
    names = list(dict.fromkeys(name.strip() for found in jobs.values() for name in found))
    rows = []
    for name in names:
        cells = []
        for found in jobs.values():
            values = next((values for key, values in found.items() if key.strip() == name), None)
            cells.append("" if values is None else f"{statistics.median(values) / 1e6:.2f}")
        rows.append((name, *cells))
    yield from _table(("million items/s", *jobs), rows)
    yield "`add_many` is ours as well, given items in bulk; the others have no such call."
    yield ""


def _scheduler() -> Iterator[str]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    report = import_module("scheduling.report")  # the benchmark's own table

    result = _result("scheduler")
    yield from _section("The scheduler, beside other batchers with the same encoder inside", "scheduler", result)
    rows = (
        (
            line.label.strip(),
            line.wanted,
            *(_cell(report.figure(found, line.row, line.path)) for found in result["results"].values()),
        )
        for line in report.LINES
    )
    yield from _table(("", "wanted", *result["results"]), rows)


def _load() -> Iterator[str]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    report = import_module("loading.report")  # the benchmark's own table

    yield from _loaded(report, "load", "beside the same endpoint made otherwise")
    yield from _loaded(report, "load_amx", "on a processor with AMX")


def _loaded(report: Any, name: str, how: str) -> Iterator[str]:
    result = _result(name)
    yield from _section(f"The server under load, {result['documents']:,} documents, one core, {how}", name, result)
    names = list(result["settings"])
    too_slow = {
        name
        for name, row in result["results"]["ingest"].items()
        if not row.get("documents_per_s_alone", {}).get("median", 1)
    }
    rows = (
        (
            line.label.strip(),
            line.wanted,
            *(
                "none done in 5 s"
                if line.path[0] == "ingest" and name in too_slow
                else _cell(report.figure(result["results"], name, line.path))
                for name in names
            ),
        )
        for line in report.LINES
    )
    yield from _table(("", "wanted", *names), rows)
    yield from (f"- {name}: {how}." for name, how in result["settings"].items())
    yield ""


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _store() -> Iterator[str]:
    result = _result("store")
    sizes = sorted((name for name in result if name.isdigit()), key=int)
    yield from _section("The embedded store on one core, texts of four sentences, 384-d", "store", result[sizes[0]])
    names = list(result[sizes[0]]["figures"])
    rows = ((name, *(_cell(result[size]["figures"].get(name)) for size in sizes)) for name in names)
    yield from _table(("", *(f"{int(size):,} rows" for size in sizes)), rows)


def _race() -> Iterator[str]:
    result = _result("store")["race"]
    yield from _section("The store beside others, 100,000 rows, one core, known vectors", "store", result)
    contenders = result["figures"]
    names = [name for name in contenders["niruhybrid"] if name != "hybrid"]
    heads = (name if row["hybrid"] else f"{name}, vectors alone" for name, row in contenders.items())
    rows = ((name, *(_cell(row.get(name)) for row in contenders.values())) for name in names)
    yield from _table(("", *heads), rows)


def _postgres() -> Iterator[str]:
    result = _result("postgres")
    yield from _section("The store on PostgreSQL beside the embedded one, on the same machine", "postgres", result)
    for size, figures in result["rows"].items():
        rows = (
            (name, _cell(figures["embedded"].get(name)), _cell(value)) for name, value in figures["postgres"].items()
        )
        yield from _table((f"{int(size):,} rows", "in a file", "on PostgreSQL"), rows)
        yield f"Of the ten best of a query {figures['agreement of the ten best']:.0%} are the same."
        yield ""


def _standing() -> Iterator[str]:
    result = _result("standing")
    count = result["runs"][0]["standing_queries"]
    title = f"{count:,} standing queries, a batch of {result['batch']} documents, one core"
    yield from _section(title, "standing", result)
    rows = (
        (
            f"`min_score` {run['min_score']:g}" + (f", {run['per_minute']} a minute" if run["per_minute"] else ""),
            f"{run['matches_a_batch']:.0f}",
            f"{run['cost_ms']['median']:.0f}",
            f"{result['bar_ms']:g}",
        )
        for run in result["runs"]
    )
    yield from _table(("each with", "matches a batch", "cost of a batch, ms", "wanted"), rows)


def _serving() -> Iterator[str]:
    result = _result("serving")
    title = f"`POST /stream/query` over {result['documents']:,} documents, server on one core"
    yield from _section(title, "serving", result)
    columns = {
        "answers_per_second": "answers/s",
        "first_p50_ms": "first event p50, ms",
        "first_p99_ms": "p99",
        "last_p50_ms": "whole answer p50, ms",
        "last_p99_ms": "p99",
        "encode_p50_ms": "encode",
        "search_p50_ms": "search",
        "other_share": "neither, share",
    }
    rows = ((row["clients"], *(f"{row['median'][key]:.3g}" for key in columns)) for row in result["results"])
    yield from _table(("clients", *columns.values()), rows)


def _long_text() -> Iterator[str]:
    result = _result("long_text")
    yield from _section(
        "Long texts: time and memory, fed in pieces of 4,000 characters, one thread", "long_text", result
    )
    rows = (
        (f"{row['asked']:,}", f"{row['windows']:,}", f"{row['tokens_per_s']:.0f}", f"{row['peak_mb']:.0f}")
        for row in result["lengths"]
    )
    yield from _table(("tokens", "windows", "tokens/s of processor time", "peak memory, MB"), rows)
    spread = result["spread_after_the_first"]
    yield (
        f"From the second length on, speed differs by {spread['tokens_per_s']:.1%} and peak memory by "
        f"{spread['peak_mb']:.1%}; wanted is {result['wanted_spread']:.0%}."
    )
    yield ""
    beside = (
        (name, f"{row['seconds']:.1f}", row["vectors"], f"{row['ndcg_at_10']:.3f}")
        for name, row in result["beside"].items()
    )
    yield from _table(("the same meetings", "seconds", "vectors", "nDCG@10"), beside)


def _long_text_quality() -> Iterator[str]:
    result = _result("long_text_quality")
    yield from _section("Long texts: what is found, nDCG@10", "long_text_quality", result)
    yield (
        "`hybrid` by what its lexical half goes by: BM25 over whole documents, over the best passage, or the mean of "
        f"both. Dense weight {result['dense_weight']:g}."
    )
    yield ""
    for name, modes in result["ndcg_at_10"].items():
        columns = list(dict.fromkeys(column for row in modes.values() for column in row if "," in column))
        shown = ("dense", *columns)
        rows = ((mode, *(f"{row[key]:.3f}" if key in row else "" for key in shown)) for mode, row in modes.items())
        yield from _table((name, *shown), rows)
    gains = (
        (name, *(f"{row[key]:+.3f}" if key in row else "" for key in ("above truncation", "above BM25")))
        for name, row in result["gains"].items()
    )
    yield from _table((f"{result['default']} on the meetings", "above truncation", "above BM25"), gains)


if __name__ == "__main__":
    sys.exit(main())
