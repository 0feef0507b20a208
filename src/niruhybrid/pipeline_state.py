"""What a pipeline tells of itself: whether it takes queries, and its counters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ("PipelineStats", "Readiness")


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether queries are taken.

    Attributes:
        ready: yes or no.
        degraded: whether they are taken, but something is wrong.
        reasons: what is missing or wrong; empty when all is well.
    """

    ready: bool
    degraded: bool = False
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PipelineStats:
    """A pipeline's counters at one instant.

    Attributes:
        documents: documents in the store.
        answers: answers since the start, by how they ended: `done`, `error`, or `cancelled` by who asked.
        open_answers: answers under way.
        processor: the stream processor's own counters.
    """

    documents: int
    answers: Mapping[str, int]
    open_answers: int
    processor: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "documents": self.documents,
            "answers": dict(self.answers),
            "open_answers": self.open_answers,
            "processor": dict(self.processor),
        }
