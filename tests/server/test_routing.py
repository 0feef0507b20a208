"""The short way to a path: the same answers and the same protections as the long one."""

import asyncio
from typing import Any

import orjson
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from niruhybrid.errors import InvalidTextError
from niruhybrid.server.app import create_app
from niruhybrid.server.routing import LeanRoute, answered, straight


def asked(app: ASGIApp, method: str, path: str, *headers: tuple[bytes, bytes]) -> tuple[int, dict[str, str], Any]:
    """Return status, headers and body of what an application answers."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": list(headers),
    }
    asyncio.run(_called(app, scope, receive, send))
    sent = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return messages[0]["status"], sent, orjson.loads(b"".join(each.get("body", b"") for each in messages[1:]))


async def _called(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def unopened() -> FastAPI:
    async def opened() -> Any:
        raise AssertionError("it is not to be opened")

    return create_app(opened)


@pytest.mark.parametrize(("method", "path"), [("POST", "/stream/query"), ("GET", "/data/x"), ("GET", "/stats")])
def test_every_way_leads_past_what_the_user_has_put_before_it(method: str, path: str) -> None:
    seen = []

    class Spy:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["path"])
            await self.app(scope, receive, send)

    app = unopened()
    app.add_middleware(Spy)
    _, headers, _ = asked(app, method, path)
    assert seen == [path]
    assert headers["x-request-id"]
    assert headers["x-frame-options"] == "DENY"


def test_a_name_that_is_not_ours_is_refused_on_every_way() -> None:
    for path in ("/stats", "/healthz", "/data/x"):
        status, _, problem = asked(unopened(), "GET", path, (b"host", b"elsewhere.example"))
        assert (status, problem["code"]) == (421, "misdirected_request")


def test_another_method_on_a_straight_path_is_told_which_there_are() -> None:
    status, headers, problem = asked(unopened(), "DELETE", "/stream/query")
    assert (status, problem["code"], headers["allow"]) == (405, "method_not_allowed", "GET, POST")


@pytest.mark.parametrize(
    ("raised", "status", "code"), [(KeyError("secret"), 500, "internal"), (InvalidTextError("no"), 422, "invalid_text")]
)
def test_whatever_an_endpoint_raises_is_a_problem(raised: Exception, status: int, code: str) -> None:
    async def endpoint(_request: Request) -> Response:
        raise raised

    found, _, problem = asked(LeanRoute("/x", endpoint, methods=["GET"]).served(), "GET", "/x")
    assert (found, problem["code"]) == (status, code)
    assert "secret" not in str(problem)


def test_only_lean_routes_without_parameters_have_a_straight_way() -> None:
    async def endpoint(_request: Request) -> Response:
        return answered({})

    app = FastAPI()
    app.router.routes = [
        LeanRoute("/x", endpoint, methods=["GET", "POST"]),
        LeanRoute("/x/{name}", endpoint, methods=["GET"]),
    ]
    app.add_api_route("/y", endpoint)
    assert set(straight(app.routes)) == {("GET", "/x"), ("POST", "/x")}
