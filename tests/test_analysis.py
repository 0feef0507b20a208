import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.analysis import terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t", []),
        ("!?… -- 🚀", []),
        ("Running runs run", ["run", "run", "run"]),
        ("Café CAFÉ cafe\u0301", ["cafe", "cafe", "cafe"]),
        ("Straße STRASSE", ["strass", "strass"]),
        ("ﬁne ﬂows", ["fine", "flow"]),
        ("\uff26\uff35\uff2c\uff2c\u3000\uff57\uff49\uff44\uff54\uff48", ["full", "width"]),  # full-width letters
        ("snake_case and kebab-case", ["snake", "case", "and", "kebab", "case"]),
        ("asyncio.Queue(maxsize=10)", ["asyncio", "queue", "maxsiz", "10"]),
        ("rocket 🚀 launch", ["rocket", "launch"]),
        ("東京 tower", ["東京", "tower"]),
        ("H₂O and 5 km²", ["h2o", "and", "5", "km2"]),
        ("İstanbul", ["istanbul"]),
        ("x" * 100, ["x" * 64]),
        ("naïve\u200bcoöperation", ["naiv", "cooper"]),
    ],
)
def test_examples(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@given(st.text())
def test_case_and_composition_do_not_matter(text: str) -> None:
    expected = terms(text)
    assert terms(unicodedata.normalize("NFC", text)) == terms(unicodedata.normalize("NFD", text))
    assert all(0 < len(term) <= 64 and not term.isspace() for term in expected)


@given(st.lists(st.from_regex(r"[a-z]{1,12}", fullmatch=True)))
def test_terms_keep_the_order_and_number_of_words(words: list[str]) -> None:
    assert terms(" ".join(words)) == [term for word in words for term in terms(word)]


def test_threads_do_not_share_a_stemmer() -> None:
    words = ["running", "stemming", "nationality", "queries"] * 500
    expected = terms(" ".join(words))
    with ThreadPoolExecutor(4) as pool:
        assert all(found == expected for found in pool.map(terms, [" ".join(words)] * 8))


@pytest.mark.slow
@given(st.lists(st.text(st.characters(categories=["L", "M", "N", "P", "S"]), min_size=1, max_size=12), min_size=1))
def test_a_long_text_has_the_terms_of_its_words(words: list[str]) -> None:
    many = words * (40_000 // sum(len(word) + 1 for word in words) + 1)
    assert terms("\n".join(many)) == [term for word in words for term in terms(word)] * (len(many) // len(words))
