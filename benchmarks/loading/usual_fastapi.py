"""The same endpoints as they are usually written: FastAPI, an encoder in a thread, an index in memory.

python usual_fastapi.py PORT ENCODER
"""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import orjson
import usual
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import ORJSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from niruhybrid.types import Hit

BATCH = 32

app = FastAPI()
index = usual.Index.from_environment()
encode = usual.encoder(sys.argv[2])
thread = ThreadPoolExecutor(1)


class Asked(BaseModel):
    """A question."""

    query: str = Field(min_length=1)
    top_k: int = Field(5, ge=1, le=100)


def search(asked: Asked) -> tuple[list[Hit], list[dict[str, str]]]:
    hits = index.search(encode([asked.query]), asked.top_k)[0]
    return hits, usual.answer(asked.query, hits)


async def searched(asked: Asked) -> tuple[list[Hit], list[dict[str, str]]]:
    return await asyncio.get_running_loop().run_in_executor(thread, search, asked)


def event(name: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


@app.post("/stream/query")
async def stream_query(asked: Asked) -> StreamingResponse:
    async def events() -> AsyncIterator[bytes]:
        hits, answer = await searched(asked)
        query_id = uuid.uuid4().hex
        yield event("sources", {"query_id": query_id, "hits": [hit.to_dict() for hit in hits]})
        for piece in answer:
            yield event("token", piece)
        yield event("done", {"query_id": query_id, "finish_reason": "stop"})

    return StreamingResponse(events(), media_type="text/event-stream")


@app.post("/query")
async def query(asked: Asked) -> ORJSONResponse:
    hits, answer = await searched(asked)
    text = "".join(piece["text"] for piece in answer)
    return ORJSONResponse({"hits": [hit.to_dict() for hit in hits], "answer": text})


def add(documents: usual.Documents) -> None:
    index.add(documents, encode([f"{each['title']}\n{each['text']}" for each in documents]))


@app.post("/stream/data")
async def stream_data(request: Request) -> StreamingResponse:
    async def acknowledgements() -> AsyncIterator[bytes]:
        loop, left, waiting = asyncio.get_running_loop(), b"", list[dict[str, str]]()
        async for chunk in request.stream():
            *lines, left = (left + chunk).split(b"\n")
            waiting += [orjson.loads(line) for line in lines if line]
            while len(waiting) >= BATCH:
                batch, waiting = waiting[:BATCH], waiting[BATCH:]
                await loop.run_in_executor(thread, add, batch)
                yield b"".join(orjson.dumps({"id": each["id"]}) + b"\n" for each in batch)
        if waiting:
            await loop.run_in_executor(thread, add, waiting)
            yield b"".join(orjson.dumps({"id": each["id"]}) + b"\n" for each in waiting)

    return StreamingResponse(acknowledgements(), media_type="application/x-ndjson")


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {"status": "ready"}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
