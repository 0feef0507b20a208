"""API keys and rates, as pure decisions."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.errors import InvalidSettingError
from niruhybrid.server.auth import TokenBucket, find_key, parse_keys

SECRET = "correct-horse-battery"  # noqa: S105  # of nobody


def test_keys_are_read_with_names_scopes_and_secrets() -> None:
    digest = hashlib.sha256(b"another-long-secret").hexdigest()
    keys = parse_keys(f"web:read:{SECRET}  # of the site\n\nloader:read+write:sha256:{digest}, cron:write:{SECRET}2")
    assert [(key.name, sorted(key.scopes)) for key in keys] == [
        ("web", ["read"]),
        ("loader", ["read", "write"]),
        ("cron", ["write"]),
    ]
    found = find_key(keys, b"another-long-secret")
    assert found is not None
    assert found.name == "loader"
    assert find_key(keys, SECRET.encode()) is keys[0]
    assert find_key(keys, b"") is find_key(keys, SECRET[:-1].encode()) is None
    assert SECRET not in repr(keys)
    assert repr(keys[0].digest) not in repr(keys)


@pytest.mark.parametrize(
    "entry",
    [
        "secret",
        "web:read",
        f"web:admin:{SECRET}",
        f"web::{SECRET}",
        f"a b:read:{SECRET}",
        "web:read:hushhush",
        "a:read:sha256:zz",
    ],
)
def test_a_key_that_can_not_be_used_is_refused_and_not_repeated(entry: str) -> None:
    with pytest.raises(InvalidSettingError) as refused:
        parse_keys(entry)
    assert SECRET not in str(refused.value)
    assert "hush" not in str(refused.value)


def test_a_name_is_given_once() -> None:
    with pytest.raises(InvalidSettingError, match="twice"):
        parse_keys(f"web:read:{SECRET}1 web:read:{SECRET}2")


@given(st.floats(0.1, 100), st.integers(1, 20), st.lists(st.floats(0, 3), max_size=100))
def test_never_more_than_the_burst_and_the_rate_allow(rate: float, burst: int, pauses: list[float]) -> None:
    bucket, now, passed = TokenBucket(rate, burst, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        passed += bucket.take(now) == 0
        assert passed <= burst + rate * now + 1e-6


@given(st.floats(0.1, 100), st.integers(1, 5))
def test_who_waits_as_told_is_let_through(rate: float, burst: int) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    assert [bucket.take(0.0) for _ in range(burst)] == [0.0] * burst
    seconds = bucket.take(0.0)
    assert seconds == pytest.approx(1 / rate)
    assert bucket.take(seconds * 0.99) > 0
    assert bucket.take(seconds + 1e-6) == 0
