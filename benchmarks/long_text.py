"""Does a text of any length take its share of time and no more memory, and what does reading all of it bring?

A text of 1,000 to 1,000,000 tokens is fed to `HybridEncoder.open_stream` in pieces of 4,000 characters, each length in
a process of its own. Wanted, after the first length: tokens a second of processor time (one thread) and peak memory,
flat within 10%; a token counts once, though the next window may read it again. Then time and nDCG@10 on some meetings,
in one run: ours, `sentence-transformers` as it is (it reads the first 256 tokens), and the usual loop around it, which
cuts chunks of 128 tokens with 32 of overlap, encodes them and lets the best one count.

    pip install -r benchmarks/requirements-long_text.in
    NIRU_EVAL_DATA=folder python benchmarks/long_text.py [tokens ...] [beside]
"""

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from _report import RESULTS, eval_data, machine, write
from numpy.typing import NDArray

from niruhybrid.encoding.hybrid_encoder import HybridEncoder
from niruhybrid.encoding.weights import locate
from niruhybrid.encoding.windows import EncodingStream
from niruhybrid.evaluation.collection import Collection, read_collection

LENGTHS = (1_000, 10_000, 100_000, 1_000_000)
PIECE = 4_000  # characters
WARM = 5  # pieces
MEETINGS = 6
SIZE, OVERLAP = 128, 32
FLAT = 0.1
WANTED = ("tokens_per_s", "peak_mb")
Vectors = NDArray[np.float32]


def meetings() -> Collection:
    return read_collection(eval_data("qmsum-meetings"))


def written(tokens: int, path: Path) -> None:
    """Write a text of about so many tokens."""
    encoder = HybridEncoder()
    left = tokens
    with path.open("w") as file:
        for document in meetings().documents:
            for start in range(0, len(document.text), 10 * PIECE):
                piece = document.text[start : start + 10 * PIECE]
                starts = encoder.tokenize(piece).starts
                file.write(piece[: starts[left]] if left < len(starts) else piece)
                left -= len(starts)
                if left <= 0:
                    return
    raise SystemExit(f"the meetings have {tokens - left} tokens, {tokens} are asked for: ask for fewer")


def one_length(tokens: int, path: Path) -> dict[str, float]:
    """Return how a text of `tokens` tokens was read, by this process, which never holds all of it."""
    encoder = HybridEncoder()
    fed(encoder, path, WARM)
    loaded = resident()
    with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123  # no file in the usual sense
        file.write("5")  # the peak counts from here
    took: list[float] = []
    for _ in range(max(1, min(5, 30_000 // tokens))):
        began = time.process_time()
        session = fed(encoder, path)
        took.append(time.process_time() - began)
    peak = highest()
    return {
        "tokens": session.tokens_used,
        "windows": session.windows,
        "runs": len(took),
        "tokens_per_s": round(session.tokens_used / statistics.median(took), 1),
        "peak_mb": round(peak, 1),
        "above_loaded_mb": round(peak - loaded, 1),
    }


def fed(encoder: HybridEncoder, path: Path, most: int | None = None) -> EncodingStream:
    """Read a file to a session piece by piece; `most` pieces of it."""
    session = encoder.open_stream("text")
    with path.open() as file:
        for piece in islice(iter(lambda: file.read(PIECE), ""), most):
            session.feed(piece)
    session.close()
    return session


def highest() -> float:
    """Return the most megabytes that this process has held since its peak was reset."""
    with open("/proc/self/status") as file:  # noqa: PTH123  # no file in the usual sense
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def resident() -> float:
    """Return the megabytes that this process holds now."""
    with open("/proc/self/statm") as file:  # noqa: PTH123  # no file in the usual sense
        return int(file.read().split()[1]) * resource.getpagesize() / (1 << 20)


def lengths(wanted: Sequence[int], kept: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return how each length was read, with those an earlier run has kept, and how far they differ."""
    found = {round(each["asked"]): each for each in kept}
    for tokens in wanted:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "text")
            for step in ("--write", "--one"):
                command = (sys.executable, __file__, step, str(tokens), str(path))
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
            found[tokens] = {"asked": tokens, **json.loads(done.stdout.splitlines()[-1])}
        print(found[tokens], flush=True)
    rows = [found[tokens] for tokens in sorted(found)]
    later = rows[1:] or rows
    spread = {
        key: round(max(each[key] for each in later) / min(each[key] for each in later) - 1.0, 3) for key in WANTED
    }
    print(spread)
    return {"lengths": rows, "spread_after_the_first": spread}


def contenders() -> dict[str, tuple[Callable[[str], Vectors], Callable[[list[str]], Vectors]]]:
    """Return, by name, what makes a document's vectors and what makes those of queries."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    encoder = HybridEncoder()
    rival = SentenceTransformer(str(locate(None)), device="cpu")

    def theirs(texts: list[str]) -> Vectors:
        made = rival.encode(texts, batch_size=32, show_progress_bar=False, normalize_embeddings=True)
        return np.asarray(made, np.float32)

    def chunked(text: str) -> Vectors:
        starts = [*encoder.tokenize(text).starts, len(text)]
        step = SIZE - OVERLAP
        last = len(starts) - 1
        return theirs([text[starts[at] : starts[min(at + SIZE, last)]] for at in range(0, last, step)])

    return {
        "ours, windows": (lambda text: encoder.encode_long(text).vectors, encoder.encode),
        "ours, truncated": (lambda text: encoder.encode_long(text, long_text="truncate").vectors, encoder.encode),
        "sentence-transformers, truncated": (lambda text: theirs([text]), theirs),
        "sentence-transformers, chunk and encode": (chunked, theirs),
    }


def ndcg(collection: Collection, ids: Sequence[str], scores: NDArray[np.float64]) -> float:
    """Return the mean nDCG@10 of `(queries, documents)` scores over the queries that have an answer among `ids`."""
    values = []
    for name, row in zip(collection.queries, scores, strict=True):
        grades = [collection.judgements[name].get(each, 0) for each in ids]
        ideal = sum(g / math.log2(at + 2) for at, g in enumerate(sorted(grades, reverse=True)[:10]))
        if ideal:
            order = np.argsort(-row, kind="stable")[:10]
            values.append(sum(grades[at] / math.log2(place + 2) for place, at in enumerate(order)) / ideal)
    return round(float(np.mean(values)), 4)


def beside() -> dict[str, dict[str, float]]:
    """Return time and quality of every contender on the same meetings."""
    collection = meetings()
    documents = collection.documents[:: len(collection.documents) // MEETINGS][:MEETINGS]
    texts = list(collection.queries.values())
    table = {}
    for name, (of_document, of_queries) in contenders().items():
        of_document(documents[0].text[:4000])  # warms up
        began = time.perf_counter()
        found = [of_document(document.text) for document in documents]
        seconds = time.perf_counter() - began
        queries = of_queries(texts)
        scores = np.stack([(queries @ vectors.T).max(axis=1) for vectors in found], axis=1).astype(np.float64)
        table[name] = {
            "seconds": round(seconds, 2),
            "vectors": sum(len(vectors) for vectors in found),
            "ndcg_at_10": ndcg(collection, [document.id for document in documents], scores),
        }
        print(f"{name:42} {table[name]}", flush=True)
    return table


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--write"]:
        written(int(arguments[1]), Path(arguments[2]))
        return 0
    if arguments[:1] == ["--one"]:
        print(json.dumps(one_length(int(arguments[1]), Path(arguments[2]))))
        return 0
    kept = RESULTS / "long_text.json"
    report: dict[str, Any] = json.loads(kept.read_text()) if arguments and kept.exists() else {}
    report |= {
        "machine": machine(("openvino", "tokenizers", "numpy", "torch", "sentence-transformers")),
        "question": "does a text of any length take its share of time, and no more memory?",
        "wanted_spread": FLAT,
    }
    wanted = [int(each) for each in arguments if each.isdigit()]
    if wanted or not arguments:
        report |= lengths(wanted or LENGTHS, report.get("lengths", ()))
    if not arguments or "beside" in arguments:
        report["beside"] = beside()
    report["met"] = max(report.get("spread_after_the_first", {"": math.inf}).values()) <= FLAT
    write("long_text", report)
    return 0 if report["met"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
