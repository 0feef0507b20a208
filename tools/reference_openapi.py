"""The OpenAPI description as a file, and a page that lists what is in it; both are asked of the application itself."""

import json
from collections.abc import Iterator
from typing import Any

from starlette.testclient import TestClient

from niruhybrid.config import ServerConfig
from niruhybrid.pipeline import Pipeline
from niruhybrid.server.app import create_app
from tools.markdown import code, sentence, table

__all__ = ("description", "description_file", "openapi_page")

_HEAD = """# OpenAPI

What `/openapi.json` of a running server says: [the file](openapi.json), in OpenAPI {version}, for generators of clients
and for tests. Written by `make reference`. [HTTP](http.md) tells what it all means, with examples.
"""


def description() -> dict[str, Any]:
    """Return the description that a server with default settings gives; no pipeline is opened for it."""

    async def unopened() -> Pipeline:
        raise NotImplementedError

    app = create_app(unopened, ServerConfig())
    answer = TestClient(app, base_url="http://localhost").get("/openapi.json")
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def description_file() -> str:
    """Return the description as the text of a file."""
    return json.dumps(description(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def openapi_page() -> str:
    """Return the page of paths and shapes."""
    found = description()
    lines = [_HEAD.format(version=found["openapi"])]
    by_tag: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation.get("tags", ["other"])[0], []).append((method.upper(), path, operation))
    for tag, operations in by_tag.items():
        lines += [f"## {sentence(tag)}", ""]
        rows = ((code(f"{method} {path}"), _words(each), _statuses(each)) for method, path, each in operations)
        lines += table(("path", "does", "answers"), rows)
    lines += ["## Shapes", ""]
    for name, shape in sorted(found["components"]["schemas"].items()):
        lines += _shape(name, shape)
    return "\n".join(lines).rstrip() + "\n"


def _words(operation: dict[str, Any]) -> str:
    """Return what an operation does: its summary or, where that is but its name, how its description begins."""
    summary, description = operation["summary"], operation.get("description", "")
    return str(summary if " " in summary or not description else description.partition("\n")[0].rstrip("."))


def _statuses(operation: dict[str, Any]) -> str:
    return ", ".join(sorted(operation["responses"]))


def _shape(name: str, shape: dict[str, Any]) -> Iterator[str]:
    if not (properties := shape.get("properties")):
        return
    yield from (f"### {name}", "")
    if words := shape.get("description"):
        yield from (" ".join(words.split()), "")
    required = shape.get("required", ())
    rows = (
        (code(field), "yes" if field in required else "", _kind(kind), " ".join(kind.get("description", "").split()))
        for field, kind in properties.items()
    )
    yield from table(("field", "always", "kind", "meaning"), rows)


def _kind(kind: dict[str, Any]) -> str:
    """Return a shape in a word or a few."""
    if "$ref" in kind:
        return str(kind["$ref"]).rpartition("/")[2]
    if choices := kind.get("anyOf") or kind.get("oneOf") or kind.get("allOf"):
        return " or ".join(dict.fromkeys(map(_kind, choices)))
    if "const" in kind:
        return code(json.dumps(kind["const"]))
    if "enum" in kind:
        return ", ".join(code(json.dumps(value)) for value in kind["enum"])
    type_ = kind.get("type", "any")
    if type_ == "array":
        return f"list of {_kind(kind.get('items', {}))}"
    return " or ".join(type_) if isinstance(type_, list) else str(type_)
