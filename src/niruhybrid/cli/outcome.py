"""What became of the documents of a command: a summary on screen, all failures in a file, an error if there are any."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import click
import orjson

if TYPE_CHECKING:
    from niruhybrid.corpus.files import BadSource
    from niruhybrid.ingest import Failure, IngestReport

__all__ = ("Outcome", "failures_option", "summed_up")

_SHOWN = 5


def failures_option(command: Any) -> Any:
    """Add `--failures`."""
    words = "List documents that failed here, one JSON object a line; without it a temporary file is made."
    return click.option("--failures", metavar="FILE", type=click.Path(dir_okay=False), help=words)(command)


class Outcome:
    """Counts documents, shows the first failures, and lists all of them in a file. Use it in `with`.

    Each line of the file is a JSON object with `id`, `path`, `line`, `code` and `reason`; what is not known is null.

    Args:
        path: of the file, which is replaced; None makes a temporary one at the first failure.

    Raises:
        ClickException: the file can't be written.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()  # files are read in one thread, and results come in another
        self._shown: list[str] = []
        self._stored = self._unchanged = self._failed = 0
        if path is not None:
            try:
                self._file = Path(path).open("wb")  # noqa: SIM115  # closed by `close`
            except OSError as err:
                raise click.ClickException(
                    f"--failures {path!r} can't be written ({err.strerror}): choose another"
                ) from err

    @property
    def failed(self) -> int:
        """Documents that were not stored, and files and lines that could not be read."""
        return self._failed

    @property
    def failures(self) -> str:
        """How many failed, and where they are listed."""
        total = self._stored + self._unchanged + self._failed
        where = f": see {self._path}" if self._file is not None else ", as listed above"
        return f"{self._failed:,} of {total:,} documents failed{where}"

    @property
    def is_empty(self) -> bool:
        """Whether there was not one document."""
        return not (self._stored or self._unchanged or self._failed)

    def __str__(self) -> str:
        return f"{self._stored:,} stored, {self._unchanged:,} unchanged, {self._failed:,} failed"

    def progressed(self, report: "IngestReport") -> None:
        """Note how many documents are stored and unchanged so far."""
        self._stored, self._unchanged = report.stored, report.unchanged

    def add(self, failure: "Failure") -> None:
        """Note a document that was not stored."""
        self._add({name: getattr(failure, name) for name in ("id", "path", "line", "code", "reason")}, f"{failure}")

    def add_source(self, source: "BadSource") -> None:
        """Note a file, or a line of one, that can't be read."""
        error = source.error
        place = {"id": None, "path": str(source.path), "line": source.line}
        self._add({**place, "code": error.code, "reason": str(error)}, str(source))

    def show_failures(self) -> None:
        """Show the first failures on stderr."""
        for line in self._shown:
            click.echo(f"not stored: {line}", err=True)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and not self._file.closed:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, fields: dict[str, Any], line: str) -> None:
        with self._lock:
            self._failed += 1
            listed = self._listed(orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE))
            if not listed or len(self._shown) < _SHOWN:
                self._shown.append(line)

    def _listed(self, line: bytes) -> bool:
        """Write a line to the file; return whether that worked, and show all failures if it did not."""
        try:
            if self._path is None:
                descriptor, self._path = tempfile.mkstemp(prefix="niru-failures-", suffix=".jsonl")
                self._file = os.fdopen(descriptor, "wb")
            if self._file is None:
                return False
            self._file.write(line)
            self._file.flush()
        except OSError as err:
            click.echo(f"failures can't be written to {self._path} ({err.strerror}): they are shown instead", err=True)
            self._path, self._file = self._path or "", None
            return False
        return True


@contextmanager
def summed_up(failures: str | None) -> Iterator[Outcome]:
    """Say what became of all documents at the end, also after Ctrl-C or an error.

    Args:
        failures: the file that lists the failures; None for a temporary one.

    Raises:
        ClickException: a document failed, or there was none.
    """
    with Outcome(failures) as outcome:
        try:
            yield outcome
        except KeyboardInterrupt:
            _say(outcome)
            click.echo("stopped before the end: run the same command again to go on", err=True)
            raise
        except BaseException:
            _say(outcome)
            raise
        outcome.show_failures()
        click.echo(str(outcome))
    if outcome.failed:
        raise click.ClickException(outcome.failures)
    if outcome.is_empty:
        raise click.ClickException("nothing was stored: check the paths")


def _say(outcome: Outcome) -> None:
    """Say what was done before an interruption, if anything was."""
    if outcome.is_empty:
        return
    outcome.show_failures()
    click.echo(str(outcome))
    if outcome.failed:
        click.echo(outcome.failures, err=True)
