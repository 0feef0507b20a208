"""What a search finds, against every document scored by the formulas one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niruhybrid.retrieval.search import best_slots
from niruhybrid.retrieval.snapshot import Additions, Snapshot
from niruhybrid.types import Metadata, SearchRequest, Vector

DIM = 4


def vectors(*directions: float) -> Vector:
    """Return unit vectors whose product with `QUERY` is the number given."""
    return np.array([[cosine, (1 - cosine * cosine) ** 0.5, 0, 0] for cosine in directions], np.float32)


QUERY = vectors(1.0)[0]


def snapshot_of(cosines: list[float], owners: list[int], metadata: list[Metadata] | None = None) -> Snapshot:
    rows = range(1, len(cosines) + 1)
    added = Additions(rows, vectors(*cosines), [[]] * len(rows), metadata or [{}] * len(rows), owners)
    return Snapshot.empty(0).changed(1, {}, added)


def found(snapshot: Snapshot, top_k: int) -> list[int]:
    [best] = best_slots(snapshot, [SearchRequest(QUERY, (), top_k)], 1.0)
    return [int(snapshot.rows.items[slot]) for slot, _ in best]


def test_the_best_passage_of_a_document_stands_for_it() -> None:
    assert found(snapshot_of([0.5, 0.9, 0.7, 0.8], [1, 1, 3, 3]), 10) == [2, 4]
    assert found(snapshot_of([0.5, 0.9, 0.7, 0.8], []), 10) == [2, 4, 3, 1]


def test_documents_that_share_the_metadata_field_are_one_as_well() -> None:
    metadata: list[Metadata] = [{}, {"document": "a"}, {}, {"document": "a"}]
    assert found(snapshot_of([0.5, 0.8, 0.7, 0.9], [1, 1, 3, 4], metadata), 10) == [4, 3]


def test_a_document_of_very_many_passages_does_not_crowd_out_the_others() -> None:
    cosines = [0.9] * 500 + [0.5, 0.4, 0.3]
    assert found(snapshot_of(cosines, [1] * 500 + [501, 502, 503]), 3) == [1, 501, 502]


@given(st.lists(st.tuples(st.integers(-99, 99), st.integers(0, 5)), min_size=1, max_size=30), st.integers(1, 9))
@settings(deadline=None)
def test_one_passage_of_each_document_best_first(passages: list[tuple[int, int]], top_k: int) -> None:
    cosines = [cosine / 100 for cosine, _ in passages]
    first: dict[int, int] = {}
    owners = [first.setdefault(document, row) for row, (_, document) in enumerate(passages, start=1)]
    best: dict[int, float] = {}
    for cosine, owner in zip(cosines, owners, strict=True):
        best[owner] = max(best.get(owner, -1.0), cosine)
    [answer] = best_slots(snapshot_of(cosines, owners), [SearchRequest(QUERY, (), top_k)], 1.0)
    assert [score for _, score in answer] == pytest.approx(sorted(best.values(), reverse=True)[:top_k], abs=1e-6)
    assert len({owners[slot] for slot, _ in answer}) == len(answer)
