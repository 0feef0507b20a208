"""Our server with parts that take no time: what is left is the server's own part of a `/stream/query`.

python bare.py PORT     # serves until SIGTERM
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np

from niruhybrid.config import ServerConfig
from niruhybrid.pipeline import Pipeline
from niruhybrid.server import run
from niruhybrid.types import Document, Hit, IndexEntry, Query, SearchRequest, SearchResponse, Token

TEXT = (
    "Slips flowing past bodies of revolution at supersonic speed keep a thin layer of heated gas near the wall, and "
    "the rate at which that layer gives up its heat decides how long a nose of copper lasts. "
) * 4
HITS = tuple(Hit(f"cranfield-{rank}", rank, 1 / rank, TEXT, "heat transfer at a blunt nose") for rank in range(1, 6))
TOKENS = tuple(Token(f" {sentence}.", hit.id) for sentence, hit in zip(TEXT.split(".")[:3], HITS, strict=False))
VECTOR = np.full(384, 384**-0.5, np.float32)


class NoEncoder:
    """Gives every text the same vector and no terms."""

    dimension = 384

    def encode(self, texts: list[str], /) -> Any:
        return np.broadcast_to(VECTOR, (len(texts), 384))


class NoStore:
    """Finds the same five passages whatever is asked."""

    def upsert(self, _entries: Sequence[IndexEntry], /) -> int:
        return 1

    def delete(self, _ids: Sequence[str], /) -> tuple[int, int]:
        return 0, 1

    def get(self, ids: Sequence[str], /) -> list[Document | None]:
        return [None] * len(ids)

    def search(self, requests: Sequence[SearchRequest], /) -> list[SearchResponse]:
        return [SearchResponse(HITS, 1)] * len(requests)

    def __getattr__(self, name: str) -> Any:
        return lambda *_args, **_named: 0  # count, close, watermark: whatever else a pipeline asks for


class NoGenerator:
    """Says the same three sentences."""

    async def generate(self, _query: Query, _hits: Sequence[Hit], /) -> AsyncIterator[Token]:
        for token in TOKENS:
            yield token


async def main() -> None:
    config = ServerConfig(port=int(sys.argv[1]))
    listener = run.listen(config)
    stopping = asyncio.Event()

    async def opened() -> Pipeline:
        return Pipeline(NoEncoder(), NoStore(), NoGenerator())  # type: ignore[arg-type]  # `__getattr__` is the rest

    with run.set_on_signal(stopping):
        await run.serve(opened, config, listener=listener, stopping=stopping)


if __name__ == "__main__":
    from niruhybrid.cli.serve import loop_factory  # the loop that `niru serve` runs on

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
    sys.exit(0)
