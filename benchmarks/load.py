"""How does the server do under load, beside the same endpoint written the usual way, and beside mosec?

Servers run on one core, the load generator on another. Everyone has the same 5,000 real passages, the same model, one
thread, and is asked real questions, each once; the rivals search by vectors alone, ours by words too. Every answer is
checked. `loading/contenders.py` says how everyone is set up, `loading/parts.py` has what is done to them. A row of ours
that misses what is wanted fails the run.

    NIRU_EVAL_DATA=folder python benchmarks/run.py load       # about 6 minutes; once 2 more, to encode the passages
    python benchmarks/load.py --only own,serving              # some parts; nothing is written
    python benchmarks/load.py --quick --who niruhybrid        # a look; nothing is written
    python benchmarks/load.py --keep-as load_amx              # the whole, of a processor with AMX
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from _report import RESULTS, machine, write
from loading import corpus, report
from loading.contenders import CONTENDERS
from loading.parts import PARTS, Bench

PACKAGES = ("fastapi", "uvicorn", "uvloop", "openvino", "orjson", "torch", "sentence-transformers", "mosec")
INGESTED = 6_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help=f"parts, separated by commas: {', '.join(PARTS)}; nothing is written")
    parser.add_argument("--who", help="contenders, separated by semicolons; nothing is written")
    parser.add_argument("--quick", action="store_true", help="shorter; nothing is written")
    parser.add_argument("--keep-as", default="load", help="name of the result, for a machine of another kind")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers are to end with it
    cores = sorted(os.sched_getaffinity(0))
    documents = corpus.passages()
    vectors = corpus.encoded(documents)
    began, results = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "documents.jsonl")
        lines.write_text("".join(json.dumps(each) + "\n" for each in documents), encoding="utf-8")
        bench = Bench(
            core=cores[0],
            store=corpus.filled_store(Path(folder, "store"), documents, vectors),
            vectors=vectors,
            documents=lines,
            more=corpus.more_passages(INGESTED),
            names=[name.strip() for name in given.who.split(";")] if given.who else list(CONTENDERS),
            scale=0.4 if given.quick else 1.0,
        )
        os.sched_setaffinity(0, {cores[-1]})
        for name in given.only.split(",") if given.only else PARTS:
            start = time.monotonic()
            results[name] = PARTS[name](bench)
            print(f"   {name}: {time.monotonic() - start:.0f} s", flush=True)
    found = {
        "question": __doc__.splitlines()[0],
        "machine": machine(PACKAGES),
        "cores": {"server": cores[0], "generator": cores[-1]},
        "settings": {name: one.setting for name, one in CONTENDERS.items()},
        "documents": len(documents),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "results": results,
    }
    missed = report.show(results)
    if given.quick or given.only or given.who:
        print("nothing written: this was not the whole run")
    else:
        write(given.keep_as, found)
        report.draw(results, RESULTS / f"{given.keep_as}.svg")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main())
