"""The lexical index: BM25 over analysed terms, by SQLite's FTS5, inside the log's own transactions.

It stores no text. Terms arrive analysed, so the tokenizer only has to leave them whole: all that is not white space or
a quotation mark belongs to a term, ASCII letters match in either case.
"""

from collections.abc import Iterable, Sequence

from niruhybrid.retrieval.log import Session

__all__ = ("add", "ensure", "joined", "remove", "search")

MAX_QUERY_TERMS = 128
"""Terms of one query that count, the first ones; what a query costs grows with each."""

_MANY_DOCUMENTS = 1000

_CREATE = """
CREATE VIRTUAL TABLE lexical USING fts5(
    terms, content='', contentless_delete=1, tokenize="ascii tokenchars '!#$%&()*+,-./:;<=>?@[\\]^_`{|}~'"
);
CREATE VIRTUAL TABLE IF NOT EXISTS vocabulary USING fts5vocab(lexical, row);
"""


def ensure(session: Session) -> bool:
    """Build the index from the log's terms if there is none; return whether it did."""
    if next(session.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'lexical'"))[0]:
        return False
    session.execute(_CREATE)
    session.executemany("INSERT INTO lexical (rowid, terms) VALUES (?, ?)", list(session.terms()))
    return True


def joined(terms: Iterable[str]) -> str:
    """Return terms as one text, as the log keeps them."""
    return " ".join(terms).replace("\0", " ")  # FTS5 reads up to a NUL only


def add(session: Session, rows: Sequence[int], terms: Sequence[str]) -> None:
    """Index joined terms under new row numbers."""
    session.executemany("INSERT INTO lexical (rowid, terms) VALUES (?, ?)", zip(rows, terms, strict=True))


def remove(session: Session, rows: Iterable[int]) -> None:
    """Forget rows."""
    session.executemany("DELETE FROM lexical WHERE rowid = ?", ((row,) for row in rows))


def search(session: Session, terms: Sequence[str], limit: int, documents: int) -> dict[int, float]:
    """Find the rows that have any of the terms.

    In a store of more than 1000 documents, terms of half of them or more are passed over beside rarer ones: FTS5 gives
    them next to no weight, and they are most of the work.

    Args:
        session: the state to search.
        terms: analysed terms; the first 128 count, each as often as it is there.
        limit: rows wanted, at least 1.
        documents: how many documents there are.

    Returns:
        The `limit` best rows, or all that match, with their BM25 scores (k1 = 1.2, b = 0.75), above 0; of equal ones
        the lower rows.
    """
    words = _words(terms)
    if documents > _MANY_DOCUMENTS:
        words = _telling(session, words, documents)
    if not words:
        return {}
    found = session.execute(
        "SELECT rowid, -bm25(lexical) AS score FROM lexical WHERE lexical MATCH ? ORDER BY score DESC, rowid LIMIT ?",
        (" OR ".join(f'"{word}"' for word in words), limit),
    )
    return dict(found)


def _words(terms: Sequence[str]) -> list[str]:
    """Return the terms that count, without what an FTS5 string can't hold."""
    words = (joined((term,)).replace('"', " ").strip() for term in terms[:MAX_QUERY_TERMS])
    return [word for word in words if word]


def _telling(session: Session, words: list[str], documents: int) -> list[str]:
    """Return the words that less than half of the documents have, or all if no document has one of those."""
    shares = {word: 2 * _frequency(session, word) / documents for word in set(words)}
    if not any(0 < share < 1 for share in shares.values()):
        return words
    return [word for word in words if shares[word] < 1]


def _frequency(session: Session, word: str) -> int:
    """Return how many documents have a word; 0 for none."""
    found = session.execute("SELECT doc FROM vocabulary WHERE term = ?", (word,))
    return next((count for (count,) in found), 0)
