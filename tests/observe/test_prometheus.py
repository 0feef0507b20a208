"""What Prometheus reads is what the snapshot says."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from niruhybrid.errors import ClosedError, EncoderFailedError
from niruhybrid.observe.prometheus import exposition
from niruhybrid.streaming.stream_processor import StreamProcessor
from niruhybrid.testing import HashEncoder


class Picky(HashEncoder):
    def encode(self, texts: object, /) -> object:  # type: ignore[override]  # an encoder may return anything array-like
        assert isinstance(texts, list)
        if "bad" in texts:
            raise ValueError("no")
        return super().encode(texts)


Samples = dict[tuple[str, tuple[str, ...]], float]


def scraped(processor: StreamProcessor) -> Samples:
    stats = processor.stats().to_dict()
    text = exposition({"documents": 3, "open_answers": 0, "answers": {"done": 2}, "processor": stats}).decode()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def samples() -> Samples:
    with StreamProcessor(Picky()) as processor:
        processor.process_query("q1", "one")
        processor.process_query_batch(["two", "three", ""])
        with pytest.raises(EncoderFailedError):
            processor.process_data("d", "bad")
        return scraped(processor)


def endings(samples: Samples) -> Samples:
    return {key: value for key, value in samples.items() if key[0] == "niru_items_ended_total"}


def test_what_may_happen_is_0_before_it_happens(samples: Samples) -> None:
    with StreamProcessor(HashEncoder()) as processor:
        fresh = endings(scraped(processor))
        assert set(endings(samples)) == set(fresh)  # the first failure raises a counter, and makes no new one
        assert set(fresh.values()) == {0}
        processor.close()
        with pytest.raises(ClosedError):
            processor.process_query("q", "late")
        assert set(endings(scraped(processor))) == set(fresh)
    expected = {
        ("rejected", "queue_full"),
        ("dropped", "deadline"),
        ("dropped", "superseded"),
        ("failed", "store_error"),
    }
    assert expected <= {(labels[0], labels[2]) for _, labels in fresh if labels[1] == "interactive"}


def test_counters_are_those_of_the_snapshot(samples: Samples) -> None:
    assert samples["niru_documents", ()] == 3
    assert samples["niru_answers_total", ("done",)] == 2
    assert samples["niru_items_offered_total", ("interactive",)] == 4
    assert samples["niru_items_ended_total", ("delivered", "interactive", "")] == 3
    assert samples["niru_items_ended_total", ("rejected", "interactive", "invalid")] == 1
    assert samples["niru_items_ended_total", ("failed", "bulk", "encoder_failed")] == 1
    assert samples["niru_cache_misses_total", ()] == 3


def test_what_prometheus_reads_adds_up(samples: Samples) -> None:
    for lane in ("interactive", "bulk"):
        ended = sum(
            value for (name, labels), value in samples.items() if name == "niru_items_ended_total" and lane in labels
        )
        open_items = samples["niru_waiting", (lane,)] + samples["niru_in_flight", (lane,)]
        assert samples["niru_items_offered_total", (lane,)] == ended + open_items


def test_histograms_are_cumulative(samples: Samples) -> None:
    buckets = [
        value for (name, labels), value in samples.items() if name == "niru_wait_seconds_bucket" and "bulk" in labels
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == samples["niru_wait_seconds_count", ("bulk",)] == 1
