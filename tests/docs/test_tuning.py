"""What the page on tuning tells to look at, and to turn, is there under that name."""

import re
from dataclasses import fields, is_dataclass

from niruhybrid import AsyncStreamProcessor, BufferStats, StreamBuffer, Timings
from niruhybrid.config import RetryPolicy
from niruhybrid.errors import NiruError
from niruhybrid.pipeline_state import PipelineStats
from niruhybrid.streaming.cache import CacheStats
from niruhybrid.streaming.engine import StreamStats
from niruhybrid.streaming.ledger import BatchStats, LaneStats, SchedulerStats
from tests.docs.pages import ROOT
from tools import reference

SHOWN = (AsyncStreamProcessor, StreamBuffer, BufferStats, Timings, RetryPolicy, PipelineStats)
COUNTED = (CacheStats, StreamStats, BatchStats, LaneStats, SchedulerStats)


def names_of(kind: type) -> set[str]:
    own = {field.name for field in fields(kind)} if is_dataclass(kind) else set()
    return own | {name for name in dir(kind) if not name.startswith("_")}


def codes(error: type[NiruError]) -> set[str]:
    return {error.code}.union(*map(codes, error.__subclasses__()))


def unknown(page: str) -> list[str]:
    known = {row.name for table in reference.settings().values() for row in table} | codes(NiruError)
    known = known.union(*(names_of(kind) for kind in (*SHOWN, *COUNTED)))
    named = re.findall(r"`([a-z]+(?:_[a-z]+)+)(?: = [^`]*)?`", page)
    return sorted({name for name in named if name not in known and not name.startswith("niru_")})


def test_every_name_on_the_page_is_a_setting_a_statistic_or_a_call() -> None:
    page = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    assert len(set(re.findall(r"`([a-z]+_[a-z_]+)`", page))) > 25
    assert unknown(page) == []


def test_a_name_that_is_not_there_is_noticed() -> None:
    assert unknown("Raise `queue_length`, or `batch_size`, with `long_text = 1`.") == ["queue_length"]
