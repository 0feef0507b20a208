"""Do clients that say nothing slow down those that ask? `POST /stream/query` with and without a flood of silent ones.

The flood is 1,000 connections with half of a request head and 100 bodies of lines that stay empty, all opened again
whenever the server closes them, from a process of its own. The server, on one core, asks for no key. Turns without and
with the flood follow each other. Run it with `python benchmarks/silence.py` on a quiet machine; `--quick` for a look.

It fails if a question is not answered, or if the slowest of a hundred take more than twice as long beside the flood.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from _report import machine, write
from serving import fill, measure, start_server, summary

HALF_OPEN = 1000
IDLE_UPLOADS = 100
HALF_A_HEAD = b"GET / HT"
EMPTY_UPLOAD = (
    b"POST /stream/data HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
PAUSE = 0.1  # seconds before a connection that was closed is opened again
MOST = 2.0


async def flood(port: int) -> None:
    """Hold silent connections open until the process is ended; print a line once all have been opened."""
    opened = asyncio.Semaphore(0)

    async def silent(begins: bytes) -> None:
        first = True
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(begins)
                if first:
                    opened.release()
                    first = False
                await reader.read()
                writer.close()
            await asyncio.sleep(PAUSE)

    begun = [
        asyncio.ensure_future(silent(begins)) for begins in [HALF_A_HEAD] * HALF_OPEN + [EMPTY_UPLOAD] * IDLE_UPLOADS
    ]
    for _ in begun:
        await opened.acquire()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)  # comes after all of them
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"ok")
    writer.close()
    print("up", flush=True)
    await asyncio.gather(*begun)


@contextmanager
def flooded(port: int) -> Iterator[None]:
    """Have the flood stand while the block runs."""
    command = [sys.executable, __file__, "--flood", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            yield
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--flood", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.flood:
        asyncio.run(flood(given.flood))
        return
    if given.quick:
        given.answers, given.documents, given.repeats = 200, 50, 1
    turns: dict[str, list[dict[str, Any]]] = {"alone": [], "flooded": []}
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        questions = fill(f"{folder}/bench.db", given.documents)
        process, port = start_server(f"{folder}/bench.db", cores[0])
        os.sched_setaffinity(0, {cores[-1]})
        try:
            asyncio.run(measure(port, questions, given.clients, 100))  # warm-up
            for _ in range(given.repeats):
                turns["alone"].append(summary(*asyncio.run(measure(port, questions, given.clients, given.answers))))
                with flooded(port):
                    found = asyncio.run(measure(port, questions, given.clients, given.answers))
                turns["flooded"].append(summary(*found))
        finally:
            process.terminate()
            process.wait(30)
    medians = {
        name: {each: statistics.median(run[each] for run in runs) for each in ("last_p50_ms", "last_p99_ms")}
        for name, runs in turns.items()
    }
    ratio = round(medians["flooded"]["last_p99_ms"] / medians["alone"]["last_p99_ms"], 2)
    report = {
        "question": "POST /stream/query beside 1,000 half-open connections and 100 idle uploads, without a key",
        "machine": machine(("fastapi", "uvicorn", "uvloop", "httptools")),
        "clients": given.clients,
        "medians": medians,
        "p99_ratio": ratio,
        "turns": turns,
    }
    if not given.quick:
        write("silence", report)
    print("", "p50, ms", "p99, ms", sep=" | ")
    for name, row in medians.items():
        print(name, row["last_p50_ms"], row["last_p99_ms"], sep=" | ")
    print(f"p99 beside the flood is {ratio} times what it is alone")
    if ratio > MOST:
        raise SystemExit(f"that is more than {MOST}")


if __name__ == "__main__":
    main()
