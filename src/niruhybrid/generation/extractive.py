"""An answer without a model: the sentences of the hits that say most about the query."""

import asyncio
import functools
import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from dataclasses import dataclass

from niruhybrid.analysis import terms
from niruhybrid.sentences import sentences
from niruhybrid.types import Hit, Query, Token

__all__ = ("NO_ANSWER", "ExtractiveGenerator", "select_sentences")

NO_ANSWER = "Nothing in the index answers this."

MAX_HITS = 10  # read; those further down say less than what is already there
MAX_CHARS = 8_000  # read of one hit
MAX_QUERY_CHARS = 8_000
MAX_SENTENCES = 4
MAX_WORDS = 80
_INLINE_CHARS = 6_000  # chosen from within a few milliseconds; more is done in a thread
_REMEMBERED_CHARS, _REMEMBERED = 4_000, 4_096  # texts up to this length are cut once, the last so many

_LEAST_SHARE = 0.25  # of the query's weight that a hit's words must cover
_TITLE_SHARE = 0.5  # what a word of the title counts for in each of the hit's sentences
_LEAD_BONUS = 0.15
_RANK_PENALTY = 0.06
_REPEAT_PENALTY = 0.6
_LEAST_GAIN = 0.5  # of the best sentence's score, for a further one

_FUNCTION_WORDS = frozenset(
    terms(
        "a about an and any are as at be been but by can could did do does for from had has have how i if in into is "
        "it its make me my no not of on one or our should so some than that the their them then there these they "
        "this those to use using was we were what when where which while who why will with without would you your"
    )
)
_ENDS = ".!?:\u2026\u3002\uff01\uff1f"  # a few words without one of these are a heading
_MARK = re.compile(r"[^\w ]|[\d_]")
_ASCII_MARKS = bytes(code for code in range(128) if _MARK.match(chr(code)))
_RULE = re.compile(r"^[ \t]*[^\w\s]{3,}[ \t]*$", re.MULTILINE)
_SIGNATURE = re.compile(r"(?:class |def )?[\w.]+\s?\([^()]*\)?.{0,40}\Z")
_CODE = re.compile(r">>>|[\w.]+ = \S|\.\.\.|[|$#@<{]|.*::=|(?:import|from|def|class|if|for|return) .*[:)(]\Z")


@dataclass(frozen=True, slots=True, eq=False)
class _Sentence:
    text: str
    hit: Hit
    place: int  # among all sentences of all hits, in reading order
    words: tuple[str, ...]  # each once
    found: frozenset[str]  # of the words that are wanted
    lead: bool


class ExtractiveGenerator:
    """Answers with sentences of the hits; needs no model, always gives the same answer to the same hits."""

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncGenerator[Token, None]:
        """Yield up to four sentences, about 80 words, each with the id of the hit that says it.

        They come in the order of the hits and of their texts. If no hit shares enough words with the query, the one
        token says so and has no source. Only the first ten hits and the first 8,000 characters of each are read.
        """
        wanted = terms(query.text[:MAX_QUERY_CHARS])
        if sum(min(len(hit.text), MAX_CHARS) for hit in hits[:MAX_HITS]) <= _INLINE_CHARS:
            chosen = select_sentences(wanted, hits)
        else:
            chosen = await asyncio.to_thread(select_sentences, wanted, hits)
        if not chosen:
            yield Token(NO_ANSWER)
        for number, (sentence, hit) in enumerate(chosen):
            yield Token(f" {sentence}" if number else sentence, source=hit.id)


def select_sentences(query_terms: Sequence[str], hits: Sequence[Hit]) -> list[tuple[str, Hit]]:
    """Return the sentences that best answer a query, in reading order, each with its hit.

    A sentence counts for the share of the query's terms that it has, rare terms more, and for its place; what repeats
    a chosen one counts less. Code, signatures and headings are taken only where a hit has nothing else.

    Args:
        query_terms: as `analysis.terms` gives them.
        hits: best first.

    Returns:
        At most four, together at most 80 words unless one alone is longer: it is then cut there and ends in "…". None
        if no hit has a quarter of the terms, by weight.
    """
    wanted = frozenset(query_terms) - _FUNCTION_WORDS or frozenset(query_terms)
    candidates = _candidates(hits[:MAX_HITS], wanted)
    weights = _weights(wanted, candidates)
    titles = {hit.id: wanted.intersection(terms(hit.title[:MAX_CHARS])) for hit in hits[:MAX_HITS]}
    known = {key: set(words) for key, words in titles.items()}
    for sentence in candidates:
        known[sentence.hit.id] |= sentence.found
    telling = {key for key, words in known.items() if _share(words, weights) >= _LEAST_SHARE}
    scores = {
        sentence: _score(sentence, weights, titles[sentence.hit.id])
        for sentence in candidates
        if sentence.hit.id in telling
    }
    chosen = sorted(_choose(scores), key=lambda sentence: sentence.place)
    return [(_cut(sentence.text), sentence.hit) for sentence in chosen]


def _candidates(hits: Sequence[Hit], wanted: frozenset[str]) -> list[_Sentence]:
    found: list[_Sentence] = []
    for hit in hits:
        cut = _remembered if len(hit.text) <= _REMEMBERED_CHARS else _prepared
        for number, (text, words) in enumerate(cut(hit.text[:MAX_CHARS])):
            found.append(_Sentence(text, hit, len(found), words, wanted.intersection(words), lead=number == 0))
    return found


def _prepared(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the readable sentences of a text, each with its words, in tuples: the garbage collector lets them be."""
    return tuple([(sentence, tuple(dict.fromkeys(terms(sentence)))) for sentence in _readable(text)])


_remembered = functools.lru_cache(_REMEMBERED)(_prepared)  # the same passages answer many queries


def _readable(text: str) -> Iterator[str]:
    """Yield the prose of a text, sentence by sentence on one line each; if there is none, its first words."""
    pieces = [" ".join(piece.split()) for piece in sentences(_RULE.sub("", text))]
    pieces = [piece for piece in pieces if piece]
    prose = [piece for piece in pieces if _is_prose(piece)]
    yield from prose or pieces[:1]


def _is_prose(piece: str) -> bool:
    words = piece.count(" ") + 1
    if words < 3 or (words < 7 and piece[-1] not in _ENDS) or _CODE.match(piece) or _SIGNATURE.match(piece):
        return False
    return _marks(piece) <= 0.25 * len(piece)


def _marks(piece: str) -> int:
    """Count what is neither a letter nor a blank."""
    if piece.isascii():
        return len(piece) - len(piece.encode().translate(None, _ASCII_MARKS))
    return len(_MARK.findall(piece))


def _weights(wanted: Collection[str], candidates: Sequence[_Sentence]) -> dict[str, float]:
    """Return the part of a query's weight that each term has: by its inverse frequency among the sentences."""
    counts = Counter(term for sentence in candidates for term in sentence.found)
    rare = {term: math.log(1 + (len(candidates) + 1) / (counts[term] + 1)) for term in wanted}
    total = math.fsum(rare.values()) or 1.0
    return {term: weight / total for term, weight in rare.items()}


def _share(found: Collection[str], weights: dict[str, float]) -> float:
    """Return which part of the query's weight some of its terms have; 0 to 1."""
    return math.fsum([weights[term] for term in found])


def _score(sentence: _Sentence, weights: dict[str, float], title: frozenset[str]) -> float:
    own = _share(sentence.found, weights)
    with_title = _share(sentence.found | title, weights) if title else own
    bonus = _LEAD_BONUS if sentence.lead else 0.0
    return own + _TITLE_SHARE * (with_title - own) + bonus - _RANK_PENALTY * (sentence.hit.rank - 1)


def _choose(scores: dict[_Sentence, float]) -> list[_Sentence]:
    """Take the best sentence again and again, each time counting down what repeats those taken."""
    chosen: list[_Sentence] = []
    words = 0
    left = dict(scores)
    least = _LEAST_GAIN * max(scores.values(), default=0.0)
    while left and len(chosen) < MAX_SENTENCES:
        best = max(left, key=lambda sentence: (left[sentence], -sentence.place))
        gain = left.pop(best)
        if chosen and gain < least:
            break
        length = len(best.text.split())
        if chosen and words + length > MAX_WORDS:
            continue
        chosen.append(best)
        words += length
        left = {
            other: score - _REPEAT_PENALTY * _overlap(best, other) for other, score in left.items() if score >= least
        }  # the others would not be chosen any more
    return chosen


def _overlap(one: _Sentence, other: _Sentence) -> float:
    """Return the share of common words among all words of two sentences; 0 to 1."""
    common = len(frozenset(one.words).intersection(other.words))
    return common / (len(one.words) + len(other.words) - common or 1)


def _cut(text: str) -> str:
    words = text.split()
    return text if len(words) <= MAX_WORDS else " ".join(words[:MAX_WORDS]) + "…"
