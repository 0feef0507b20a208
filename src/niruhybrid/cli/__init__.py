"""The command `niru`: parse, call, print."""

import errno
import importlib
import itertools
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import NoReturn, cast

from niruhybrid.errors import NiruError
from niruhybrid.settings import library_version


def _missing(err: ModuleNotFoundError) -> NoReturn:
    sys.exit(f"niru: the package {err.name!r} is missing: pip install 'niruhybrid[server]'")


try:
    import click
except ModuleNotFoundError as err:
    _missing(err)

__all__ = ("main",)

_COMMANDS = {
    "backup": "niruhybrid.cli.backup:backup",
    "bench": "niruhybrid.cli.bench:bench",
    "deploy": "niruhybrid.cli.deploy:deploy",
    "doctor": "niruhybrid.cli.doctor:doctor",
    "eval": "niruhybrid.evaluation.command:eval_command",
    "ingest": "niruhybrid.cli.ingest:ingest",
    "migrate": "niruhybrid.cli.migrate:migrate",
    "query": "niruhybrid.cli.query:query",
    "serve": "niruhybrid.cli.serve:serve",
    "stats": "niruhybrid.cli.stats:stats",
    "top": "niruhybrid.cli.top:top",
    "worker": "niruhybrid.cli.worker:worker",
}

_SIGPIPE_CODE = 141
_EXAMPLES = """
\b
Examples:
  niru serve --data notes/ --store notes.db
  niru query "How long does tea keep?" --url http://127.0.0.1:8000
  niru ingest notes/ --store notes.db

Every setting is also a variable, NIRU_SERVER_PORT say, and an entry of the file that --config names.
"""


def main() -> None:
    """Run the command; errors are one line on stderr, with exit code 1 (2 for wrong usage, 130 for Ctrl-C)."""
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # before NumPy loads: its threads would fight the encoder for the cores
    try:
        code = _niru.main(prog_name="niru", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as err:
        err.show()
        code = err.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more is said, at exit neither
        code = _SIGPIPE_CODE
    except NiruError as err:
        click.echo(f"niru: {err}", err=True)
        code = 1
    except OSError as err:
        click.echo(f"niru: {_with_file(err, sys.argv[1:])}", err=True)
        code = 1
    sys.exit(code)


def _with_file(err: OSError, words: Sequence[str]) -> str:
    """Return what an error of the system says, with the file and the option that names it, where these are known.

    Some errors do not say which file they are about. Then it is one that an option names and that can't be read.
    """
    files = _files(words)
    if err.filename is not None:
        path = str(err.filename)
        option = next((f"{option} " for option, given in files if given == path), "")
        return f"{option}{path!r}: {err.strerror}"
    unreadable = [f"{option} {path!r}" for option, path in files if not os.access(path, os.R_OK)]
    about_file = err.errno in {errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR} and unreadable
    return f"{' or '.join(unreadable)}: {err.strerror}" if about_file else str(err)


def _files(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return the options of a command line that name files, with these."""
    command: click.Command = _niru
    options = set[str]()
    for word in words:
        options |= {each for param in command.params if isinstance(param.type, click.Path) for each in param.opts}
        if isinstance(command, click.Group) and word in command.commands:
            command = command.commands[word]
    split = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    return [(option, path) for option, path in itertools.pairwise(split) if option in options]


class _Commands(Mapping[str, click.Command]):
    """The commands, each imported when it is asked for: most bring parts that the others have no use for."""

    def __getitem__(self, name: str) -> click.Command:
        module, _, command = _COMMANDS[name].partition(":")
        try:
            found: click.Command = getattr(importlib.import_module(module), command)
        except ModuleNotFoundError as err:
            _missing(err)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


_LAZY = cast("MutableMapping[str, click.Command]", _Commands())  # click adds none when it is given them


@click.group(name="niru", commands=_LAZY, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXAMPLES)
@click.version_option(library_version(), prog_name="niru")
@click.option("--config", type=click.Path(dir_okay=False), help="Settings, as a TOML file.")
@click.pass_context
def _niru(context: click.Context, config: str | None) -> None:
    """Ask, feed and serve a NiruHybrid pipeline."""
    context.obj = config
