"""A pipeline on Ray Serve, on two nodes: what holds of one process holds over the hop."""

from typing import Any

import pytest
import requests

from tests.cluster.reading import events
from tests.cluster.replicas import Gate
from tests.cluster.served import Served

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(180)]

URL = "/stream/query"


def ask(url: str, gate: Gate | None = None, *, tokens: int = 3, **more: Any) -> requests.Response:
    led = {} if gate is None else {"gate": list(gate.address)}
    body = {"query": "tea", "metadata": {"tokens": tokens, **led}, **more}
    return requests.post(url + URL, json=body, stream=True, timeout=30)


@pytest.fixture(scope="module")
def one(served: Served) -> Served:
    """One replica behind one HTTP server."""
    served.run(replicas=1)
    return served


def test_an_answer_comes_event_by_event(one: Served, gate: Gate) -> None:
    with ask(one.url, gate, tokens=2) as response:
        stream = events(response)
        assert next(stream).name == "sources"
        led = gate.begun()
        for number in range(2):
            led.step()
            assert next(stream).data["text"] == f"{number} "
        assert [event.name for event in stream] == ["done"]
