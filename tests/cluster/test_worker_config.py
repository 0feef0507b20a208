from typing import Any

import pytest

from niruhybrid.cluster_config import WorkerConfig
from niruhybrid.errors import InvalidSettingError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("url", ""),
        ("url", "http://127.0.0.1:4222"),
        ("url", "nats://"),
        ("url", "nats://a:4222, b:4222"),
        ("url", 4222),
        ("stream", "a.b"),
        ("stream", ""),
        ("group", "*"),
        ("prefix", "a..b"),
        ("prefix", "a.>"),
        ("in_flight", 0),
        ("in_flight", 4097),
        ("ack_wait", 0.5),
        ("max_deliveries", 0),
        ("drain", -1.0),
        ("max_queries", 0),
        ("max_query_chars", 0),
        ("max_subscribers", -1),
        ("lease", 0.0),
    ],
)
def test_what_a_worker_cannot_use_is_refused_with_its_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidSettingError, match=f"`{name}`"):
        WorkerConfig(**{name: value})


def test_what_a_worker_can_use_is_taken() -> None:
    assert WorkerConfig("nats://a:4222 tls://b:4223,wss://c", prefix="shop.niru_1", stream="NIRU-1").in_flight == 256


def test_the_secret_of_an_address_is_shown_nowhere() -> None:
    assert "pass" not in repr(WorkerConfig("nats://user:pass@host:4222"))
    with pytest.raises(InvalidSettingError) as refused:
        WorkerConfig("http://user:pass@host:4222")
    assert "pass" not in str(refused.value)
