"""Is `HybridEncoder` faster than `sentence-transformers` on the same weights, and does it give the same vectors?

Both run in this process on one thread and take turns, batch by batch, on the same real texts: queries of 8 to 24 tokens
and passages of 128 to 255, from the files under `$NIRU_EVAL_DATA` (`queries*` and `corpus.jsonl*`, in any folder).
Wanted: at least 2 times the texts a second at every batch size and 3 times at batches of 32; cosine .999 to the rival's
vectors, and of a text alone to itself in a batch. Anything less fails the run.

    pip install -r benchmarks/requirements-encoder.in && NIRU_EVAL_DATA=folder python benchmarks/encoder.py
"""

import gzip
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import eval_data, machine, write
from sentence_transformers import SentenceTransformer

from niruhybrid.encoding.hybrid_encoder import HybridEncoder
from niruhybrid.encoding.weights import locate

REPEATS = 9
QUERY_TOKENS, PASSAGE_TOKENS = (8, 24), (128, 255)
PACKAGES = ("openvino", "tokenizers", "numpy", "torch", "sentence-transformers", "transformers")
# name: kind of text, batch size, batches a repeat, times faster that is wanted
CASES = {
    "query x1": ("query", 1, 16, 2.0),
    "query x8": ("query", 8, 4, 2.0),
    "query x32": ("query", 32, 2, 3.0),
    "passage x8": ("passage", 8, 1, 2.0),
    "passage x32": ("passage", 32, 1, 3.0),
}
Encode = Callable[[list[str]], Any]


def lines(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for line in file:
            if ".jsonl" in path.name:
                yield json.loads(line)["text"]
            else:
                yield line.strip()


def texts_between(encoder: HybridEncoder, pattern: str, tokens: tuple[int, int]) -> list[str]:
    found = sorted({text for path in sorted(eval_data().rglob(pattern)) for text in lines(path) if text.strip()})
    counts = encoder.count_tokens(found)
    kept = [text for text, count in zip(found, counts, strict=True) if tokens[0] <= count <= tokens[1]]
    random.Random(1).shuffle(kept)
    return kept


def seconds(encode: Encode, batches: list[list[str]]) -> float:
    start = time.perf_counter()
    for batch in batches:
        encode(batch)
    return time.perf_counter() - start


def measure(ours: Encode, theirs: Encode, pools: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    draw = random.Random(2)
    speeds: dict[str, dict[str, list[float]]] = {name: {"ours": [], "theirs": []} for name in CASES}
    for repeat in range(REPEATS + 1):  # the first one warms up
        for name, (kind, size, count, _) in CASES.items():
            batches = [draw.sample(pools[kind], size) for _ in range(count)]
            for who, encode in (
                (("ours", ours), ("theirs", theirs)) if repeat % 2 else (("theirs", theirs), ("ours", ours))
            ):
                speed = size * count / seconds(encode, batches)
                if repeat:
                    speeds[name][who].append(speed)
    return {name: summary(speed, CASES[name][3]) for name, speed in speeds.items()}


def summary(speed: dict[str, list[float]], wanted: float) -> dict[str, Any]:
    ratios = [mine / other for mine, other in zip(speed["ours"], speed["theirs"], strict=True)]
    return {
        "ours_texts_per_s": spread(speed["ours"]),
        "theirs_texts_per_s": spread(speed["theirs"]),
        "times_faster": spread(ratios),
        "wanted": wanted,
    }


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "low": round(min(values), 2),
        "high": round(max(values), 2),
    }


def agreement(ours: Encode, theirs: Encode, pools: dict[str, list[str]]) -> dict[str, float]:
    texts = pools["query"][:300] + pools["passage"][:200]
    batched = ours(texts)
    to_theirs = (batched * theirs(texts)).sum(axis=1)
    to_alone = (batched * np.concatenate([ours([text]) for text in texts])).sum(axis=1)
    return {
        "texts": len(texts),
        "to_theirs_mean": float(to_theirs.mean()),
        "to_theirs_min": float(to_theirs.min()),
        "alone_to_batched_min": float(to_alone.min()),
    }


def main() -> int:
    torch.set_num_threads(1)
    start = time.perf_counter()
    encoder = HybridEncoder()
    load = time.perf_counter() - start
    rival = SentenceTransformer(str(locate(None)), device="cpu")
    pools = {
        "query": texts_between(encoder, "queries*", QUERY_TOKENS),
        "passage": texts_between(encoder, "corpus.jsonl*", PASSAGE_TOKENS),
    }

    def theirs(texts: list[str]) -> Any:
        return rival.encode(texts, batch_size=32, show_progress_bar=False, normalize_embeddings=True)

    cosine = agreement(encoder.encode, theirs, pools)
    cases = measure(encoder.encode, theirs, pools)
    met = min(cosine["to_theirs_min"], cosine["alone_to_batched_min"]) >= 0.999
    print(f"{'':12}{'ours':>12}{'theirs':>12}{'times':>8}  wanted    (texts/s, medians of {REPEATS})")
    for name, case in cases.items():
        ours, other, times = (case[key]["median"] for key in ("ours_texts_per_s", "theirs_texts_per_s", "times_faster"))
        print(f"{name:12}{ours:12.1f}{other:12.1f}{times:8.2f}{case['wanted']:8.0f}")
        met = met and times >= case["wanted"]
    print(f"cosine {cosine}\nload {load:.2f} s; {'all met' if met else 'NOT MET'}")
    pool_sizes = {kind: len(pool) for kind, pool in pools.items()}
    result = {
        "machine": machine(PACKAGES),
        "load_s": round(load, 2),
        "pool": pool_sizes,
        "cosine": cosine,
        "cases": cases,
        "met": met,
    }
    write("encoder", result)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
