"""Ours and the rivals, each behind the same few calls: `start`, `encode`, `encode_bulk`, `stop`.

Every one of them runs batches of up to 32, one at a time, and calls the encoder outside the event loop. Where one needs
a setting, it is the one that its own documentation gives, and is named in `setting`.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from benchmarks.scheduling.encoders import BATCH, Spec, build

HERE = Path(__file__).resolve().parent


class RefusedError(Exception):
    """The contender would not serve this text now."""


class Contender(Protocol):
    """What the loads ask of everyone.

    Attributes:
        setting: how it is set up, for the report.
        packages: the distributions whose versions belong in the report.
    """

    setting: str
    packages: tuple[str, ...]

    async def start(self, spec: Spec, *, deadline: float = 30.0, cache: bool = True) -> None:
        """Serve the encoder; `deadline` is what one request may take, where the contender knows such a thing."""

    async def encode(self, text: str) -> Any:
        """Return the text's vector; raises `RefusedError`, or whatever it failed with."""

    async def encode_bulk(self, text: str) -> Any:
        """Return the vector of a text that nobody waits for."""

    async def stop(self) -> None:
        """End everything that `start` began."""


class Ours:
    """`AsyncStreamProcessor`."""

    setting = "defaults, but long_text = truncate; in the fault rows hang_timeout = 0.4 s"
    packages: tuple[str, ...] = ()

    async def start(self, spec: Spec, *, deadline: float = 30.0, cache: bool = True) -> None:
        """Serve the encoder."""
        from niruhybrid.config import StreamingConfig
        from niruhybrid.errors import OverloadedError
        from niruhybrid.streaming.stream_processor import AsyncStreamProcessor

        self._refusal = OverloadedError
        self.encoder = build(spec)
        config = StreamingConfig(
            batch_size=BATCH,
            processing_timeout=deadline,
            hang_timeout=0.4 if deadline == 1.0 else 30.0,
            long_text="truncate",  # as the others do: what the model reads of a text, and one vector
            **({} if cache else {"cache_bytes": 0}),
        )
        self.processor = AsyncStreamProcessor(self.encoder, config=config)

    async def encode(self, text: str) -> Any:
        """Return the text's vector."""
        try:
            return (await self.processor.process_query("q", text)).vector
        except self._refusal as err:
            raise RefusedError(str(err)) from err

    async def encode_bulk(self, text: str) -> Any:
        """Return the vector of a text that nobody waits for."""
        try:
            return (await self.processor.process_data("d", text)).vector
        except self._refusal as err:
            raise RefusedError(str(err)) from err

    async def stop(self) -> None:
        """End everything that `start` began."""
        self.encoder.release.set()
        await self.processor.aclose()


class Batched:
    """`batched.aio.dynamically`, documents at its lower priority."""

    setting = "batch_size=32, PriorityStrategy.PRIORITY, the rest defaults (timeout_ms=5)"
    packages = ("batched",)

    async def start(self, spec: Spec, *, deadline: float = 30.0, cache: bool = True) -> None:  # noqa: ARG002  # the contender's own part in what all are given
        """Serve the encoder."""
        import batched.aio
        from batched.types import PriorityStrategy

        self.encoder = build(spec)
        self._low: list[tuple[str, asyncio.Future[Any]]] = []
        self._call = batched.aio.dynamically(
            self._encode, batch_size=BATCH, priority_strategy=PriorityStrategy.PRIORITY
        )

    def _encode(self, texts: list[str]) -> list[Any]:
        return list(self.encoder.encode(texts))

    async def encode(self, text: str) -> Any:
        """Return the text's vector."""
        return await self._call(text)

    async def encode_bulk(self, text: str) -> Any:
        """Hand documents in together: only lists of more than 8 get the lower priority."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._low.append((text, future))
        if len(self._low) == 1:
            asyncio.get_running_loop().call_soon(self._hand_in)
        return await future

    def _hand_in(self) -> None:
        documents, self._low = self._low, []
        self._task = asyncio.create_task(self._bulk(documents))

    async def _bulk(self, documents: list[tuple[str, "asyncio.Future[Any]"]]) -> None:
        for (_, future), vector in zip(documents, await self._call([text for text, _ in documents]), strict=True):
            if not future.done():
                future.set_result(vector)

    async def stop(self) -> None:
        """End everything that `start` began."""
        self.encoder.release.set()
        task = getattr(self._call, "_task", None)
        if task is not None:
            task.cancel()


class BentoML:
    """BentoML's `CorkDispatcher`, as its server uses it: one for a method, the method in a thread."""

    setting = "max_batch_size=32; max_latency_ms is the load's deadline, else 60000, its default"
    packages = ("bentoml",)

    async def start(self, spec: Spec, *, deadline: float = 30.0, cache: bool = True) -> None:  # noqa: ARG002  # the contender's own part in what all are given
        """Serve the encoder."""
        from bentoml._internal.marshal.dispatcher import CorkDispatcher

        self.encoder = build(spec)
        latency = 60_000 if deadline >= 30.0 else int(deadline * 1000)
        self._dispatcher: Any = CorkDispatcher(latency, BATCH, fallback=lambda: None, get_batch_size=lambda _: 1)
        self._call = self._dispatcher(self._encode)

    async def _encode(self, texts: Sequence[str]) -> list[Any]:
        return list(await asyncio.to_thread(self.encoder.encode, list(texts)))

    async def encode(self, text: str) -> Any:
        """Return the text's vector."""
        vector = await self._call(text)
        if vector is None:
            raise RefusedError("its fallback")
        return vector

    encode_bulk = encode

    async def stop(self) -> None:
        """End everything that `start` began."""
        self.encoder.release.set()
        self._dispatcher.shutdown()


class LitServe:
    """LitServe over HTTP on loopback, for it has no other way in; keep-alive connections, no client library."""

    setting = "HTTP; max_batch_size=32, batch_timeout=0.01, one worker, timeout = the load's deadline"
    packages = ("litserve",)

    async def start(self, spec: Spec, *, deadline: float = 30.0, cache: bool = True) -> None:  # noqa: ARG002  # the contender's own part in what all are given
        """Serve the encoder."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        command = (sys.executable, HERE / "litserve_app.py", spec.dumps(), str(self._port), str(deadline))
        self._process = await asyncio.to_thread(
            subprocess.Popen, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError, RefusedError, asyncio.IncompleteReadError):
                await self._request("GET", "/health", b"")
                return
            await asyncio.sleep(0.1)
        raise TimeoutError("LitServe did not come up within 60 s")

    async def _request(self, method: str, path: str, body: bytes) -> bytes:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        kept = False
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = answer.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]
            content = await reader.readexactly(int(length))
            kept = True
        finally:
            if kept:
                self._idle.append((reader, writer))
            else:
                writer.close()
        status = answer[9:12]
        if status == b"503" or (status != b"200" and path == "/health"):
            raise RefusedError(content.decode())
        if status != b"200":
            raise RuntimeError(f"{status.decode()} {content.decode()[:80]}")
        return content

    async def encode(self, text: str) -> Any:
        """Return the text's vector."""
        answer = json.loads(await self._request("POST", "/predict", json.dumps({"text": text}).encode()))
        return np.array(answer["vector"], np.float32)

    encode_bulk = encode

    async def stop(self) -> None:
        """End everything that `start` began."""
        for _, writer in self._idle:
            writer.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 15)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, 3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        await asyncio.to_thread(self._process.wait, 10)


class RayServe:
    """`@serve.batch` in one replica, called through its in-process `DeploymentHandle`."""

    setting = "DeploymentHandle; max_batch_size=32, batch_wait_timeout_s=0.01 (default), max_ongoing_requests=20000"
    packages = ("ray",)

    async def start(self, spec: Spec, *, deadline: float = 30.0, cache: bool = True) -> None:  # noqa: ARG002  # the contender's own part in what all are given
        """Serve the encoder."""
        await asyncio.to_thread(self._start, spec)

    def _start(self, spec: Spec) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        import ray
        from ray import serve

        if not ray.is_initialized():
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
            serve.start(proxy_location="Disabled")

        @serve.deployment(
            max_ongoing_requests=20_000,
            ray_actor_options={"num_cpus": 0},
            graceful_shutdown_timeout_s=0.5,
            logging_config={"log_level": "ERROR"},
        )
        class Replica:
            def __init__(self, given: Spec) -> None:
                self.encoder = build(given)

            @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.01)
            async def batch(self, texts: list[str]) -> list[Any]:
                return list(await asyncio.to_thread(self.encoder.encode, texts))

            async def __call__(self, text: str) -> Any:
                return await self.batch(text)  # type: ignore[call-arg,arg-type]  # the decorator makes one of many

        self._handle: Any = serve.run(Replica.bind(spec), name="bench", route_prefix=None)  # type: ignore[attr-defined]

    async def encode(self, text: str) -> Any:
        """Return the text's vector."""
        response = self._handle.remote(text)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise

    encode_bulk = encode

    async def stop(self) -> None:
        """End everything that `start` began."""
        from ray import serve

        await asyncio.to_thread(serve.delete, "bench")


CONTENDERS: dict[str, type[Contender]] = {
    "niruhybrid": Ours,
    "batched": Batched,
    "bentoml": BentoML,
    "litserve": LitServe,
    "ray": RayServe,
}
