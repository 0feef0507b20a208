"""The pipeline's counters in Prometheus' exposition format, from the same snapshot that `/stats` shows."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ("CONTENT_TYPE", "exposition")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LANES = ("interactive", "bulk")
_REASONS = {
    "failed": ("encoder_failed", "encoder_hung", "encoder_output", "store_error", "store_full"),
    "rejected": ("closed", "deadline", "invalid", "queue_full"),
    "dropped": ("closed", "deadline", "superseded"),
}
"""What is exported before it happens: else the first of its kind is no increase, and no alert sees it."""

_GAUGES = {
    "waiting": "Items accepted and not yet taken.",
    "in_flight": "Items being encoded, searched or written.",
    "waiting_tokens": "Estimated tokens that wait to be encoded.",
    "oldest_age": "Seconds the oldest waiting item has waited.",
}


def exposition(stats: Mapping[str, Any]) -> bytes:
    """Return every counter of a snapshot as text for Prometheus.

    Args:
        stats: what `PipelineStats.to_dict` returns.
    """
    registry = CollectorRegistry()
    registry.register(_Snapshot(stats))
    return generate_latest(registry)


class _Snapshot(Collector):
    """One snapshot, as Prometheus' client wants it."""

    def __init__(self, stats: Mapping[str, Any]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        processor = self._stats["processor"]
        yield GaugeMetricFamily("niru_documents", "Documents in the store.", self._stats["documents"])
        yield GaugeMetricFamily("niru_answers_open", "Answers under way.", self._stats["open_answers"])
        yield GaugeMetricFamily("niru_encoder_degraded", "1 while the last encode hung.", int(processor["degraded"]))
        yield GaugeMetricFamily("niru_token_ceiling", "Padded tokens a batch may have now.", processor["token_ceiling"])
        yield CounterMetricFamily("niru_encodes_hung", "Encodes given up.", processor["hung"])
        answers = CounterMetricFamily("niru_answers", "Answers by how they ended.", labels=["ending"])
        for ending, number in self._stats["answers"].items():
            answers.add_metric([ending], number)
        yield answers
        for what in ("hits", "misses"):
            yield CounterMetricFamily(f"niru_cache_{what}", f"Query vectors: {what}.", processor["cache"][what])
        yield GaugeMetricFamily("niru_cache_bytes", "Bytes of query vectors kept.", processor["cache"]["bytes"])
        yield from _lanes({lane: processor[lane] for lane in _LANES})


def _lanes(lanes: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    offered = CounterMetricFamily("niru_items_offered", "Items handed in.", labels=["lane"])
    ended = CounterMetricFamily("niru_items_ended", "Items by how they ended.", labels=["lane", "how", "reason"])
    batches = CounterMetricFamily("niru_batches", "Batches by why they were cut there.", labels=["lane", "released"])
    sums = {
        name: CounterMetricFamily(f"niru_batch_{name}", f"Batches' {name.replace('_', ' ')}.", labels=["lane"])
        for name in ("items", "tokens", "padded_tokens")
    }
    gauges = {name: GaugeMetricFamily(f"niru_{name}", words, labels=["lane"]) for name, words in _GAUGES.items()}
    for lane, values in lanes.items():
        offered.add_metric([lane], values["offered"])
        for how in ("delivered", "cancelled"):
            ended.add_metric([lane, how, ""], values[how])
        for how, known in _REASONS.items():
            for reason, number in (dict.fromkeys(known, 0) | values[how]).items():
                ended.add_metric([lane, how, reason], number)
        for released, number in values["batch"]["released"].items():
            batches.add_metric([lane, released], number)
        for name, family in sums.items():
            family.add_metric([lane], values["batch"][name])
        for name, gauge in gauges.items():
            gauge.add_metric([lane], values[name])
    yield from (offered, ended, batches, *sums.values(), *gauges.values())
    yield _histogram("niru_wait_seconds", "Wait until taken.", {lane: each["wait"] for lane, each in lanes.items()})
    encodes = {lane: each["batch"]["encode"] for lane, each in lanes.items()}
    yield _histogram("niru_encode_seconds", "Encode of a batch.", encodes)


def _histogram(name: str, words: str, lanes: Mapping[str, Mapping[str, Any]]) -> Metric:
    family = HistogramMetricFamily(name, words, labels=["lane"])
    for lane, values in lanes.items():
        bounds = [*(str(bound) for bound in values["bounds"]), "+Inf"]
        family.add_metric([lane], list(zip(bounds, accumulate(values["counts"]), strict=True)), values["sum"])
    return family
