"""What the doctor says of machines and settings that are well, and of those that are not."""

import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from niruhybrid.config import GenerationConfig, ServerConfig, StoreConfig
from niruhybrid.doctor import Finding, examine
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.settings import Settings
from tests.servers.postgres import PostgresServer

NO_MODEL = "/absent/model"


def findings(settings: Settings) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(settings)}


@pytest.mark.slow
def test_all_is_well_with_the_defaults_and_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    EmbeddedStore(path).close()
    found = findings(Settings(store=StoreConfig(path=str(path)), server=ServerConfig(port=0)))
    assert [finding.subject for finding in found.values() if finding.verdict == "wrong"] == []
    assert "checksum" in found["model"].detail
    assert "0 documents" in found["store"].detail
    assert set(found) == {"version", "cpu", "model", "store", "disk", "answers", "address", "descriptors"}


def test_each_thing_that_is_wrong_is_said_with_a_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, EmbeddedStore(tmp_path / "open.db"):
        found = findings(
            Settings(
                model=NO_MODEL,
                store=StoreConfig(path=str(tmp_path / "open.db")),
                server=ServerConfig(port=taken.getsockname()[1], max_streams=100_000, max_subscribers=100_000),
            )
        )
    wrong = {finding.subject for finding in found.values() if finding.verdict == "wrong"}
    assert wrong == {"model", "store", "address"}
    assert all(": " in found[subject].detail for subject in wrong)


def test_a_server_for_others_without_keys_is_wrong() -> None:
    found = findings(Settings(model=NO_MODEL, server=ServerConfig(host="0.0.0.0", port=0)))  # noqa: S104  # never bound
    assert found["address"].verdict == "wrong"
    assert "API keys" in found["address"].detail
    assert found["store"].verdict == "warning"


def test_a_store_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    settings = Settings(model=NO_MODEL, store=StoreConfig(path=str(tmp_path / "new.db")), server=ServerConfig(port=0))
    assert findings(settings)["store"].verdict == "well"
    assert not list(tmp_path.iterdir())


def test_the_endpoint_that_answers_is_looked_for() -> None:
    pytest.importorskip("openai", reason="needs the extra `openai`")
    with socket.create_server(("127.0.0.1", 0)) as endpoint:
        config = GenerationConfig(base_url=f"http://127.0.0.1:{endpoint.getsockname()[1]}/v1", model="m")
        well = findings(Settings(model=NO_MODEL, generation=config, server=ServerConfig(port=0)))["answers"]
    absent = findings(Settings(model=NO_MODEL, generation=config, server=ServerConfig(port=0)))["answers"]
    keyless = GenerationConfig(base_url=config.base_url, model="m", api_key_env="NIRU_TEST_ABSENT_KEY")
    unset = findings(Settings(model=NO_MODEL, generation=keyless, server=ServerConfig(port=0)))["answers"]
    assert (well.verdict, absent.verdict, unset.verdict) == ("well", "wrong", "wrong")
    assert "m at http://127.0.0.1:" in well.detail
    assert "NIRU_TEST_ABSENT_KEY" in unset.detail


def test_a_password_of_the_endpoint_is_never_shown() -> None:
    pytest.importorskip("openai", reason="needs the extra `openai`")
    with socket.create_server(("127.0.0.1", 0)) as endpoint:
        config = GenerationConfig(base_url=f"http://me:s3cret@127.0.0.1:{endpoint.getsockname()[1]}/v1", model="m")
        well = findings(Settings(model=NO_MODEL, generation=config, server=ServerConfig(port=0)))["answers"]
    absent = findings(Settings(model=NO_MODEL, generation=config, server=ServerConfig(port=0)))["answers"]
    assert (well.verdict, absent.verdict) == ("well", "wrong")
    assert "http://127.0.0.1:" in well.detail
    assert "s3cret" not in f"{well} {absent}"


@pytest.mark.integration
@pytest.mark.slow
def test_a_system_without_limits_of_files_is_no_fault() -> None:
    program = """
import sys
sys.modules["resource"] = None  # as on Windows
from niruhybrid.doctor import examine
from niruhybrid.config import ServerConfig
from niruhybrid.settings import Settings
settings = Settings(model="/absent/model", server=ServerConfig(port=0))
print(*(finding.verdict for finding in examine(settings) if finding.subject == "descriptors"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "well\n"


@pytest.mark.integration
def test_a_store_on_a_server_is_looked_at_and_not_made(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database().replace("postgres@", "postgres:s3cret@")
    settings = Settings(model=NO_MODEL, store=StoreConfig(path=url), server=ServerConfig(port=0))
    found = findings(settings)
    assert found["store"].verdict == "warning"  # this server does not wait for its disk
    assert "pgvector 0." in found["store"].detail
    assert "`fsync`" in found["store"].detail
    assert found["disk"].detail == "the store is on a server: see its own disk"
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'niru'").fetchone() == (0,)
    away = findings(Settings(model=NO_MODEL, store=StoreConfig(path="postgresql://me:s3cret@127.0.0.1:1/db")))
    assert away["store"].verdict == "wrong"
    assert "can't be reached" in away["store"].detail
    assert "s3cret" not in f"{found} {away}"
