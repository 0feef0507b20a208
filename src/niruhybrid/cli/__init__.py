"""The command `niru`: parse, call, print."""

import os
import sys

from niruhybrid.errors import NiruError
from niruhybrid.settings import library_version

try:
    import click

    from niruhybrid.cli.bench import bench
    from niruhybrid.cli.deploy import deploy
    from niruhybrid.cli.doctor import doctor
    from niruhybrid.cli.ingest import ingest
    from niruhybrid.cli.query import query
    from niruhybrid.cli.serve import serve
    from niruhybrid.cli.stats import stats
    from niruhybrid.cli.top import top
    from niruhybrid.evaluation.command import eval_command
except ModuleNotFoundError as err:
    sys.exit(f"niru: the package {err.name!r} is missing: pip install 'niruhybrid[server]'")

__all__ = ("main",)

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
    except (NiruError, OSError) as err:
        click.echo(f"niru: {err}", err=True)
        code = 1
    sys.exit(code)


@click.group(name="niru", context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXAMPLES)
@click.version_option(library_version(), prog_name="niru")
@click.option("--config", type=click.Path(dir_okay=False), help="Settings, as a TOML file.")
@click.pass_context
def _niru(context: click.Context, config: str | None) -> None:
    """Ask, feed and serve a NiruHybrid pipeline."""
    context.obj = config


for _command in (serve, query, ingest, stats, top, bench, doctor, eval_command, deploy):
    _niru.add_command(_command)
