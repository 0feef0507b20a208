from collections.abc import Iterator

import pytest

from niruhybrid.retrieval import lexical
from niruhybrid.retrieval.log import Log, Session


@pytest.fixture
def session() -> Iterator[Session]:
    log = Log(None)
    with log.write() as opened:
        assert lexical.ensure(opened)
        yield opened
    log.close()


def test_of_a_long_query_the_first_128_terms_count(session: Session) -> None:
    lexical.add(session, [1, 2], ["t127", "t128"])
    assert lexical.search(session, [f"t{n}" for n in range(1000)], 10, 8).keys() == {1}


def test_a_term_asked_for_twice_counts_twice(session: Session) -> None:
    lexical.add(session, [1, 2, 3, 4, 5], ["ash", "birch", "elm", "fir", "oak"])
    scores = lexical.search(session, ["ash", "birch", "ash"], 10, 8)
    assert scores[1] == pytest.approx(2 * scores[2])


def test_rare_terms_frequent_mentions_and_short_texts_score_higher(session: Session) -> None:
    texts = ["common rare", "common common", "common other words of a longer text", "x", "y", "z", "w", "v"]
    lexical.add(session, range(1, 9), texts)
    scores = lexical.search(session, ["common", "rare"], 10, 8)
    assert sorted(scores, key=lambda row: -scores[row]) == [1, 2, 3]
    assert min(scores.values()) > 0


def test_of_equal_scores_the_lower_rows_are_kept(session: Session) -> None:
    lexical.add(session, [7, 3, 5], ["same", "same", "same"])
    assert list(lexical.search(session, ["same"], 2, 8)) == [3, 5]


def test_a_query_without_terms_finds_nothing(session: Session) -> None:
    lexical.add(session, [1], ["word"])
    assert lexical.search(session, [], 5, 8) == lexical.search(session, ["", '"', "\0"], 5, 8) == {}


def test_an_index_that_is_there_is_kept(session: Session) -> None:
    lexical.add(session, [1], ["word"])
    assert not lexical.ensure(session)
    lexical.remove(session, [1])
    assert lexical.search(session, ["word"], 5, 8) == {}


def test_in_a_large_store_common_words_do_not_count_beside_rarer_ones(session: Session) -> None:
    texts = ["the ash", *["the elm"] * 600, *["fir"] * 600]
    lexical.add(session, range(1, 1202), texts)
    assert lexical.search(session, ["the", "ash"], 10, 1201).keys() == {1}
    assert len(lexical.search(session, ["the"], 2000, 1201)) == 601
    assert len(lexical.search(session, ["the", "ash"], 2000, 1000)) == 601
    assert len(lexical.search(session, ["the", "unknown"], 2000, 1201)) == 601
