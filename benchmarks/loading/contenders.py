"""Who is measured: how each is started, and where it is asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loading.client import Answer, check_json, check_stream

HERE = Path(__file__).parent
NIRU = ("-c", "from niruhybrid.cli import main; main()", "serve", "--port", "{port}")
FASTAPI = (str(HERE / "usual_fastapi.py"), "{port}")
MOSEC = (str(HERE / "usual_mosec.py"), "--address", "127.0.0.1", "--port", "{port}")


@dataclass(frozen=True, slots=True)
class Contender:
    """A server and the path that it is asked at.

    Attributes:
        setting: what it is, in words.
        command: what starts it; a `{port}` in it is the port, a `{store}` our store's file.
        path: where it is asked.
        check: raises unless an answer is right.
        ready: path that answers 200 once it takes queries.
        environ: variables of its own.
        asked_with: fields beside the question, where an answer after a second is of no use.
        ingests: whether it takes NDJSON at `/stream/data`.
    """

    setting: str
    command: tuple[str, ...]
    path: str = "/stream/query"
    check: Callable[[Answer], Any] = check_stream
    ready: str = "/readyz"
    environ: Mapping[str, str] = field(default_factory=dict)
    asked_with: Mapping[str, Any] = field(default_factory=dict)
    ingests: bool = False


CONTENDERS = {
    "niruhybrid": Contender(
        "niru serve, default settings", (*NIRU, "--store", "{store}"), asked_with={"timeout": 1.0}, ingests=True
    ),
    "niruhybrid, JSON": Contender(
        "the same, asked for one piece of JSON",
        (*NIRU, "--store", "{store}"),
        path="/query",
        check=check_json,
        asked_with={"timeout": 1.0},
    ),
    "fastapi, torch": Contender(
        "FastAPI, sentence-transformers in a thread, NumPy index", (*FASTAPI, "torch"), ingests=True
    ),
    "fastapi, our encoder": Contender("the same with HybridEncoder inside", (*FASTAPI, "niruhybrid"), ingests=True),
    "mosec, torch": Contender(
        "mosec as shipped, batches of up to 32: sentence-transformers, NumPy index, answer in one piece of JSON",
        MOSEC,
        path="/inference",
        check=check_json,
        ready="/metrics",
        environ={"LOAD_ENCODER": "torch", "LOAD_WORK": "answer"},
    ),
    "mosec, our encoder": Contender(
        "the same with HybridEncoder inside",
        MOSEC,
        path="/inference",
        check=check_json,
        ready="/metrics",
        environ={"LOAD_ENCODER": "niruhybrid", "LOAD_WORK": "answer"},
    ),
    "mosec, torch, vectors alone": Contender(
        "mosec as shipped with sentence-transformers that only encodes: neither search nor answer",
        MOSEC,
        path="/inference",
        check=check_json,
        ready="/metrics",
        environ={"LOAD_ENCODER": "torch", "LOAD_WORK": "embed"},
    ),
}
