import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from numpy.typing import NDArray

from niruhybrid.retrieval.lexical import LexicalIndex

Terms = Sequence[str]


def index_of(*texts: str) -> LexicalIndex:
    return LexicalIndex.of({}).changed({}, [text.split() for text in texts])


def search(index: LexicalIndex, terms: Terms, limit: int = 10) -> dict[int, float]:
    return found(index, terms, limit, np.ones(len(index.lengths), np.bool_))


def found(index: LexicalIndex, terms: Terms, limit: int, allowed: NDArray[np.bool_]) -> dict[int, float]:
    [(slots, scores)] = index.search(index.weighed([terms]), [limit], [allowed])
    assert np.all(np.diff(slots) > 0)
    return dict(zip(slots.tolist(), scores.tolist(), strict=True))


def reference(documents: Mapping[int, Terms], query: Terms) -> dict[int, float]:
    """Score every document by the formula, without any index."""
    average = sum(map(len, documents.values())) / max(1, len(documents))
    counted = {slot: Counter(terms) for slot, terms in documents.items()}
    scores: dict[int, float] = {}
    for term, times in Counter(query).items():
        have = sum(term in counts for counts in counted.values())
        weight = times * math.log(1 + (len(documents) - have + 0.5) / (have + 0.5))
        for slot, counts in counted.items():
            if term in counts:
                against = 1.2 * (1 - 0.75 + 0.75 * len(documents[slot]) / average)
                scores[slot] = scores.get(slot, 0.0) + weight * 2.2 * counts[term] / (counts[term] + against)
    return scores


def test_of_a_long_query_the_first_128_terms_count() -> None:
    assert search(index_of("t127", "t128"), [f"t{n}" for n in range(1000)]).keys() == {0}


def test_a_term_asked_for_twice_counts_twice() -> None:
    scores = search(index_of("ash", "birch", "elm"), ["ash", "birch", "ash"])
    assert scores[0] == pytest.approx(2 * scores[1])


def test_rare_terms_frequent_mentions_and_short_texts_score_higher() -> None:
    index = index_of("common rare", "common common", "common other words of a longer text", "x", "y")
    scores = search(index, ["common", "rare"])
    assert sorted(scores, key=lambda slot: -scores[slot]) == [0, 1, 2]
    assert min(scores.values()) > 0


def test_of_equal_scores_the_lower_slots_are_kept() -> None:
    assert list(search(index_of("x", "same", "same", "same"), ["same"], 2)) == [1, 2]


def test_a_query_without_known_terms_finds_nothing() -> None:
    index = index_of("word")
    assert search(index, []) == search(index, ["", '"', "\0"]) == search(LexicalIndex.of({}), ["word"]) == {}


def test_a_change_leaves_the_index_it_started_from_as_it_was() -> None:
    before = index_of("ash", "birch ash")
    seen = search(before, ["ash", "birch"])
    before.changed({0: ["ash"]}, [["abandoned", "ash"]])
    after = before.changed({1: ["birch", "ash"]}, [["ash", "elm"]])
    assert search(before, ["ash", "birch"]) == seen
    assert search(after, ["abandoned"]) == {}
    assert 2 in search(after, ["elm"])


WORDS = [f"w{n}" for n in range(40)]


def texts(rng: np.random.Generator, count: int) -> list[list[str]]:
    shares = 1 / np.arange(1, len(WORDS) + 1)
    return [
        [str(word) for word in rng.choice(WORDS, rng.integers(0, 30), p=shares / shares.sum())] for _ in range(count)
    ]


class LexicalMachine(RuleBasedStateMachine):
    """Any history of changes, merges and closed gaps scores as the formula does."""

    def __init__(self) -> None:
        super().__init__()
        self.index = LexicalIndex.of({})
        self.documents: dict[int, list[str]] = {}
        self.rng = np.random.default_rng(0)
        self.started: tuple[LexicalIndex, LexicalIndex, list[int], bool] | None = None

    def live(self) -> NDArray[np.bool_]:
        live = np.zeros(len(self.index.lengths), np.bool_)
        live[list(self.documents)] = True
        return live

    @rule(seed=st.integers(0, 99), added=st.integers(0, 25), removed=st.integers(0, 6))
    def change(self, seed: int, added: int, removed: int) -> None:
        self.rng = np.random.default_rng(seed)
        gone = {slot: self.documents.pop(slot) for slot in sorted(self.documents)[:: max(1, removed)][:removed]}
        new = texts(self.rng, added)
        self.documents.update(enumerate(new, start=len(self.index.lengths)))
        self.index = self.index.changed(gone, new)

    @precondition(lambda self: self.started is None)
    @rule(close_up=st.booleans())
    def start_upkeep(self, close_up: bool) -> None:  # from hypothesis
        live = self.live()
        made = self.index.compacted(live) if close_up else self.index.merged(live)
        self.started = (self.index, made, np.flatnonzero(live).tolist(), close_up)

    @precondition(lambda self: self.started is not None)
    @rule()
    def end_upkeep(self) -> None:
        assert self.started is not None
        before, made, kept, close_up = self.started
        self.started = None
        old_slots = len(before.lengths)
        self.index = made.followed_by(before, self.index)
        if close_up:
            places = {old: new for new, old in enumerate(kept)}
            shift = old_slots - len(kept)
            self.documents = {
                places[slot] if slot < old_slots else slot - shift: terms for slot, terms in self.documents.items()
            }

    @rule(seed=st.integers(0, 99), limit=st.sampled_from([1, 5, 1000]), share=st.sampled_from([1.0, 0.3]))
    def search(self, seed: int, limit: int, share: float) -> None:
        rng = np.random.default_rng(seed)
        query = [str(word) for word in rng.choice(WORDS, rng.integers(1, 9))]
        allowed = self.live() & (rng.random(len(self.index.lengths)) < share)
        seen = found(self.index, query, limit, allowed)
        expected = {slot: score for slot, score in reference(self.documents, query).items() if allowed[slot]}
        best = sorted(expected.values(), reverse=True)[:limit]
        assert sorted(seen.values(), reverse=True) == pytest.approx(best, rel=1e-4)
        assert all(expected[slot] == pytest.approx(score, rel=1e-4) for slot, score in seen.items())


LexicalMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestLexicalModel = LexicalMachine.TestCase


@pytest.mark.slow
@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_best_of_many_are_those_of_the_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    documents = texts(rng, 400)
    index = LexicalIndex.of({}).changed({}, documents[:300])
    merged = index.merged(np.ones(300, np.bool_))
    index = merged.followed_by(index, index).changed({}, documents[300:])
    queries = [[str(word) for word in rng.choice(WORDS, rng.integers(1, 12))] for _ in range(5)]
    for query in queries:
        expected = sorted(reference(dict(enumerate(documents)), query).values(), reverse=True)[:10]
        assert sorted(search(index, query).values(), reverse=True) == pytest.approx(expected, rel=1e-4)


MANY = 4000
COMMON, MIDDLING, RARE = ([f"{kind}{n}" for n in range(count)] for kind, count in (("c", 6), ("m", 40), ("r", 4000)))


@pytest.fixture(scope="module")
def large() -> tuple[LexicalIndex, dict[int, list[str]]]:
    """Words as they are in texts: a few nearly everywhere, most nearly nowhere; the last documents in the journal."""
    rng = np.random.default_rng(5)
    documents = [
        [*rng.choice(COMMON, rng.integers(0, 12)), *rng.choice(MIDDLING, 3), *rng.choice(RARE, rng.integers(0, 5))]
        for _ in range(MANY)
    ]
    written = [[str(word) for word in words] for words in documents]
    index = LexicalIndex.of({}).changed({}, written[: MANY - 100])
    merged = index.merged(np.ones(MANY - 100, np.bool_))
    index = merged.followed_by(index, index).changed({}, written[MANY - 100 :])
    return index, dict(enumerate(written))


@pytest.mark.slow
@pytest.mark.parametrize(("common", "middling", "rare"), [(2, 2, 3), (5, 1, 2), (4, 0, 0), (6, 3, 0), (1, 0, 6)])
def test_what_is_left_out_would_not_have_been_among_the_best(
    large: tuple[LexicalIndex, dict[int, list[str]]], common: int, middling: int, rare: int
) -> None:
    index, documents = large
    rng = np.random.default_rng(100 * common + 10 * middling + rare)
    for limit in (3, 40):
        words = [
            *rng.choice(COMMON, common, replace=False),
            *rng.choice(MIDDLING, middling, replace=False),
            *rng.choice(RARE, rare, replace=False),
        ]
        query = [str(word) for word in words]
        expected = reference(documents, query)
        best = sorted(expected.values(), reverse=True)[:limit]
        seen = search(index, query, limit)
        assert sorted(seen.values(), reverse=True) == pytest.approx(best, rel=1e-4)
        assert all(expected[slot] == pytest.approx(score, rel=1e-4) for slot, score in seen.items())


def test_a_common_word_can_lift_a_document_over_others_that_have_more_of_the_rare_one() -> None:
    filler = [f"f{n}" for n in range(8)]
    documents = [["rare", *filler[:4]]] * 40 + [["rare", "common", *filler[:5]]] * 10
    documents += [["common", *filler[:5]]] * 60 + [filler] * 890
    index = LexicalIndex.of({}).changed({}, documents)
    merged = index.merged(np.ones(1000, np.bool_)).followed_by(index, index)
    expected = reference(dict(enumerate(documents)), ["rare", "common"])
    assert expected[40] > expected[0] > expected[40] - expected[50]
    assert sorted(search(merged, ["rare", "common"], 10)) == list(range(40, 50))


def test_merging_often_keeps_few_parts() -> None:
    index, live = LexicalIndex.of({}), np.empty(0, np.bool_)
    rng = np.random.default_rng(0)
    most = 0
    for _ in range(100):
        index = index.changed({}, texts(rng, 5))
        live = np.ones(len(index.lengths), np.bool_)
        index = index.merged(live).followed_by(index, index)
        most = max(most, len(index.parts))
    assert index.unmerged == 0
    assert most <= 6


def test_a_common_word_is_found_in_a_document_however_long() -> None:
    documents = [*([["x"]] * 1500), ["x", *(["y"] * 300_000)]]
    index = LexicalIndex.of({}).changed({}, documents)
    merged = index.merged(np.ones(1501, np.bool_)).followed_by(index, index)
    assert len(search(merged, ["x"], 2000)) == 1501
