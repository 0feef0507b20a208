"""What an input goes through on its way to a result, for queries, documents, passages and bare texts alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from niruhybrid.errors import NiruError
from niruhybrid.streaming.callers import Done
from niruhybrid.streaming.lanes import Job, LaneName
from niruhybrid.streaming.long_texts import LongDone, LongJob
from niruhybrid.types import DataResult, Document, PassageResult, Query, QueryResult, Vector
from niruhybrid.windows import Window

__all__ = ("AnyDone", "AnyJob", "Item", "Kind", "Result")

Item = TypeVar("Item", bound=Query | Document | Window | str)
Result = TypeVar("Result", bound=QueryResult | DataResult | PassageResult | Vector)
AnyJob: TypeAlias = Job | LongJob
AnyDone: TypeAlias = Done | LongDone


def _never(raw: object) -> bool:  # noqa: ARG001  # of any input
    return False


@dataclass(frozen=True, slots=True)
class Kind(Generic[Item, Result]):
    """The four steps from an input to a result.

    Attributes:
        lane: where the items wait.
        read: makes an item of an input and its place in the stream; raises `InvalidInputError`.
        job: what the batcher is to do for an item; raises `InvalidInputError`.
        result: the result of a job that ended well.
        failed: the result of an input, at its place in the stream, that ended with an error; or raises it, which ends
            the stream.
        aside: tells of an input whether making its job takes so long that an event loop must not do it.
    """

    lane: LaneName
    read: Callable[[object, int], Item]
    job: Callable[[Item], AnyJob]
    result: Callable[[AnyJob, AnyDone], Result]
    failed: Callable[[object, int, NiruError], Result]
    aside: Callable[[object], bool] = _never
