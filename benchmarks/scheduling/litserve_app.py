"""LitServe's side of the benchmark: `python litserve_app.py SPEC PORT TIMEOUT`."""

import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])

import litserve  # noqa: E402  # after the line about sys.path
from benchmarks.scheduling.encoders import BATCH, Spec, build  # noqa: E402  # after the line about sys.path


class Api(litserve.LitAPI):
    """Texts in, vectors out."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # the contender's own part in what all are given
        """Make the encoder, in the worker's process."""
        self.encoder = build(Spec.loads(sys.argv[1]))

    def decode_request(self, request: dict[str, str]) -> str:
        """Return the text."""
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        """Return the texts as they are: an array of strings would cost more."""
        return list(inputs)

    def predict(self, x: list[str]) -> Any:
        """Return a row for each text."""
        return self.encoder.encode(x)

    def unbatch(self, output: Any) -> list[Any]:
        """Return the rows."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, list[float]]:
        """Return a row as JSON-ready values."""
        return {"vector": output.tolist()}


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=0.01)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=float(sys.argv[3]))
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error")
