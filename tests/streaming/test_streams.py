"""A stream beside others: slowed down where it would be refused."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import DeadlineUnreachableError
from niruhybrid.streaming.stream_processor import StreamProcessor
from niruhybrid.types import DataResult, Document


@pytest.mark.slow
@pytest.mark.parametrize(("timeout", "refused"), [(None, False), (1.0, True)])
def test_a_lone_document_beside_a_heavy_stream_waits_unless_it_names_a_time(
    gated: Any, timeout: float | None, refused: bool
) -> None:
    config = StreamingConfig(batch_size=4, processing_timeout=1.0)
    with StreamProcessor(gated, config=config) as processor:
        gated.hold()
        opener = threading.Timer(0.2, gated.gate.set)  # so a batch is reckoned with as much
        opener.start()
        processor.process_data("lesson", "a batch takes a while")
        gated.hold()
        full = threading.Event()

        def many() -> Iterator[Document]:
            for number in range(40):
                if number == 16:  # as many as a stream hands in while the encoder's speed is little known
                    full.set()
                yield Document(f"d{number}", f"document number {number}", timeout=60.0)

        heavy = threading.Thread(target=lambda: processor.process_data_batch(many()))
        heavy.start()
        assert full.wait(10)
        found: list[DataResult] = []
        lone = [Document("lone", "a lone document", timeout=timeout)]
        other = threading.Thread(target=lambda: found.extend(processor.process_data_stream(lone)))
        other.start()
        other.join(0.05 if not refused else 5)
        gated.gate.set()
        other.join(10)
        heavy.join(10)
        [result] = found
        assert isinstance(result.error, DeadlineUnreachableError) == refused
        assert refused or result.error is None
