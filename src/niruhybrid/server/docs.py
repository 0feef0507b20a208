"""The page at /docs: the OpenAPI description as plain HTML, made here, with no script and nothing from elsewhere."""

import functools
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from niruhybrid.server.problems import PROBLEMS

__all__ = ("HEADERS", "page")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h2{border-top:1px solid #8886;padding-top:1.2rem}
code,pre{font:13px/1.45 ui-monospace,monospace}
pre{background:#8881;padding:.8rem;overflow-x:auto;border-radius:6px}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8883}
.method{font-weight:700;text-transform:uppercase}
"""


def page(document: Mapping[str, Any]) -> str:
    """Return the whole page for an OpenAPI document."""
    return "".join(_page(document))


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
    yield f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
    yield f"<p>{escape(info['description'])} Machines read <a href='/openapi.json'>/openapi.json</a>.</p>"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield from _operation(path, method, operation)
    yield "<h2>Shapes</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield f'<h3 id="{escape(name)}">{escape(name)}</h3>{_code(schema)}'
    yield from _problems()
    yield "</body></html>"


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h2><span class="method">{escape(method)}</span> <code>{escape(path)}</code></h2>'
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<h3>Body <code>{escape(media)}</code></h3>{_fields(body.get('schema', body.get('itemSchema', {})))}"
    if "parameters" in operation:
        fields = {item["name"]: item.get("schema", {"type": "object as JSON"}) for item in operation["parameters"]}
        yield f"<h3>Parameters</h3>{_fields({'properties': fields})}"
    yield "<h3>Responses</h3><table>"
    for status, answer in operation["responses"].items():
        media = ", ".join(answer.get("content", {}))
        yield f"<tr><td>{escape(status)}<td><code>{escape(media)}</code><td>{escape(answer['description'])}"
    yield "</table>"
    example = operation["responses"].get("200", {}).get("content", {}).get("text/event-stream", {}).get("example")
    if example:
        yield f"<pre>{escape(example)}</pre>"


def _fields(schema: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><td><code>{escape(name)}</code><td>{escape(_type(field))}<td>{escape(field.get('description', ''))}"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table>{''.join(rows)}</table>"


def _type(field: Mapping[str, Any]) -> str:
    kinds = [kind.get("type", "any") for kind in field.get("anyOf", [field])]
    default = f", default {json.dumps(field['default'])}" if "default" in field else ", required"
    return " or ".join(kinds) + default


@functools.cache
def _problems() -> tuple[str, ...]:
    rows = (
        f'<tr id="{escape(code)}"><td><code>{escape(code)}</code><td>{kind.status}<td>{escape(kind.title)}'
        for code, kind in PROBLEMS.items()
    )
    return ("<h2>Problems</h2><table><tr><th>code<th>status<th>meaning", *rows, "</table>")


def _code(value: object) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2))}</pre>"
