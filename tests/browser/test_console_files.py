"""The console's files as they are served: to anybody, with rules that keep scripts from elsewhere out."""

import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
import requests

pytestmark = pytest.mark.integration

STATIC = files("niruhybrid.server") / "static" / "console"
KEYS = "me:read:a-secret-of-16-characters"


def test_the_page_is_served_without_a_key_and_what_is_stored_is_not(serving: Callable[..., Any]) -> None:
    url = serving(api_keys=KEYS).url
    page = requests.get(url + "/", timeout=30)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    named = re.findall(r'(?:href|src)="(console/[^"]+)"', page.text)
    assert len(named) >= 4
    for name in [*named, "niru-client.js"]:
        assert requests.get(f"{url}/{name}", timeout=30).status_code == 200, name
    assert {requests.get(url + path, timeout=30).status_code for path in ("/stats", "/stats/stream", "/data/json")} == {
        401
    }


def test_nothing_from_elsewhere_and_nothing_inline_may_run(reading: str) -> None:
    page = requests.get(reading + "/", timeout=30)
    policy = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert policy["require-trusted-types-for"] == "'script'"
    assert not re.search(r"<style|style=|<script>|\son\w+=", page.text)


def test_who_has_a_file_is_told_that_it_is_the_same(reading: str) -> None:
    url = reading + "/console/main.js"
    first = requests.get(url, timeout=30)
    again = requests.get(url, headers={"If-None-Match": first.headers["etag"]}, timeout=30)
    assert (again.status_code, again.content) == (304, b"")
    assert requests.get(url, headers={"If-None-Match": '"other"'}, timeout=30).content == first.content


@pytest.mark.parametrize("path", ["nothing.js", "../niru-client.js", "%2e%2e/%2e%2e/app.py", "vendor", ""])
def test_only_the_files_of_the_console_are_served(reading: str, path: str) -> None:
    refused = requests.Request("GET", reading).prepare()
    refused.url = f"{refused.url}console/{path}"
    answer = requests.Session().send(refused, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_modules_are_small_and_name_no_other_host() -> None:
    own = [file for file in STATIC.iterdir() if file.is_file()]
    texts = {file.name: file.read_text(encoding="utf-8") for file in own}
    assert {name: len(text.splitlines()) for name, text in texts.items() if len(text.splitlines()) > 200} == {}
    hosts = {host for text in texts.values() for host in re.findall(r"https?://[^/\"'\s]+", text)}
    assert hosts <= {"http://www.w3.org"}  # the name of a format
