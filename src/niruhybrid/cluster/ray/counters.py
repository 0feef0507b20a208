"""The counters of several replicas as those of one pipeline. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from niruhybrid.pipeline_state import PipelineStats

__all__ = ("together",)

_HIGHEST = frozenset({"oldest_age"})
_SAME = frozenset({"bounds", "token_ceiling"})  # of a histogram; of a setting, but after a memory error
_WASTE = "padding_waste"


def together(stats: Sequence[PipelineStats]) -> PipelineStats:
    """Return what replicas have counted, as if one pipeline had: counts are summed, the oldest age is the oldest.

    Args:
        stats: at least one. They share a store, which the last of them has counted.
    """
    return PipelineStats(
        documents=stats[-1].documents,
        answers=_summed([each.answers for each in stats]),
        open_answers=sum(each.open_answers for each in stats),
        processor=_summed([each.processor for each in stats]),
    )


def _summed(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = dict.fromkeys(name for part in parts for name in part)
    whole = {name: _one(name, [part[name] for part in parts if name in part]) for name in names}
    if _WASTE in whole:
        padded = whole["padded_tokens"]
        whole[_WASTE] = 1.0 - whole["tokens"] / padded if padded else 0.0
    return whole


def _one(name: str, values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        return _summed(values)
    if name in _HIGHEST:
        return max(values)
    if name in _SAME:
        return min(values)
    if isinstance(first, bool):
        return any(values)
    if isinstance(first, Sequence):
        return tuple(sum(each) for each in zip(*values, strict=True))
    return sum(values)
