"""What does a streamed answer cost over HTTP? `POST /stream/query` at 1 and at 32 clients.

A closed loop: each client asks again when its answer is complete. The server runs in a process of its own, on one core;
the clients on another, where there is one. Run it with `python benchmarks/serving.py`; `--quick` for a look.

Time to the first event and to the last are measured by the client, `encode` and `search` are the server's own (`done`).
`other` is what remains of the client's time: HTTP, scheduling, the answer, and waiting behind other queries (`queued`).
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

from _report import machine, percentile, write

BATCH = 64
JSON = "application/json"
ASKED = count(1)


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer, in seconds."""

    first: float
    last: float
    timings: dict[str, float]

    @property
    def other(self) -> float:
        """What was neither encoding nor search."""
        return self.last - self.timings["encode"] - self.timings["search"]


def fill(store_path: str, documents: int) -> list[str]:
    """Make a store of the demo corpus and return questions about it."""
    from _demo import demo_passages

    from niruhybrid.encoding.hybrid_encoder import HybridEncoder
    from niruhybrid.retrieval.store import EmbeddedStore
    from niruhybrid.types import IndexEntry

    encoder, titles = HybridEncoder(), []
    corpus = islice(demo_passages(), documents)
    with EmbeddedStore(store_path) as store:
        while batch := list(islice(corpus, BATCH)):
            vectors = encoder.encode([document.text for document in batch])
            store.upsert(
                [
                    IndexEntry(document, vector, encoder.terms(f"{document.title} {document.text}"))
                    for document, vector in zip(batch, vectors, strict=True)
                ]
            )
            titles += [document.title or document.id for document in batch]
    return [f"How is {title} used?" for title in titles]


def start_server(store_path: str, core: int) -> tuple["subprocess.Popen[str]", int]:
    environ = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", "from niruhybrid.cli import main; main()", "serve", "--store", store_path]
    process = subprocess.Popen(  # our own words
        [*command, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509  # no threads here yet
    )
    assert process.stdout is not None
    port = 0
    for line in process.stdout:
        if "listens on" in line:
            port = int(line.split("http://127.0.0.1:")[1].split()[0])
        if "ready after" in line:
            return process, port
    raise SystemExit("the server did not start")


class Client:
    """One keep-alive connection, parsed no more than is needed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, question: str) -> Sample:
        """Ask one question and read its answer to the end."""
        body = json.dumps({"query": question, "top_k": 5}).encode()
        head = f"POST /stream/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}"
        began = time.perf_counter()
        self._writer.write(head.encode() + b"\r\n\r\n" + body)
        status = await self._reader.readuntil(b"\r\n\r\n")
        assert status.startswith(b"HTTP/1.1 200"), status
        first, stream = 0.0, b""
        while chunk := await self._chunk():
            first = first or time.perf_counter() - began
            stream += chunk
        last = time.perf_counter() - began
        name, data = stream.rstrip().rsplit(b"\nevent: ", 1)[1].split(b"\ndata: ")
        assert name == b"done", data
        return Sample(first, last, json.loads(data)["timings"])

    async def _chunk(self) -> bytes:
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        return (await self._reader.readexactly(size + 2))[:-2]


async def measure(port: int, questions: list[str], clients: int, answers: int) -> tuple[list[Sample], float]:
    again = questions * (answers // len(questions) + 1)
    waiting = (f"{question} Case {next(ASKED)}." for question in again[:answers])  # no text twice: it might be kept
    samples: list[Sample] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        client = Client(reader, writer)
        for question in waiting:
            samples.append(await client.ask(question))  # noqa: PERF401  # as they come, of all clients
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    return samples, time.perf_counter() - began


def summary(samples: list[Sample], seconds: float) -> dict[str, float]:
    def ms(values: list[float], percent: int) -> float:
        return round(percentile(values, percent) * 1000, 3)

    last = [sample.last for sample in samples]
    first = [sample.first for sample in samples]
    return {
        "answers": len(samples),
        "answers_per_second": round(len(samples) / seconds, 1),
        "first_p50_ms": ms(first, 50),
        "first_p99_ms": ms(first, 99),
        "last_p50_ms": ms(last, 50),
        "last_p99_ms": ms(last, 99),
        "queued_p50_ms": ms([sample.timings["queued"] for sample in samples], 50),
        "encode_p50_ms": ms([sample.timings["encode"] for sample in samples], 50),
        "search_p50_ms": ms([sample.timings["search"] for sample in samples], 50),
        "other_p50_ms": ms([sample.other for sample in samples], 50),
        "other_share": round(sum(sample.other for sample in samples) / sum(last), 3),
    }


def server_cpu(process: "subprocess.Popen[str]") -> float:
    """Return the processor seconds that the server has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def repeated(process: "subprocess.Popen[str]", port: int, questions: list[str], clients: int, given: Any) -> Any:
    runs = []
    for _ in range(given.repeats):
        before = server_cpu(process)
        samples, seconds = asyncio.run(measure(port, questions, clients, given.answers))
        cpu = (server_cpu(process) - before) / len(samples) * 1000
        runs.append(summary(samples, seconds) | {"server_cpu_ms_per_answer": round(cpu, 3)})
    runs.sort(key=lambda run: run["last_p50_ms"])
    return {"clients": clients, "median": runs[len(runs) // 2], "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.answers, given.documents, given.repeats = 200, 200, 1
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        questions = fill(f"{folder}/bench.db", given.documents)
        process, port = start_server(f"{folder}/bench.db", cores[0])
        os.sched_setaffinity(0, {cores[-1]})
        try:
            asyncio.run(measure(port, questions, 8, 100))  # warm-up
            rows = [repeated(process, port, questions, clients, given) for clients in (1, 32)]
        finally:
            process.terminate()
            process.wait(30)
    report = {
        "question": "POST /stream/query: latency at 1 and 32 clients in a closed loop, server on one core",
        "machine": machine(("fastapi", "uvicorn", "uvloop", "openvino", "orjson")),
        "documents": given.documents,
        "results": rows,
    }
    if not given.quick:
        write("serving", report)
    columns = [name for name in rows[0]["median"] if name != "answers"]
    print("clients", *columns, sep=" | ")
    for row in rows:
        print(row["clients"], *(row["median"][name] for name in columns), sep=" | ")


if __name__ == "__main__":
    main()
