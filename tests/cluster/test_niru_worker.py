"""The command `niru worker` as people run it, with the real model and a real server."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
import orjson
import pytest
from nats.js.api import RetentionPolicy

from niruhybrid.cluster.nats import NatsBroker
from niruhybrid.cluster.subjects import data_subject
from niruhybrid.cluster_config import WorkerConfig
from niruhybrid.errors import InvalidInputError, InvalidSettingError, UnreachableError
from tests.servers.cheap_worker import STARTED
from tests.servers.nats import NatsServer

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(180)]

NIRU = str(Path(sys.executable).parent / "niru")
ROOT = Path(__file__).parents[2]
WAIT = 60.0  # seconds for what takes a few where nothing else runs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with NatsServer(tmp_path_factory.mktemp("nats")) as running:
        yield running


def niru(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (NIRU, *words), capture_output=True, text=True, check=False, timeout=WAIT, env=os.environ | variables
    )


async def used(url: str) -> dict[str, Any]:
    """Feed and ask a worker, and return what it said."""
    client = await nats.connect(url)
    try:
        told = await client.subscribe("told")
        document = {"id": "tea", "text": "Green tea is brewed at about 80 degrees."}
        headers = {"Niru-Reply-To": "told"}
        await client.jetstream().publish(data_subject("niru", "tea"), orjson.dumps(document), headers=headers)
        result = orjson.loads((await told.next_msg(WAIT)).data)
        asked = {"query": "At how many degrees is green tea brewed?", "top_k": 1, "min_watermark": result["watermark"]}
        answer = await client.request("niru.query", orjson.dumps(asked), timeout=WAIT)
        return {"result": result, "answer": orjson.loads(answer.data)}
    finally:
        await client.close()


@contextmanager
def running(*command: str) -> "Iterator[subprocess.Popen[str]]":
    """Run a worker until the end of the block; one that was not told to stop by then is killed."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_it_takes_data_and_queries_tells_how_it_is_and_ends_well(server: NatsServer, tmp_path: Path) -> None:
    with running(NIRU, "worker", "--broker", server.url, "--store", str(tmp_path / "store.db")) as process:
        assert process.stdout is not None
        assert "opens" in process.stdout.readline()
        assert "ready with 0 documents" in process.stdout.readline()
        said = asyncio.run(used(server.url))
        assert said["answer"]["hits"][0]["id"] == "tea"
        assert "80 degrees" in said["answer"]["answer"]
        well = niru("worker", "--check", "--broker", server.url)
        assert (well.returncode, orjson.loads(well.stdout)["acknowledged"]) == (0, 1), well.stderr
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=WAIT)
        assert process.returncode == 0, log
    assert "worker_stopped" in log
    ill = niru("worker", "--check", NIRU_WORKER_URL=server.url)
    assert (ill.returncode, ill.stdout) == (1, "")
    assert len(ill.stderr.splitlines()) == 1


def test_a_broker_that_cannot_be_reached_is_given_up_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with NatsBroker(WorkerConfig("nats://user:secret@127.0.0.1:1"), patience=0.2):
            pass

    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1 .*check `url`") as refused:
        asyncio.run(main())
    assert "secret" not in str(refused.value) + caplog.text


def test_a_worker_ends_well_while_nats_is_away(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats") as server:
        command = (sys.executable, "-m", "tests.servers.cheap_worker", server.url, str(tmp_path / "store.db"))
        with running(*command) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == STARTED
            server.kill()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=15)
            assert process.returncode == 0


def test_a_message_too_long_for_a_dead_letter_leaves_its_reason(server: NatsServer) -> None:
    async def main() -> None:
        client = await nats.connect(server.url)
        try:
            async with NatsBroker(WorkerConfig(server.url, stream="long", prefix="long")) as broker:
                await client.jetstream().publish("long.data", b"x" * client.max_payload)
                [message] = await broker.pull(1)
                await broker.bury(message, {"Niru-Reason": "invalid_input"})
            letter = await client.jetstream().get_msg("long-dead", 1)
            headers = letter.headers or {}
            assert (letter.data or b"", headers["Niru-Reason"]) == (b"", "invalid_input")
            assert headers["Niru-Left-Out"] == str(client.max_payload)
        finally:
            await client.close()

    asyncio.run(main())


def test_a_pull_goes_on_as_soon_as_nats_is_back(tmp_path: Path) -> None:
    async def main(server: NatsServer) -> None:
        async with NatsBroker(WorkerConfig(server.url)) as broker:
            pulling = asyncio.ensure_future(broker.pull(5))
            await asyncio.wait({pulling}, timeout=0.1)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            client = await nats.connect(server.url)
            try:
                await client.jetstream().publish("niru.data", b"news")
                async with asyncio.timeout(6):
                    assert [message.data for message in await pulling] == [b"news"]
            finally:
                await client.close()

    with NatsServer(tmp_path / "nats") as server:
        asyncio.run(main(server))


@pytest.mark.parametrize("subject", ["$JS.API.STREAM.PURGE.niru", "$SYS.REQ"])
def test_nobody_has_a_worker_speak_to_nats_itself(server: NatsServer, subject: str) -> None:
    async def main() -> None:
        async with NatsBroker(WorkerConfig(server.url)) as broker:
            await broker.publish(subject, b"{}")

    with pytest.raises(InvalidInputError, match="one of NATS itself"):
        asyncio.run(main())


def test_a_stream_that_forgets_what_is_acknowledged_is_refused(server: NatsServer) -> None:
    async def main() -> None:
        client = await nats.connect(server.url)
        try:
            await client.jetstream().add_stream(
                name="work", subjects=["work.data.>"], retention=RetentionPolicy.WORK_QUEUE
            )
            async with NatsBroker(WorkerConfig(server.url, stream="work", prefix="work")):
                pass
        finally:
            await client.close()

    with pytest.raises(InvalidSettingError, match="`limits`"):
        asyncio.run(main())


def test_a_group_that_is_removed_is_made_again(server: NatsServer) -> None:
    async def main() -> None:
        client = await nats.connect(server.url)
        try:
            async with NatsBroker(WorkerConfig(server.url, stream="gone", prefix="gone")) as broker:
                pulling = asyncio.ensure_future(broker.pull(5))
                await asyncio.wait({pulling}, timeout=0.1)
                await client.jetstream().delete_stream("gone")
                async with asyncio.timeout(WAIT):
                    while True:
                        try:
                            await client.jetstream().publish("gone.data", b"again")
                        except Exception:  # noqa: BLE001, S112  # until the stream is there
                            continue
                        break
                    assert [message.data for message in await pulling] == [b"again"]
        finally:
            await client.close()

    asyncio.run(main())
