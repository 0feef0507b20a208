"""What does the server do when it idles, when 1,000 subscribe, while it ingests, and when twice too much is asked?

The server runs in a process of its own, on one core; the clients on another, where there is one. Run it with
`python benchmarks/serving_load.py`; `--quick` for a look. One run of each load: tails vary by a fifth.

`goodput` is the number of answers that were complete within a second, for each second of the load; its share is of what
32 clients in a closed loop got in the same run.
"""

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _report import machine, percentile, write
from serving import Client, Sample, fill, measure, server_cpu, start_server

GOOD = 1.0
CONNECTIONS = 200
PASSAGE = "The {0} of part {1} keeps a queue of {2} items, which are taken in the order of their {0}. " * 6


def resident(process: "subprocess.Popen[str]") -> float:
    """Return the server's memory in MB."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def idle(process: "subprocess.Popen[str]", seconds: float) -> dict[str, float]:
    await asyncio.sleep(1)
    before = server_cpu(process)
    await asyncio.sleep(seconds)
    share = (server_cpu(process) - before) / seconds * 100
    return {"seconds": seconds, "cpu_percent": round(share, 3), "rss_mb": round(resident(process), 1)}


async def subscribed(process: "subprocess.Popen[str]", port: int, number: int, seconds: float) -> dict[str, float]:
    before = resident(process)
    writers = []
    for count in range(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"query": f"news of part {count}", "min_score": 0.99}).encode()
        head = "POST /stream/subscribe HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await reader.readuntil(b"event: subscribed\n")
        writers.append(writer)
    resting = await idle(process, seconds)
    for writer in writers:
        writer.close()
    each = (resting["rss_mb"] - before) * 1000 / number
    return {"subscribers": number, "kb_each": round(each, 1), "cpu_percent": resting["cpu_percent"]}


def passages(seconds: float) -> Iterator[bytes]:
    end, number = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        number += 1
        text = PASSAGE.format(f"word{number % 997}", number, number % 89)
        yield json.dumps({"id": f"bench-{time.monotonic_ns()}", "text": text}).encode() + b"\n"


async def ingest(port: int, seconds: float) -> float:
    """Send passages for so long; return how many a second were acknowledged in that time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /stream/data HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    began, stored = time.perf_counter(), 0

    async def count() -> None:
        nonlocal stored
        while True:
            line = await reader.readline()
            if b'"line":0' in line or not line:
                return
            stored += b'"watermark":' in line and time.perf_counter() - began <= seconds

    async def send() -> None:
        for line in passages(seconds):
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
            await writer.drain()
            await asyncio.sleep(0)

    working = {asyncio.ensure_future(count()), asyncio.ensure_future(send())}
    await asyncio.sleep(seconds)
    for task in working:
        task.cancel()
    await asyncio.wait(working)
    writer.transport.abort()  # what is still in the sockets would take minutes
    return stored / seconds


async def asked_at(port: int, questions: list[str], rate: float, seconds: float) -> tuple[list[Sample], int]:
    """Ask at a fixed rate, whatever comes of it; return what was answered, measured from when it was due."""
    samples: list[Sample] = []
    free: asyncio.Queue[Client] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(Client(*await asyncio.open_connection("127.0.0.1", port)))
    total, began, tasks = int(rate * seconds), time.perf_counter() + 0.1, []

    async def one(number: int) -> None:
        due = began + number / rate
        client = await free.get()
        try:
            await client.ask(f"{questions[number % len(questions)]} Load {time.monotonic_ns()}.")
        except AssertionError:  # refused: the status says so, and the body is not read
            free.put_nowait(Client(*await asyncio.open_connection("127.0.0.1", port)))
            return
        done = time.perf_counter() - due
        samples.append(Sample(done, done, {"encode": 0.0, "search": 0.0}))
        free.put_nowait(client)

    for number in range(total):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        tasks.append(asyncio.ensure_future(one(number)))
    await asyncio.wait(tasks, timeout=3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return samples, total


async def mixed(port: int, questions: list[str], seconds: float) -> dict[str, float]:
    alone = await ingest(port, seconds)
    ingesting = asyncio.ensure_future(ingest(port, seconds + 1))
    await asyncio.sleep(1)
    samples, total = await asked_at(port, questions, 20, seconds - 1)
    beside = await ingesting
    waits = [sample.last * 1000 for sample in samples]
    return {
        "ingest_alone_per_second": round(alone, 1),
        "ingest_beside_per_second": round(beside, 1),
        "ingest_share": round(beside / alone, 3),
        "queries": total,
        "answered": len(samples),
        "query_p50_ms": round(percentile(waits, 50), 1),
        "query_p99_ms": round(percentile(waits, 99), 1),
    }


async def overload(port: int, questions: list[str], seconds: float) -> dict[str, float]:
    samples, took = await measure(port, questions, 32, int(120 * seconds))
    capacity = len(samples) / took
    heard, total = await asked_at(port, questions, 2 * capacity, seconds)
    good = sum(sample.last <= GOOD for sample in heard) / seconds
    return {
        "capacity_per_second": round(capacity, 1),
        "asked": total,
        "answered": len(heard),
        "goodput_per_second": round(good, 1),
        "goodput_share": round(good / capacity, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.documents, given.seconds = 200, 2.0
    cores = sorted(os.sched_getaffinity(0))
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        questions = fill(f"{folder}/bench.db", given.documents)
        began = time.perf_counter()
        process, port = start_server(f"{folder}/bench.db", cores[0])
        results["ready_seconds"] = round(time.perf_counter() - began, 2)
        os.sched_setaffinity(0, {cores[-1]})
        try:
            asyncio.run(measure(port, questions, 8, 100))  # warm-up
            results["idle"] = asyncio.run(idle(process, given.seconds))
            results["subscribers"] = asyncio.run(subscribed(process, port, 1000, given.seconds))
            results["overload"] = asyncio.run(overload(port, questions, given.seconds))
            results["mixed"] = asyncio.run(mixed(port, questions, given.seconds))
            results["rss_mb_at_the_end"] = round(resident(process), 1)
        finally:
            process.terminate()
            process.wait(30)
    report = {
        "question": "One server on one core: idle, 1,000 subscribers, twice its capacity, queries beside an ingest",
        "machine": machine(("fastapi", "uvicorn", "uvloop", "openvino", "orjson")),
        "documents": given.documents,
        "results": results,
    }
    if not given.quick:
        write("serving_load", report)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
