"""Write the pages of reference from the code, so that no setting, error, option or path in them is typed by hand.

Run by `make reference`; a test compares the pages with what this program would write.
"""

import inspect
import re
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args, get_origin, get_type_hints

from niruhybrid import errors
from niruhybrid.config import RetryPolicy
from niruhybrid.errors import NiruError
from niruhybrid.server.problems import PROBLEMS
from niruhybrid.settings import Settings
from tools.markdown import code, sentence, table
from tools.reference_cli import commands_page
from tools.reference_openapi import description_file, openapi_page

__all__ = ("PAGES", "Setting", "errors_page", "main", "settings", "settings_page")

ROOT = Path(__file__).resolve().parent.parent

_SETTINGS_HEAD = """# Settings

Every setting, as the code has it; written by `make reference`. A later source wins over an earlier one: the default, a
TOML file (`niru --config FILE`), the environment, an argument of a command or of `load_settings`.

```toml
model = "path/to/model"

[streaming]
batch_size = 32

[server]
port = 9000
allowed_hosts = ["search.example.org", "intranet"]
```

says the same as `NIRU_MODEL=path/to/model`, `NIRU_STREAMING_BATCH_SIZE=32`, `NIRU_SERVER_PORT=9000` and
`NIRU_SERVER_ALLOWED_HOSTS="search.example.org intranet"`. A setting whose entries stand between blanks or commas may be
a list in the file. A name that is not known is refused in a file or an argument, with the nearest one that is; among
the variables it is only logged. A value out of its range or of another type is refused with `InvalidSettingError`. In a
variable, an empty text or `none` is None.

In code each table is a frozen class, checked when it is made:

```python
from niruhybrid.settings import load_settings

settings = load_settings(environ={"NIRU_SERVER_PORT": "9000"}, arguments={"streaming.batch_size": 16})
print(settings.server.port, settings.streaming.batch_size, settings.store.durability)
```

```text
9000 16 process
```
"""

_ERRORS_HEAD = """# Errors

Every error, as the code has it; written by `make reference`. Each has a class in `niruhybrid.errors`, a `code`
that stays the same, and a message of the form `what happened (values): what to do`. Over HTTP an error is a problem
object (RFC 9457) with that code and the status below; how it looks there is told in [HTTP](http.md#problems).

```python
from niruhybrid import NiruError, Query

try:
    Query("q1", "tea", top_k=0)
except NiruError as err:
    print(err.code, "-", err)
```

```text
invalid_setting - `top_k` is 0: give a whole number from 1 to 1000
```

An `OverloadedError` has `retry_after`, seconds; the statuses 429 and 503 come with the header `Retry-After`.
"""

_HTTP_HEAD = """## Of HTTP alone

These codes have no class: only the server knows their causes.
"""


class Setting(NamedTuple):
    """One row of the page of settings.

    Attributes:
        name: as a file has it within its table.
        variable: the environment variable.
        default: as Python writes it.
        meaning: what the code's own documentation says.
    """

    name: str
    variable: str
    default: object
    meaning: str


def settings() -> dict[str, list[Setting]]:
    """Return all settings that files and variables can give, by the name of their table; "" for those in none."""
    everything = Settings()
    tables: dict[str, list[Setting]] = {"": []}
    meanings = _attributes(Settings)
    for outer in fields(Settings):
        value = getattr(everything, outer.name)
        if not is_dataclass(value):
            tables[""].append(_setting("", outer.name, value, meanings))
            continue
        inner = _attributes(type(value))
        hints = get_type_hints(type(value))
        for name, hint in hints.items():
            if get_origin(hint) is Literal:
                inner[name] += f" One of {', '.join(map(code, get_args(hint)))}."
        rows = ((field.name, getattr(value, field.name)) for field in fields(value))
        tables[outer.name] = [_setting(outer.name, name, each, inner) for name, each in rows if not is_dataclass(each)]
    return tables


def settings_page() -> str:
    """Return the page of settings as the code has it."""
    sections = {field.name: _attributes(Settings)[field.name] for field in fields(Settings)}
    lines = [_SETTINGS_HEAD]
    for section, rows in settings().items():
        head = f"## `[{section}]`" if section else "## In no table"
        lines += [head, "", *([sentence(sections[section]), ""] if section else [])]
        cells = ((code(row.name), code(row.variable), code(repr(row.default)), row.meaning) for row in rows)
        lines += table(("name", "variable", "default", "meaning"), cells)
    meanings = _attributes(RetryPolicy)
    lines += ["## `RetryPolicy`", "", "The field `retry` of `[streaming]` and `[generation]`; set in code only.", ""]
    policy = (
        (code(field.name), code(_shown(field.default)), sentence(meanings[field.name])) for field in fields(RetryPolicy)
    )
    lines += table(("name", "default", "meaning"), policy)
    return "\n".join(lines).rstrip() + "\n"


def errors_page() -> str:
    """Return the page of errors as the code has it."""
    classes: list[type[NiruError]] = [getattr(errors, name) for name in errors.__all__]
    tree = (inspect.getdoc(errors) or "").split("\n\n")[1]
    names = re.findall(r"\w+Error", tree)  # a few are named twice: as themselves, and as what is built in
    ordered = sorted(classes, key=lambda error: names.index(error.__name__))
    lines = [_ERRORS_HEAD, "## The tree", "", "```text", inspect.cleandoc(tree), "```", ""]
    lines += ["## Each of them", "", *table(("class", "code", "status", "cause", "remedy"), map(_error_row, ordered))]
    known = {error.code for error in classes}
    alone = ((code(name), kind.status, f"{kind.title}.") for name, kind in PROBLEMS.items() if name not in known)
    lines += [_HTTP_HEAD, *table(("code", "status", "meaning"), alone)]
    return "\n".join(lines).rstrip() + "\n"


DOCS = ROOT / "docs"
PAGES = {
    DOCS / "settings.md": settings_page,
    DOCS / "errors.md": errors_page,
    DOCS / "cli.md": commands_page,
    DOCS / "openapi.md": openapi_page,
    DOCS / "openapi.json": description_file,
}
"""What writes each page."""


def main() -> int:
    """Write all of them."""
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")
    return 0


def _setting(section: str, name: str, default: object, meanings: dict[str, str]) -> Setting:
    variable = "_".join(part.upper() for part in ("niru", section, name) if part)
    return Setting(name, variable, default, sentence(meanings[name]))


def _attributes(kind: type) -> dict[str, str]:
    """Return what a class's docstring says of each attribute."""
    found: dict[str, str] = {}
    name = ""
    text = inspect.getdoc(kind) or ""
    for line in text.partition("Attributes:\n")[2].partition("\n\n")[0].splitlines():
        if begins := re.match(r" {4}(\w+): (.+)", line):
            name, found[begins[1]] = begins[1], begins[2]
        else:
            found[name] += f" {line.strip()}"
    return found


def _error_row(error: type[NiruError]) -> tuple[object, ...]:
    cause = (inspect.getdoc(error) or "").partition("\n\n")[0]
    status = PROBLEMS[error.code].status if error.code in PROBLEMS else "none"
    return code(error.__name__), code(error.code), status, " ".join(cause.split()), _remedy(error)


def _remedy(error: type[NiruError]) -> str:
    """Return what an error's docstring advises, or that of the nearest class above it."""
    texts = (base.__doc__ or "" for base in error.__mro__)
    found = (re.search(r"^ *Remedy: (.+?)\n *(?:\n|\Z)", text, re.MULTILINE | re.DOTALL) for text in texts)
    return next(" ".join(remedy[1].split()) for remedy in found if remedy)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(each.__name__ for each in value)
    return repr(value)


if __name__ == "__main__":
    sys.exit(main())
