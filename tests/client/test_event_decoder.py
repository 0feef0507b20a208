"""Events out of bytes, however they were cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.client import sse
from niruhybrid.client.sse import EventDecoder, ServerEvent
from niruhybrid.errors import StreamLostError


def decoded(*pieces: bytes) -> list[ServerEvent]:
    decoder = EventDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def test_an_event_is_whole_with_its_blank_line() -> None:
    decoder = EventDecoder()
    assert list(decoder.feed(b"id: s:1\nevent: token\ndata: {}\n")) == []
    assert list(decoder.feed(b"\n")) == [ServerEvent("s:1", "token", "{}")]


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b": keep-alive\n\ndata: x\n\n", [ServerEvent("", "message", "x")]),
        (b"data:x\ndata: y\ndata:  z\n\n", [ServerEvent("", "message", "x\ny\n z")]),
        (b"data: x\r\n\r\ndata: y\r\rdata: z\n\n", [ServerEvent("", "message", each) for each in "xyz"]),
        (b"event: a\n\ndata: x\n\n", [ServerEvent("", "message", "x")]),
        (b"retry: 5\nfoo: bar\nfoo\ndata\n\n", [ServerEvent("", "message", "")]),
        (b"id: a\0b\ndata: x\n\n", [ServerEvent("", "message", "x")]),
        ("data: \u00e9\u2028x\n\n".encode(), [ServerEvent("", "message", "\u00e9\u2028x")]),
        (b"data: \xff\n\n", [ServerEvent("", "message", "\ufffd")]),
    ],
)
def test_fields_are_read_as_the_standard_has_it(body: bytes, events: list[ServerEvent]) -> None:
    assert decoded(body) == events


LINES = st.sampled_from([b"data: x", b"data: \xc3\xa9", b"id: s:1", b"event: token", b": c", b"", b"", b"data"])
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=30), st.lists(st.integers(0, 200), max_size=12))
def test_where_the_bytes_are_cut_makes_no_difference(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    body = b"".join(line + end for line, end in lines) + b"\n\n"
    ends = sorted({*(cut for cut in cuts if cut < len(body)), len(body)})
    pieces = [body[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert decoded(*pieces) == decoded(body) == decoded(*(bytes([byte]) for byte in body))


def test_an_event_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MOST_BYTES", 1000)
    assert len(decoded(*[b"data: x\n\n"] * 1000)) == 1000
    with pytest.raises(StreamLostError, match="over 1000 bytes"):
        decoded(b"data: ", b"x" * 600, b"x" * 600)
    with pytest.raises(StreamLostError, match="over 1000 bytes"):
        decoded(*[b"data: x\n"] * 200)
