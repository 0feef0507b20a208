"""Does a stream keep the encoder busy? 5,000 real questions through the processors, against the encoder by itself.

By itself the encoder is given the same questions sorted by length, 32 at a time: the best that batches of this size can
do. The stream gets them as people asked them. The contenders take turns; each run checks its vectors. "one core" has
all threads of the process share one; "two cores" leaves the event loop one of its own.

    NIRU_EVAL_DATA=... python benchmarks/stream.py [--repeats 5]
"""

import argparse
import asyncio
import gzip
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from _report import eval_data, machine, summary, write

from niruhybrid import AsyncStreamProcessor, HybridEncoder, QueryResult, StreamingConfig, StreamProcessor
from niruhybrid.types import Vector

QUESTIONS = 5000
BATCH = 32
WANTED = 0.95
CONFIG = StreamingConfig(cache_bytes=0)  # some questions were asked twice: each is to be encoded


def questions() -> list[str]:
    with gzip.open(eval_data("replay", "queries_nq_open_google.txt.gz"), "rt", encoding="utf-8") as file:
        seen = dict.fromkeys(line.strip() for line in file)
    return [text for text in seen if text][:QUESTIONS]


def by_itself(encoder: HybridEncoder, texts: list[str]) -> list[Vector]:
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    found: list[Vector | None] = [None] * len(texts)
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        for place, row in zip(part, encoder.encode([texts[place] for place in part]), strict=True):
            found[place] = row
    return [row for row in found if row is not None]


def in_threads(encoder: HybridEncoder, texts: list[str]) -> list[Vector]:
    with StreamProcessor(encoder, config=CONFIG) as processor:
        return list(vectors(processor.process_query_stream(texts)))


def on_a_loop(encoder: HybridEncoder, texts: list[str]) -> list[Vector]:
    async def main() -> list[Vector]:
        async with AsyncStreamProcessor(encoder, config=CONFIG) as processor:
            return list(vectors([result async for result in processor.process_query_stream(texts)]))

    return asyncio.run(main())


def vectors(results: "Iterator[QueryResult] | list[QueryResult]") -> Iterator[Vector]:
    for result in results:
        assert result.vector is not None, result.error
        yield result.vector


def measure(encoder: HybridEncoder, texts: list[str], repeats: int) -> dict[str, list[float]]:
    contenders: dict[str, Callable[[HybridEncoder, list[str]], list[Vector]]] = {
        "encoder by itself": by_itself,
        "StreamProcessor": in_threads,
        "AsyncStreamProcessor": on_a_loop,
    }
    reference = np.array(by_itself(encoder, texts))
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            began = time.perf_counter()
            found = run(encoder, texts)
            rates[name].append(len(texts) / (time.perf_counter() - began))
            cosines = (np.array(found) * reference).sum(axis=1)
            assert len(found) == len(texts)
            assert cosines.min() > 0.999, cosines.min()
    return rates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    texts, encoder = questions(), HybridEncoder()
    cores = os.sched_getaffinity(0)
    report: dict[str, object] = {"machine": machine(["openvino", "numpy"]), "questions": len(texts), "batch": BATCH}
    met = True
    for where, allowed in {"two cores": cores, "one core": {min(cores)}}.items():
        for task in Path("/proc/self/task").iterdir():  # the encoder's own thread, too
            os.sched_setaffinity(int(task.name), allowed)
        rates = measure(encoder, texts, given.repeats)
        base = rates["encoder by itself"]
        for name, values in rates.items():
            share = summary([rate / other for rate, other in zip(values, base, strict=True)])
            report[f"{name}, {where}"] = {"texts_per_s": summary(values, 1), "share": share}
            print(f"{where:10} {name:22} {summary(values, 1)['median']:8.1f} texts/s  {share['median']:.3f} of itself")
            met = met and (where == "one core" or share["median"] >= WANTED)
    print("met" if met else f"NOT MET: {WANTED} on two cores")
    write("stream", report | {"wanted": WANTED, "met": met})
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
