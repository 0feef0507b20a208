"""The same query on mosec as it is shipped: a worker that is given batches of up to 32, other settings untouched.

python usual_mosec.py --port PORT
"""

import os
from typing import Any

import usual
from mosec import Server, Worker

BATCH = 32


class Answerer(Worker):
    """Encodes a batch, searches, answers."""

    def __init__(self) -> None:
        self._encode = usual.encoder(os.environ["LOAD_ENCODER"])
        self._index = usual.Index.from_environment()

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = self._index.search(self._encode([each["query"] for each in data]), data[0]["top_k"])
        return [self._answered(each["query"], hits) for each, hits in zip(data, found, strict=True)]

    def _answered(self, question: str, hits: list[Any]) -> dict[str, Any]:
        text = "".join(piece["text"] for piece in usual.answer(question, hits))
        return {"hits": [hit.to_dict() for hit in hits], "answer": text}


class Embedder(Worker):
    """Encodes a batch and does nothing else."""

    def __init__(self) -> None:
        self._encode = usual.encoder(os.environ["LOAD_ENCODER"])

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"hits": row.tolist()} for row in self._encode([each["query"] for each in data])]


if __name__ == "__main__":
    server = Server()
    server.append_worker({"answer": Answerer, "embed": Embedder}[os.environ["LOAD_WORK"]], max_batch_size=BATCH)
    server.run()
