"""What an answer is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from niruhybrid.types.checks import FinishReason

__all__ = (
    "Finish",
    "StreamEvent",
    "Token",
)


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of an answer, or of a standing query.

    Attributes:
        event: of an answer `sources` (first, once; a `provisional` may precede it), `token` (any number), then `done`
            or `error` (last, once). Of a standing query `subscribed` (first, once), `match` and `dropped` (any number),
            then `error`.
        data: JSON-ready payload, as docs/http.md describes it per event.
    """

    event: Literal["provisional", "sources", "token", "done", "error", "subscribed", "match", "dropped"]
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a generated answer.

    Attributes:
        text: appended to what came before; never empty.
        source: id of the hit that the piece comes from, or None.
    """

    text: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """How a generated answer ended, where that is not simply `stop`; comes after the last `Token`.

    Attributes:
        reason: why there is no more of it.
        notes: what was cut or left out on the way, in words; empty when nothing was.
    """

    reason: FinishReason = "stop"
    notes: tuple[str, ...] = ()
