"""What `niru --help` says of itself, without a process."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from niruhybrid import cli
from niruhybrid.errors import InvalidSettingError

ROOT = cli.__dict__["_niru"]


def commands() -> Iterator[tuple[str, click.Command]]:
    yield from ROOT.commands.items()


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_each_command_has_a_short_word_and_each_option_a_long_one(name: str, command: click.Command) -> None:
    listed = CliRunner().invoke(ROOT, ["--help"]).output
    short = command.get_short_help_str(60)
    assert f"  {name}" in listed
    assert "..." not in short
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []


@pytest.mark.parametrize("name", ["backup", "serve", "query", "ingest", "stats", "top", "bench", "doctor", "worker"])
def test_examples_name_options_that_there_are(name: str) -> None:
    command = ROOT.commands[name]
    said = (command.epilog or "").split("\b\nExamples:")[1]
    known = {spelling for option in command.params for spelling in option.opts}
    assert f"niru {name}" in said
    assert {word for word in said.split() if word.startswith("--")} <= known


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--replicas 2 --store notes.db", "2 replicas are wanted, and the store belongs to one process"),
        ("--host 0.0.0.0", "there are no API keys"),
        ("--replicas 3 --max-replicas 2", "`max_replicas` is 2"),
        ("--stop", "--stop needs --address"),
    ],
)
def test_what_can_not_be_deployed_is_refused_before_a_cluster_is_asked(options: str, said: str) -> None:
    result = CliRunner().invoke(ROOT, ["deploy", "ray", *options.split()])
    assert said in result.output + str(result.exception)
    assert result.exit_code != 0
    assert isinstance(result.exception, InvalidSettingError | SystemExit)
