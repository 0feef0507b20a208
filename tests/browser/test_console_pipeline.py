"""The pipeline as the console draws it: from the server's own counters, while they change."""

from typing import Any

import pytest
import requests

pytestmark = [pytest.mark.integration, pytest.mark.slow]

KEY = "a-secret-of-16-characters"


def test_what_happens_is_drawn_while_it_happens(serving: Any, visit: Any) -> None:
    url = serving().url
    console = visit(url)
    console.expect("#health", "Ready")
    console.expect("#documents", "3 documents")
    console.expect("#box-store", "3")
    assert console.page.locator("#charts canvas").count() == 6
    console.ask("Which module is a priority queue?")
    console.expect("#box-answers", "1 done")
    refused = requests.post(url + "/query", json={"query": "lanes", "timeout": 1e-9}, timeout=30)
    console.expect("#losses", "1 item refused, dropped or failed")
    assert refused.status_code in {503, 504}
    assert console.page.locator("#losses code").count() == 1
    console.expect("#charts figure:nth-child(2) .queries b", "0")
    console.snapshot("pipeline")


def test_a_server_that_ends_is_said_to_be_away(serving: Any, visit: Any) -> None:
    server = serving()
    console = visit(server.url)
    console.expected.append("ERR_")
    console.expect("#health", "Ready")
    server.stop()
    console.expect("#health", "Not reachable, trying again")
    assert console.page.locator("#pipeline").get_attribute("data-stale") is not None
    console.snapshot("away")


def test_counters_need_a_key_where_the_server_has_keys(serving: Any, visit: Any) -> None:
    console = visit(serving(api_keys=f"me:read:{KEY}").url)
    console.expected.append("401")
    console.expect("#health", "API key needed")
    console.expect("#pipeline .problem", "This server needs an API key")
    console.page.get_by_role("button", name="API key", exact=True).click()
    console.page.get_by_label("Key", exact=True).fill(KEY)
    console.page.keyboard.press("Enter")
    console.expect("#health", "Ready")
    assert console.page.locator("#pipeline .problem").count() == 0


def test_the_arithmetic_of_rates(reading: str, visit: Any) -> None:
    console = visit(reading)
    found = console.page.evaluate("""async () => {
      const { percentile, between, reasons } = await import("/console/rates.js");
      const was = { bounds: [1, 2, 4], counts: [5, 0, 0, 0] };
      const seconds = (counts) => ({ bounds: [1, 2, 4], counts });
      const lane = (offered, batches, items, rejected) => ({
        offered, delivered: offered, rejected, dropped: {}, failed: {},
        wait: seconds([offered, 0, 0, 0]), batch: { batches, items, encode: seconds([batches, 0, 0, 0]) } });
      const look = (at, ...values) => ({ at, processor: { interactive: lane(...values), bulk: lane(0, 0, 0, {}) } });
      const [before, now] = [look(10, 4, 1, 4, {}), look(12, 24, 3, 24, { queue_full: 6 })];
      return {
        half: percentile(was, seconds([5, 10, 0, 0]), 0.5),
        most: percentile(was, seconds([9, 0, 4, 0]), 0.75),
        beyond: percentile(was, seconds([5, 0, 0, 3]), 0.95),
        nothing: percentile(was, was, 0.95),
        rates: between(before, now).interactive,
        idle: between(before, now).bulk,
        backwards: between(now, before),
        restarted: between(now, look(13, 1, 0, 0, {})),
        reasons: reasons([lane(0, 0, 0, { a: 1, b: 5 }), lane(0, 0, 0, { a: 1, c: 0 })]),
      };
    }""")
    rates = found.pop("rates")
    idle = found.pop("idle")
    assert found == {
        "half": 1.5,
        "most": 3.0,
        "beyond": 4,
        "nothing": None,
        "backwards": None,
        "restarted": None,
        "reasons": [["b", 5], ["a", 2]],
    }
    assert (rates["arrived"], rates["batch"], rates["lost"]) == (10, 10, 3)
    assert (idle["arrived"], idle["batch"], idle["encode"], idle["wait"]) == (0, None, None, None)


def test_nobody_is_kept_out(reading: str, visit: Any, axe: str) -> None:
    console = visit(reading)
    console.expect("#health", "Ready")
    console.ask("Which module is a priority queue?")
    console.expect_done()
    console.page.get_by_role("button", name="Source 1").click()
    console.page.evaluate(axe)
    for width, scheme in ((390, "light"), (1760, "dark")):
        console.page.set_viewport_size({"width": width, "height": 900})
        console.page.emulate_media(color_scheme=scheme)
        found = console.page.evaluate("axe.run(document)")
        serious = [rule for rule in found["violations"] if rule["impact"] in {"serious", "critical"}]
        assert [(width, scheme, rule["id"], [node["html"] for node in rule["nodes"]]) for rule in serious] == []
        assert console.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        console.snapshot(f"whole-{width}-{scheme}")
