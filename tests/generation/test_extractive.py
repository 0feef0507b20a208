import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.analysis import terms
from niruhybrid.generation.extractive import NO_ANSWER, ExtractiveGenerator, select_sentences
from niruhybrid.types import Hit, Query, Token

READER = Hit(
    "csv.reader",
    1,
    0.9,
    "csv.reader(iterable, dialect='excel')\n\nReturn a reader over the rows of a csv file. "
    "Each row read from the file is a list of strings.\n\n>>> for row in csv.reader(f): print(row)\n\n"
    "Errors are raised as csv.Error. The dialect may be registered.",
    "csv.reader",
)
OTHER = Hit("os.stat", 2, 0.5, "Perform a stat system call on the given path. It returns a stat result.", "os.stat")


def answer(text: str, *hits: Hit) -> list[Token]:
    async def collect() -> list[Token]:
        return [token async for token in ExtractiveGenerator().generate(Query("q", text), hits)]

    return asyncio.run(collect())


def test_answers_with_the_sentences_that_share_the_querys_words() -> None:
    tokens = answer("how do I read a csv file row by row", READER, OTHER)
    assert "".join(token.text for token in tokens) == (
        "Return a reader over the rows of a csv file. Each row read from the file is a list of strings."
    )
    assert {token.source for token in tokens} == {"csv.reader"}


def test_code_and_signatures_are_not_prose() -> None:
    text = "".join(token.text for token in answer("csv reader for row print iterable dialect", READER))
    assert ">>>" not in text
    assert "dialect='excel'" not in text


def test_a_heading_is_no_prose() -> None:
    hit = Hit("with", 1, 1.0, 'The "with" statement\n*****\n\nA context manager wraps the block of a statement.')
    assert [token.text for token in answer("statement", hit)] == ["A context manager wraps the block of a statement."]


def test_a_signature_is_better_than_nothing() -> None:
    hit = Hit("math.gcd", 1, 1.0, "math.gcd(*integers)")
    assert answer("math gcd", hit) == [Token("math.gcd(*integers)", source="math.gcd")]


@pytest.mark.parametrize("hits", [(), (READER, OTHER), (Hit("empty", 1, 1.0, ""),)])
def test_says_plainly_when_nothing_matches(hits: tuple[Hit, ...]) -> None:
    assert answer("zebra crossings of Paris", *hits) == [Token(NO_ANSWER)]


def test_function_words_alone_are_no_match() -> None:
    assert answer("is the zebra on the path of a", READER) == [Token(NO_ANSWER)]


def test_does_not_say_the_same_twice() -> None:
    copies = [Hit(str(rank), rank, 1.0, "The buffer drops its oldest item when full.") for rank in (1, 2, 3)]
    assert [token.source for token in answer("which item does the buffer drop", *copies)] == ["1"]


def test_sentences_keep_the_order_of_hits_and_texts() -> None:
    first = Hit("a", 1, 0.9, "Apples grow on trees here. Ripe apples and pears keep through winter.")
    second = Hit("b", 2, 0.8, "Pears ripen after picking. Nothing else.")
    sources = [token.source for token in answer("pears apples winter ripen", first, second)]
    assert sources == sorted(str(source) for source in sources)
    assert len(set(sources)) == 2


def test_a_long_sentence_is_cut_and_says_so() -> None:
    [token] = answer("endless", Hit("long", 1, 1.0, "endless " * 500))
    assert token.text.endswith("…")
    assert len(token.text.split()) == 80


TEXT = st.text(st.sampled_from("abc é中.!?\n \t>>`(")) | st.text(max_size=60)


@given(st.text(min_size=1, max_size=40), st.lists(TEXT, max_size=5))
def test_any_text_is_answered_with_words_of_its_sources(query: str, texts: list[str]) -> None:
    hits = [Hit(str(rank), rank, 1.0, text, text[:10]) for rank, text in enumerate(texts, 1)]
    chosen = select_sentences(terms(query), hits)
    assert len(chosen) <= 4
    assert chosen == select_sentences(terms(query), hits)
    for sentence, hit in chosen:
        assert sentence.strip()
        assert sentence.removesuffix("…") in " ".join(hit.text.split())


def test_closing_early_ends_the_iterator() -> None:
    async def first_only() -> list[Token]:
        answer = ExtractiveGenerator().generate(Query("q", "read csv row"), [READER])
        first = await anext(answer)
        await answer.aclose()
        return [first, *[token async for token in answer]]

    assert len(asyncio.run(first_only())) == 1


def test_much_text_is_read_off_the_event_loop() -> None:
    hits = [Hit(str(rank), rank, 1.0, "Read a row of the csv file. " * 280) for rank in (1, 2, 3)]

    async def ran_meanwhile() -> bool:
        others = asyncio.Event()
        asyncio.get_running_loop().call_soon(others.set)
        await anext(ExtractiveGenerator().generate(Query("q", "read csv row"), hits))
        return others.is_set()

    assert asyncio.run(ran_meanwhile())


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["x" * 1_000_000, "a. " * 300_000, ">>> " * 200_000, "A b c d. " * 100_000, "\n" * 1_000_000]
)
def test_hostile_texts_do_not_hold_the_event_loop(text: str) -> None:
    hits = [Hit(str(rank), rank, 1.0, text, "x") for rank in range(1, 1001)]

    async def longest_stretch() -> float:
        """Return the seconds of work that the event loop's thread did at a stretch at the most."""
        task = asyncio.ensure_future(collect())
        longest, last = 0.0, time.thread_time()
        while not task.done():
            await asyncio.wait([task], timeout=0.001)
            longest, last = max(longest, time.thread_time() - last), time.thread_time()
        assert task.result()
        return longest

    async def collect() -> list[Token]:
        return [token async for token in ExtractiveGenerator().generate(Query("q", "x a b c d"), hits)]

    assert asyncio.run(longest_stretch()) < 0.5  # a few milliseconds on a quiet machine
