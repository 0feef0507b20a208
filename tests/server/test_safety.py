"""Who may ask, from where, how often; and what no response lacks: over a real server."""

import http.client
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import requests

from niruhybrid.config import ServerConfig
from niruhybrid.errors import InvalidSettingError
from niruhybrid.server.app import create_app
from niruhybrid.server.front import REQUEST_ID
from niruhybrid.server.logs import JsonFormatter
from niruhybrid.server.run import listen

READER, WRITER = "reader-secret-0123456789", "writer-secret-0123456789"
KEYS = f"reader:read:{READER} writer:write:{WRITER}"
ASKED = {"query": "json"}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("method", "path", "secret", "status"),
    [
        ("POST", "/query", None, 401),
        ("POST", "/query", "wrong", 401),
        ("POST", "/query", READER, 200),
        ("POST", "/query", WRITER, 403),
        ("POST", "/stream/data", READER, 403),
        ("POST", "/stream/data", WRITER, 200),
        ("DELETE", "/data/heap", READER, 403),
        ("DELETE", "/data/heap", WRITER, 200),
        ("GET", "/data/heap", WRITER, 403),
        ("GET", "/stats", None, 401),
        ("GET", "/nothing", None, 401),
        ("GET", "/healthz", None, 200),
        ("GET", "/readyz", None, 200),
        ("GET", "/docs", None, 200),
    ],
)
def test_a_key_opens_what_it_is_for(
    serving: Callable[..., Any], method: str, path: str, secret: str | None, status: int
) -> None:
    url = serving(api_keys=KEYS).url
    body = {"json": {"text": "x"}} if path == "/stream/data" else {"json": ASKED} if method == "POST" else {}
    headers = {} if secret is None else bearer(secret)
    answer = requests.request(method, url + path, headers=headers, timeout=10, json=body.get("json"))
    assert answer.status_code == status
    assert (answer.headers.get("www-authenticate") == "Bearer") == (status == 401)
    if secret is not None and status == 200:
        again = requests.request(method, url + path, headers={"X-API-Key": secret}, timeout=10, json=body.get("json"))
        assert again.status_code in {200, 404}


@pytest.mark.integration
def test_a_stream_belongs_to_its_key(serving: Callable[..., Any]) -> None:
    other = "other-secret-0123456789"
    url = serving(api_keys=f"{KEYS} other:read:{other}").url
    whole = requests.post(f"{url}/stream/query", json=ASKED, headers=bearer(READER), timeout=10).text
    last = whole.partition("\n")[0].removeprefix("id: ")
    path = f"{url}/streams/{last.partition(':')[0]}"
    assert requests.get(path, headers=bearer(READER), timeout=10).text == whole
    for headers in (bearer(other), bearer(other) | {"Last-Event-ID": last}):
        assert "event: stale" in requests.get(path, headers=headers, timeout=10).text


def test_others_can_not_reach_a_server_without_keys(tmp_path: Any) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):  # noqa: S104  # refused before anything is bound
        config = ServerConfig(host=host, port=0)
        with pytest.raises(InvalidSettingError, match="no API keys"):
            listen(config)
        with pytest.raises(InvalidSettingError, match="no API keys"):
            create_app(None, config)  # type: ignore[arg-type]  # never asked for
    keys = tmp_path / "keys"
    keys.write_text(KEYS)
    listen(ServerConfig(host="0.0.0.0", port=0, api_keys_file=str(keys))).close()  # noqa: S104  # closed at once
    with pytest.raises(InvalidSettingError, match="can't be read"):
        listen(ServerConfig(port=0, api_keys_file=str(tmp_path / "absent")))
    assert READER not in repr(ServerConfig(api_keys=KEYS))


@pytest.mark.integration
def test_each_key_has_its_rate(serving: Callable[..., Any]) -> None:
    url = serving(api_keys=f"a:read:{READER} b:read:{WRITER}", rate_limit=0.01, rate_burst=3).url
    answers = [requests.get(f"{url}/stats", headers=bearer(READER), timeout=10) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["code"] == "rate_limited"
    assert 90 <= int(answers[-1].headers["retry-after"]) <= 100
    assert requests.get(f"{url}/stats", headers=bearer(WRITER), timeout=10).status_code == 200
    assert requests.get(f"{url}/healthz", timeout=10).status_code == 200


@pytest.mark.integration
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("evil.example:80", 421),
        ("127.0.0.1.evil.example", 421),
        ("192.0.2.1", 421),
        ("localhost", 200),
        ("LOCALHOST:1234", 200),
        ("app.localhost", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:80", 200),
        ("mine.example:443", 200),
    ],
)
def test_a_page_elsewhere_can_not_come_by_a_name_of_its_own(
    serving: Callable[..., Any], host: str, status: int
) -> None:
    server = serving(allowed_hosts="mine.example")
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    connection.request("GET", "/healthz", headers={"Host": host})
    assert connection.getresponse().status == status
    connection.close()


@pytest.mark.integration
def test_pages_of_other_origins_may_not_ask_unless_they_are_named(serving: Callable[..., Any]) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    closed = serving().url
    preflight = requests.options(f"{closed}/query", headers={"Origin": "https://a.example", **ask}, timeout=10)
    assert preflight.status_code == 403
    plain = requests.get(f"{closed}/stats", headers={"Origin": "https://a.example"}, timeout=10)
    assert "access-control-allow-origin" not in plain.headers
    opened = serving(cors_origins="https://a.example, https://b.example").url
    for origin, allowed in (("https://a.example", True), ("https://c.example", False)):
        preflight = requests.options(f"{opened}/query", headers={"Origin": origin, **ask}, timeout=10)
        answer = requests.post(f"{opened}/query", json=ASKED, headers={"Origin": origin}, timeout=10)
        assert preflight.ok is allowed
        for response in (preflight, answer):
            assert (response.headers.get("access-control-allow-origin") == origin) is allowed
            assert "Origin" in response.headers["vary"]
    refused = requests.post(f"{opened}/query", json={}, headers={"Origin": "https://a.example"}, timeout=10)
    assert refused.headers["access-control-allow-origin"] == "https://a.example"  # so that the page can read why


@pytest.mark.integration
@pytest.mark.parametrize("path", ["/stats", "/stream/query?query=json", "/nothing", "/docs", "/stream/query"])
def test_every_response_has_its_headers_and_the_id_of_its_request(serving: Callable[..., Any], path: str) -> None:
    url = serving().url
    answer = requests.get(url + path, headers={"X-Request-ID": "mine-1"}, timeout=10)
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "server" not in answer.headers
    made_up = requests.get(url + path, headers={"X-Request-ID": "not ok"}, timeout=10).headers["x-request-id"]
    assert made_up != "not ok"
    assert len(made_up) == 12


@pytest.mark.integration
def test_each_request_is_logged_without_what_was_asked(
    serving: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "niruhybrid")
    server = serving(api_keys=KEYS)
    requests.get(f"{server.url}/stream/query?query=hush", headers=bearer(READER), timeout=10)
    requests.get(f"{server.url}/data/hush", headers=bearer(READER), timeout=10)
    requests.post(f"{server.url}/query", json={"query": "hush"}, headers=bearer("hush-hush-hush"), timeout=10)
    server.stop()
    assert "hush" not in caplog.text
    assert READER not in caplog.text
    said = [record.getMessage() for record in caplog.records if record.name == "niruhybrid.server.access"]
    assert [line.split(" ms=")[0] for line in said] == [
        "request method=GET path=/stream/query status=200",
        "request method=GET path=/data/{data_id:path} status=404",
        "request method=POST path= status=401",
    ]


def test_a_log_line_is_json_with_the_id_of_its_request() -> None:
    token = REQUEST_ID.set("mine-1")
    err = ValueError("inner\nlines")
    trace = (ValueError, err, None)
    record = logging.LogRecord("niruhybrid", logging.ERROR, __file__, 1, "failed code=%s", ("internal",), trace)
    line = JsonFormatter().format(record)
    REQUEST_ID.reset(token)
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["level"], fields["message"], fields["request_id"]) == ("ERROR", "failed code=internal", "mine-1")
    assert "inner" in fields["error"]
    assert "request_id" not in json.loads(JsonFormatter().format(record))


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(InvalidSettingError, match="both"):
        ServerConfig(tls_cert="cert.pem")
