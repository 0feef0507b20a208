"""How good a store's ranking is: each query is asked by words, by meaning and by both, and held to the judgements.

The measures are trec_eval's, through ir-measures, which comes with the extra `eval`. Documents and queries take the way
they take in a pipeline: the same texts to the encoder, the same terms, a store of the same settings, in memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean
from typing import Any, NamedTuple

import ir_measures
from ir_measures import RR, R, nDCG

from niruhybrid.analysis import terms
from niruhybrid.config import StoreConfig, StreamingConfig
from niruhybrid.evaluation.collection import Collection
from niruhybrid.evaluation.vectors import VectorCache
from niruhybrid.ports import Encoder
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.streaming.reading import Reader, entry_of
from niruhybrid.types import Document, SearchMode, SearchRequest, Vector
from niruhybrid.windows import Window

__all__ = ("MEASURES", "MODES", "Evaluation", "Loser", "evaluate", "mean_of")

MODES: tuple[SearchMode, ...] = ("lexical", "dense", "hybrid")
_MEASURED = {nDCG @ 10: "nDCG@10", R @ 100: "R@100", RR @ 10: "MRR@10"}
MEASURES = tuple(_MEASURED.values())

_DEPTH = 100
_QUERIES_AT_ONCE = 32
_PASSAGES_AT_ONCE = 512

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

Rankings = dict[str, dict[str, float]]
"""Of each query, a score by document that falls from rank to rank."""


class _Passage(NamedTuple):
    """A passage of a document, and what the encoder reads of it."""

    document: Document
    window: Window
    read: str | Window


class Loser(NamedTuple):
    """A query that hybrid search answers worse than one of its halves.

    Attributes:
        query: its id.
        text: what is asked.
        lexical, dense, hybrid: nDCG@10 of each.
    """

    query: str
    text: str
    lexical: float
    dense: float
    hybrid: float

    @property
    def loss(self) -> float:
        """How far hybrid is behind the better half, in nDCG@10."""
        return max(self.lexical, self.dense) - self.hybrid


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured on one collection.

    Attributes:
        name: the collection's name.
        documents: how many were searched.
        queries: how many were asked, all with a relevant document.
        means: by mode and measure, the mean over the queries, 0 to 1.
        losers: the queries that hybrid search answers worse than one of its halves, the greatest loss first.
        notes: what the collection left out.
    """

    name: str
    documents: int
    queries: int
    means: Mapping[str, Mapping[str, float]]
    losers: tuple[Loser, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self, losers: int) -> dict[str, Any]:
        """Return it as JSON-ready values, with the `losers` greatest losers."""
        return {
            "name": self.name,
            "documents": self.documents,
            "queries": self.queries,
            "notes": list(self.notes),
            "means": {mode: dict(values) for mode, values in self.means.items()},
            "losers": [loser._asdict() for loser in self.losers[:losers]],
        }


def evaluate(
    collection: Collection, vectors: VectorCache, config: StoreConfig, on_progress: Progress | None = None
) -> Evaluation:
    """Measure lexical, dense and hybrid search on a collection.

    Args:
        collection: what is searched and asked.
        vectors: the encoder, with what it encoded before.
        config: settings of the store; its path does not count.
        on_progress: told how it goes on.

    Raises:
        EncoderError, StoreError: as the encoder and the store do.
    """
    tell = on_progress or (lambda what, done, total: None)  # noqa: ARG005  # nobody listens
    queries = list(collection.queries.items())
    with EmbeddedStore(config=replace(config, path=None)) as store:
        _fill(store, collection.documents, vectors, tell)
        asked = vectors.encode([text for _, text in queries])
        found = _asked(store, queries, asked, tell)
    by_query: dict[str, dict[str, dict[str, float]]] = {
        mode: _measured(collection.judgements, found[mode]) for mode in MODES
    }
    means: dict[str, dict[str, float]] = {
        mode: {measure: fmean(values[measure] for values in by_query[mode].values()) for measure in MEASURES}
        for mode in MODES
    }
    losers = _losers(collection.queries, by_query)
    return Evaluation(collection.name, len(collection.documents), len(queries), means, losers, collection.notes)


def mean_of(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, float]]:
    """Return the mean over collections, each counting the same, by mode and measure."""
    return {
        mode: {measure: fmean(each.means[mode][measure] for each in evaluations) for measure in MEASURES}
        for mode in MODES
    }


def _fill(store: EmbeddedStore, documents: Sequence[Document], vectors: VectorCache, tell: Progress) -> None:
    passages = list(_passages(documents, vectors.encoder))
    total = len(passages)
    matrix = vectors.encode([passage.read for passage in passages], lambda done: tell("encoding passages", done, total))
    rows = iter(zip(passages, matrix, strict=True))
    done = 0
    while chunk := list(islice(rows, _PASSAGES_AT_ONCE)):
        store.upsert([entry_of(one.document, one.window, vector, _terms) for one, vector in chunk])
        done += len(chunk)
        tell("storing passages", done, total)


def _passages(documents: Sequence[Document], encoder: Encoder) -> Iterator[_Passage]:
    """Yield what a pipeline of default settings makes of documents."""
    reader = Reader(encoder, StreamingConfig())
    for document in documents:
        for window in reader.windows(document.text, reader.cutter(document.title)):
            yield _Passage(document, window, reader.read(window, document.title))


def _terms(document: Document) -> list[str]:
    return terms(f"{document.title}\n{document.text}" if document.title else document.text)


def _asked(
    store: EmbeddedStore, queries: Sequence[tuple[str, str]], vectors: Vector, tell: Progress
) -> dict[str, Rankings]:
    """Return what each mode found."""
    found: dict[str, Rankings] = {mode: {} for mode in MODES}
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        part = queries[start : start + _QUERIES_AT_ONCE]
        for mode, requests in _requests(part, vectors[start : start + _QUERIES_AT_ONCE]):
            for (name, _), response in zip(part, store.search(requests), strict=True):
                found[mode][name] = {hit.id: 1.0 / hit.rank for hit in response.hits}
        tell("asking queries", start + len(part), len(queries))
    return found


def _requests(queries: Sequence[tuple[str, str]], vectors: Vector) -> Iterator[tuple[str, list[SearchRequest]]]:
    """Yield the queries as each mode asks them."""
    asked = [(vector, terms(text)) for (_, text), vector in zip(queries, vectors, strict=True)]
    for mode in MODES:
        yield mode, [SearchRequest(vector, words, _DEPTH, mode=mode) for vector, words in asked]


def _measured(judgements: Mapping[str, Mapping[str, int]], found: Rankings) -> dict[str, dict[str, float]]:
    """Return each query's measures; one that found nothing has 0 in all."""
    grades = {name: dict(of_query) for name, of_query in judgements.items()}
    values = {name: dict.fromkeys(MEASURES, 0.0) for name in grades}
    for metric in ir_measures.iter_calc(list(_MEASURED), grades, found):
        values[metric.query_id][_MEASURED[metric.measure]] = float(metric.value)
    return values


def _losers(queries: Mapping[str, str], by_query: Mapping[str, Mapping[str, Mapping[str, float]]]) -> tuple[Loser, ...]:
    candidates = (
        Loser(name, text, *(by_query[mode][name]["nDCG@10"] for mode in MODES)) for name, text in queries.items()
    )
    lost = [loser for loser in candidates if loser.loss > 0.0]
    return tuple(sorted(lost, key=lambda loser: (-loser.loss, loser.query)))
