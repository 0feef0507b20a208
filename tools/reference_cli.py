"""The page of the command line, from the command's own options and words."""

import inspect
import re
from collections.abc import Iterator

import click

from niruhybrid import cli
from tools.markdown import code, sentence, table

__all__ = ("command", "commands_page")

_HEAD = """# Command line

Every command, as the code has it; written by `make reference`. `niru` comes with the extra `server`. An option that is
also a [setting](settings.md) wins over file and environment. `-h` or `--help` after any command shows what is here.

Exit codes: 0; 1, it could not be done, with one line on stderr that says why; 2, wrong usage; 130, Ctrl-C.
"""


def command() -> click.Group:
    """Return the command `niru`."""
    found = [value for value in vars(cli).values() if isinstance(value, click.Group) and value.name == "niru"]
    return found[0]


def commands_page() -> str:
    """Return the page of the command line as the code has it."""
    group = command()
    lines = [_HEAD, *_section("niru", group, 2)]
    for name in sorted(group.commands):
        lines += _section(f"niru {name}", group.commands[name], 2)
    return "\n".join(lines).rstrip() + "\n"


def _section(path: str, command: click.Command, level: int) -> Iterator[str]:
    yield from (f"{'#' * level} `{path}`", "", *_usage(path, command), *_prose(command))
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    if options:
        yield from table(("option", "value", "meaning"), map(_row, options))
    if isinstance(command, click.Group) and path != "niru":
        for name in sorted(command.commands):
            yield from _section(f"{path} {name}", command.commands[name], level + 1)


def _usage(path: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    yield from ("```text", " ".join((path, *command.collect_usage_pieces(context))), "```", "")


def _prose(command: click.Command) -> Iterator[str]:
    """Yield what the command says of itself; what click is told not to wrap stays as it is."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield from ("```text", paragraph.removeprefix("\b\n"), "```", "")
        elif paragraph:
            yield from (" ".join(paragraph.split()), "")


def _row(option: click.Option) -> tuple[str, str, str]:
    names = ", ".join(map(code, (*option.opts, *option.secondary_opts)))
    value = "" if option.is_flag or option.count else _value(option)
    notes = [option.help or ""]
    if option.multiple and "repeated" not in notes[0]:
        notes.append("May be repeated.")
    if option.show_default and option.default is not None and not option.is_flag:
        notes.append(f"Default: {code(str(option.default))}.")
    if isinstance(option.envvar, str):
        notes.append(f"Variable: {code(option.envvar)}.")
    return names, value, sentence(" ".join(note for note in notes if note))


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return ", ".join(code(str(choice)) for choice in option.type.choices)
    return re.sub(r" range$", "", option.metavar or option.type.name).lower()
