"""The lexical index: exact BM25 over analysed terms, fresh at every change.

Like all derived indexes it is a value: a change makes a new one and leaves the old as it was. Documents are known by
slot, their place in the order of writing. Most are in postings, which never change; what came since these were made is
a journal, turned into postings when it gets long.

The scores are those of BM25 with k1 = 1.2, b = 0.75 and the weight of a term ln(1 + (N - n + .5) / (n + .5)), all
statistics being those of the documents that are there.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.fusion import term_norm
from niruhybrid.retrieval.growing import Growing
from niruhybrid.retrieval.journal import GONE, Entries, Journal
from niruhybrid.retrieval.matching import Collection, Enough, Weighed, best, best_matches, entries, having, occurrences
from niruhybrid.retrieval.postings import K1, MOST_COUNTED, Postings, average_length, merged, saturation, spread
from niruhybrid.retrieval.repeats import Owned, Owners, changed_repeats
from niruhybrid.retrieval.siblings import Siblings

__all__ = ("MAX_QUERY_TERMS", "LexicalIndex", "LexicalQuery", "query_weights", "term_weights")

MAX_QUERY_TERMS = 128
"""Terms of one query that count, the first ones; what a query costs grows with each."""

_MERGED_WHEN = 4  # a part is merged with those behind it when they have a quarter of its entries

Ints = NDArray[Any]
Floats = NDArray[np.float32]
Allowed = NDArray[np.bool_]


class LexicalQuery(NamedTuple):
    """The terms of a query, weighed by what is in an index.

    Attributes:
        terms: number of each known term that counts, `(n,)` ascending.
        weights: what each can add to a document's score at the most, `(n,)` float32, above 0.
        norm: `fusion.term_norm` of all its terms, unknown ones included.
        recent: what the index's journal has of the terms.
        size: terms that were asked for, known or not.
        times: how often each term is asked for, `(n,)` float32.
        have: how many have it, `(n,)`.
        strange: how often each unknown term is asked for.
    """

    terms: Ints
    weights: Floats
    norm: float
    recent: Entries
    size: int
    times: Floats
    have: Ints
    strange: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LexicalIndex:
    """Which documents have which terms.

    Attributes:
        vocabulary: number of each term. States that follow each other share it and it only grows, so it may have more
            terms than this state knows; `compacted` starts a new one, of the terms that documents have.
        parts: the postings, of ascending slots.
        frequencies: documents that have each term, by its number, when the last part was made.
        repeats: by its number, how many more passages than documents have each term now; 0 behind the last one.
        lengths: terms of each document, by slot.
        documents: how many there are, each passage being one.
        owners: how many there are, all passages of one being one.
        total: terms of all documents.
    """

    vocabulary: dict[str, int]
    parts: tuple[Postings, ...]
    frequencies: Ints
    repeats: Ints
    lengths: Growing[np.float32]
    documents: int
    owners: int
    total: int
    _journal: Journal

    @classmethod
    def of(
        cls,
        vocabulary: dict[str, int],
        parts: Sequence[Postings] = (),
        frequencies: Ints | None = None,
        lengths: Growing[np.float32] | None = None,
        *,
        live: Allowed | None = None,
        repeats: Ints | None = None,
        owners: int | None = None,
    ) -> Self:
        """Return an index of given postings, of which the documents that are `live` are there, or an empty one.

        Without `repeats` and `owners` each passage is a document of its own.
        """
        known = Growing[np.float32].empty(np.float32) if lengths is None else lengths
        counted = np.zeros(0, np.int32) if frequencies is None else frequencies
        there = known.items[live] if live is not None else known.items
        return cls(
            vocabulary,
            tuple(parts),
            counted,
            np.zeros(0, np.int32) if repeats is None else repeats,
            known,
            len(there),
            len(there) if owners is None else owners,
            int(there.sum(dtype=np.float64)),
            Journal.blank(),
        )

    @property
    def unmerged(self) -> int:
        """Entries that are in no postings yet."""
        return len(self._journal)

    @property
    def merged_entries(self) -> int:
        """Entries of the postings, and room in their tables."""
        return sum(map(len, self.parts))

    @property
    def numbering(self) -> object:
        """What gives terms their numbers: these are good as long as it is the same object."""
        return self.vocabulary

    def changed(
        self, removed: Mapping[int, Iterable[str]], added: Sequence[Sequence[str]], owners: Owners | None = None
    ) -> Self:
        """Return the index after a change.

        Args:
            removed: slots to forget, each with its terms; each must be there.
            added: terms of each new document, in the order of the slots that follow the last one.
            owners: whose passages these are; None if each is a document of its own, those removed too.
        """
        entries: list[tuple[int, int, int]] = []
        numbers = self.vocabulary
        for terms in removed.values():
            entries += ((numbers[term], GONE, 0) for term in set(terms))
        gone = len(entries)
        for slot, terms in enumerate(added, start=len(self.lengths)):
            for term, count in Counter(terms).items():
                entries.append((numbers.setdefault(term, len(numbers)), slot, min(count, MOST_COUNTED)))
        columns = tuple(zip(*entries, strict=True)) if entries else ((), (), ())
        sizes = [len(terms) for terms in added]
        lost = sum(int(self.lengths.items[slot]) for slot in removed)
        repeats = self.repeats
        if owners is not None and entries:
            sizes_removed = [len(set(terms)) for terms in removed.values()]
            before = Owned(np.array(columns[0][:gone]), np.repeat(owners.removed, sizes_removed))
            places = np.array(columns[1][gone:], np.intp) - len(self.lengths)
            after = Owned(np.array(columns[0][gone:]), np.asarray(owners.added, np.int64)[places])
            repeats = changed_repeats(repeats, before, after, self._kept(before, after, owners))
        return type(self)(
            numbers,
            self.parts,
            self.frequencies,
            repeats,
            self.lengths.extended(sizes),
            self.documents - len(removed) + len(added),
            self.owners + (len(added) - len(removed) if owners is None else owners.difference),
            self.total - lost + sum(sizes),
            self._journal.extended(*columns),
        )

    def weighed(self, queries: Sequence[Sequence[str]]) -> list[LexicalQuery]:
        """Return queries of analysed terms, ready for `search`; of each the first 128 count, as often as they come."""
        counted = [Counter(terms[:MAX_QUERY_TERMS]) for terms in queries]
        known = [_known(self.vocabulary, terms) for terms in counted]
        numbers = np.array([number for terms in known for number in terms], np.int32)
        times = np.array([asked for terms in known for asked in terms.values()], np.float32)
        recent = self._journal.of(numbers)
        have = self._have(numbers, recent)
        weights = times * term_weights(have, self.documents)
        found, start = [], 0
        for terms, asked in zip(known, counted, strict=True):
            here = slice(start, start + len(terms))
            strange = tuple(times for term, times in asked.items() if term not in self.vocabulary)
            found.append(
                LexicalQuery(
                    numbers[here],
                    weights[here],
                    _norm(weights[here], strange, self.documents),
                    _within(recent, here),
                    sum(asked.values()),
                    times[here],
                    have[here],
                    strange,
                )
            )
            start = here.stop
        return found

    @property
    def average(self) -> float:
        """Terms of a document in the mean; 1 at the least."""
        return average_length(self.total, self.documents)

    def occurrences(self, terms: Ints) -> Floats:
        """Return how often each document has each of some terms, `(t, slots)`, also of those that are gone.

        Args:
            terms: numbers, `(t,)` ascending, none twice.
        """
        counts = np.zeros((len(terms), len(self.lengths)), np.float32)
        query = Weighed(terms, np.ones(len(terms), np.float32), _there(self._journal.of(terms)))
        slots, listed, rows = entries(self._collection(None), query, np.arange(len(terms)))
        counts[rows, slots] = listed
        for part in self.parts:
            for row, term in enumerate(terms.tolist()):
                if (common := part.common.get(term)) is not None:
                    counts[row, part.span] = part.table[common]
        return counts

    def search(
        self,
        queries: Sequence[LexicalQuery],
        limits: Sequence[int],
        allowed: Sequence[Allowed],
        also: Sequence[Ints] | None = None,
        enough: Sequence[Enough | None] | None = None,
    ) -> list[tuple[Ints, Floats]]:
        """Find the documents that have any of a query's terms.

        Args:
            queries: what `weighed` returned for each.
            limits: documents wanted for each, at least 1.
            allowed: for each, `(slots,)`, whether a document may be found; False for those that are gone.
            also: for each, slots to be scored with these, ascending; by default none.
            enough: for each, what gives the score that any other slot needs, of the scores of `also`; by default none
                is needed.

        Returns:
            For each query its `limit` best slots, or all that match and have enough, and those of `also`, ascending,
            and their scores, above 0 for documents that match; of equal ones the lower slots.
        """
        some = [np.empty(0, np.intp)] * len(queries) if also is None else also
        need = [None] * len(queries) if enough is None else enough
        free = {id(may): bool(may.all()) for may in allowed}
        return [
            self._best(query, limit, None if free[id(may)] else may, more, least)
            for query, limit, may, more, least in zip(queries, limits, allowed, some, need, strict=True)
        ]

    def together(self, query: LexicalQuery, some: Siblings) -> Floats:
        """Return the scores of documents as if all passages of each were one, `(d,)`, as shares of the query's length.

        Terms weigh by how many documents have them: one that most have counts little, however few passages have it.

        Args:
            query: what `weighed` returned.
            some: documents, each with its passages, in this index.

        Returns:
            Scores over the query's length, `fusion.term_norm` of the weights that its terms have among documents.
        """
        if not len(some.owners) or not len(query.terms):
            return np.zeros(len(some.owners), np.float32)
        weights, norm = self.document_weights(query)
        counts = some.sums(occurrences(self._collection(None), _in_matching(query), some.slots))
        lengths = some.sums(self.lengths.items[some.slots])
        shares = saturation(counts, spread(lengths, average_length(self.total, self.owners)))
        shares *= weights[:, None]
        scores: Floats = shares.sum(axis=0)
        scores /= np.float32(norm)
        return scores

    def document_weights(self, query: LexicalQuery) -> tuple[Floats, float]:
        """Return how much each of a query's terms counts among whole documents, and their `fusion.term_norm`."""
        have = query.have - _at(self.repeats, query.terms)
        return query_weights(query.times, have, query.strange, self.owners)

    def number_of(self, term: str) -> int:
        """Return the number of a term; -1 if no document has had it."""
        return self.vocabulary.get(term, -1)

    def weights(self, terms: Ints) -> tuple[Floats, Floats]:
        """Return how much each of many terms counts in a query that has it once; -1 is an unknown term.

        Returns:
            By how many passages have it, `(n,)`, and by how many documents do, `(n,)`.
        """
        recent = self._journal.since(0)
        known = (terms.max(initial=-1), recent.terms.max(initial=-1), len(self.frequencies) - 1)
        have = np.bincount(recent.terms, np.where(recent.slots == GONE, -1, 1), int(max(known)) + 2)  # the last: for -1
        have[: len(self.frequencies)] += self.frequencies
        passages, repeats = have[terms], _at(self.repeats, terms)
        return term_weights(passages, self.documents), term_weights(passages - repeats, self.owners)

    def merged(self, live: Allowed) -> Self:
        """Return the same index without a journal: it, and the parts that it has outgrown, become one part.

        Args:
            live: `(slots,)`, whether a document is there.
        """
        first = self._outgrown()
        part = self._one_part(first, np.where(live, np.arange(len(live)), GONE), self.lengths.items)
        return self._with((*self.parts[:first], *part), self.lengths)

    def compacted(self, live: Allowed) -> Self:
        """Return the same index as one part, with the slots of documents that are gone closed up.

        Its vocabulary is a new one, of the terms that are left, if there are any that no document has.
        """
        lengths = self.lengths.items[live]
        part = self._one_part(0, np.where(live, np.cumsum(live) - 1, GONE), lengths)
        made = self._with(part, Growing.of(lengths))
        left = np.flatnonzero(made.frequencies)
        if len(left) == len(made.vocabulary):
            return made
        names = list(made.vocabulary)
        places = np.cumsum(made.frequencies > 0) - 1
        return replace(
            made,
            vocabulary={names[old]: new for new, old in enumerate(left.tolist())},
            parts=tuple(one.renumbered(places) for one in made.parts),
            frequencies=made.frequencies[left],
            repeats=_at(made.repeats, left),
        )

    def terms_of(self, slots: Ints) -> dict[int, list[str]]:
        """Return the different terms of documents, in no particular order; of an index without a journal."""
        names = list(self.vocabulary)
        found: dict[int, list[str]] = {slot: [] for slot in slots.tolist()}
        for part in self.parts:
            for term, slot in part.terms_of(slots):
                found[slot].append(names[term])
        return found

    def followed_by(self, before: Self, after: Self) -> Self:
        """Return the index that this one becomes by the changes that led from `before` to `after`.

        Args:
            before: what this one was made from, by `merged` or `compacted`.
            after: what has become of it.
        """
        shift = len(before.lengths) - len(self.lengths)
        late = after._journal.since(before.unmerged)
        slots = np.where(late.slots == GONE, GONE, late.slots - shift)
        terms, repeats = late.terms, after.repeats
        if self.vocabulary is not after.vocabulary:
            terms, repeats = self._renumbered(terms, before.repeats, after)
        return replace(
            self,
            repeats=repeats,
            lengths=self.lengths.extended(after.lengths.items[len(before.lengths) :]) if shift else after.lengths,
            documents=after.documents,
            owners=after.owners,
            total=after.total,
            _journal=self._journal.extended(terms, slots, late.counts),
        )

    def _renumbered(self, terms: Ints, repeats: Ints, after: Self) -> tuple[Ints, Ints]:
        """Return terms of another state by the numbers they have here, new ones if need be, and its repeats.

        Args:
            terms: numbers that `after` has for them.
            repeats: of the state that `after` has grown from, and this one was made from.
            after: the other state.
        """
        names = list(after.vocabulary)
        earlier = np.zeros(len(after.repeats), np.int32)
        earlier[: len(repeats)] = repeats
        differing = np.flatnonzero(after.repeats != earlier)
        old, places = np.unique(np.concatenate((terms, differing)), return_inverse=True)
        numbers = [self.vocabulary.setdefault(names[number], len(self.vocabulary)) for number in old.tolist()]
        here = np.array(numbers, np.int32)[places]
        size = max(len(self.repeats), int(here.max(initial=-1)) + 1)
        changed = np.zeros(size, np.int32)
        changed[: len(self.repeats)] = self.repeats
        changed[here[len(terms) :]] += (after.repeats - earlier)[differing]
        return here[: len(terms)], changed

    def _kept(self, before: Owned, after: Owned, owners: Owners) -> Owned:
        """Return which terms of a change the passages have that stay of the documents it is about."""
        wanted = np.unique(np.concatenate((before.terms, after.terms)))
        if not len(owners.kept):
            return Owned(wanted[:0], owners.of_kept[:0])
        there = self._journal.of(wanted)
        slots, terms = having(
            self._collection(None), Weighed(wanted, np.ones(len(wanted), np.float32), _there(there)), owners.kept
        )
        return Owned(wanted[terms], owners.of_kept[owners.kept.searchsorted(slots)])

    def _with(self, parts: tuple[Postings, ...], lengths: Growing[np.float32]) -> Self:
        """Return the index with other parts, which have all that the journal says."""
        recent = self._journal.since(0)
        signs = np.where(recent.slots == GONE, -1, 1)
        frequencies = np.bincount(recent.terms, signs, len(self.vocabulary)).astype(np.int32)
        frequencies[: len(self.frequencies)] += self.frequencies
        return replace(self, parts=parts, frequencies=frequencies, lengths=lengths, _journal=Journal.blank())

    def _one_part(self, first: int, places: Ints, lengths: Floats) -> tuple[Postings, ...]:
        """Merge the parts from `first` on, and the journal, into one; none if no document is left."""
        recent = self._journal.since(0)
        added = recent.slots != GONE
        entries = (recent.terms[added], recent.slots[added], recent.counts[added])
        made = merged(self.parts[first:], entries, places, lengths, self.average)
        return () if made is None else (made,)

    def _outgrown(self) -> int:
        """Return the first part that is small beside what is behind it."""
        behind, first = self.unmerged, len(self.parts)
        while first and len(self.parts[first - 1]) < behind * _MERGED_WHEN:
            first -= 1
            behind += len(self.parts[first])
        return first

    def _best(
        self, query: LexicalQuery, limit: int, allowed: Allowed | None, also: Ints, enough: Enough | None
    ) -> tuple[Ints, Floats]:
        if not len(query.terms):
            return also, np.zeros(len(also), np.float32)
        found, wanted = best_matches(self._collection(allowed), _in_matching(query), limit, also, enough)
        slots, scores = best(*found, limit)
        if len(also):
            slots, first = np.unique(np.append(also, slots), return_index=True)
            scores = np.append(wanted, scores)[first]
        return slots, scores

    def _collection(self, allowed: Allowed | None) -> Collection:
        return Collection(self.parts, self.lengths.items, self.average, allowed)

    def _have(self, terms: Ints, recent: Entries) -> Ints:
        """Return how many documents have each term."""
        have = np.bincount(recent.terms, minlength=len(terms))
        gone = recent.terms[recent.slots == GONE]
        if len(gone):
            have -= 2 * np.bincount(gone, minlength=len(terms))
        old = terms < len(self.frequencies)
        have[old] += self.frequencies[terms[old]]
        return have


def term_weights(have: Ints, total: int) -> Floats:
    """Return how much each term counts in a query that has it once, above 0: all it can add to a score, elementwise.

    Args:
        have: how many documents have it.
        total: how many there are; taken for `have` where it is less.
    """
    others: Ints = np.maximum(total - have, 0)  # counts of different moments may say that more have it than there are
    return ((K1 + 1.0) * np.log1p((others + 0.5) / (have + 0.5))).astype(np.float32)


def query_weights(times: Floats, have: Ints, strange: Sequence[int], total: int) -> tuple[Floats, float]:
    """Return how much each term of a query counts, of which some of `total` have each, and `fusion.term_norm`."""
    weights: Floats = times * term_weights(have, total)
    return weights, _norm(weights, strange, total)


def _norm(weights: Floats, strange: Sequence[int], total: int) -> float:
    unknown = (K1 + 1.0) * math.log1p((total + 0.5) / 0.5)
    return term_norm([*(unknown * asked for asked in strange), *weights.tolist()])


def _at(counts: Ints, terms: Ints) -> Ints:
    """Return counts by the numbers of terms; 0 for those behind the last one, and for -1."""
    found = np.zeros(len(terms), np.int32)
    known = (terms >= 0) & (terms < len(counts))
    found[known] = counts[terms[known]]
    return found


def _known(vocabulary: Mapping[str, int], asked: Mapping[str, int]) -> dict[int, int]:
    """Return the numbers of known terms, ascending, and how often each is asked for."""
    return dict(sorted((vocabulary[term], times) for term, times in asked.items() if term in vocabulary))


def _within(recent: Entries, places: slice) -> Entries:
    """Return those of the entries whose terms have these places, counted from the first."""
    if not len(recent.terms):
        return recent
    here = slice(*recent.terms.searchsorted((places.start, places.stop)).tolist())
    return Entries(recent.terms[here] - places.start, recent.slots[here], recent.counts[here])


def _in_matching(query: LexicalQuery) -> Weighed:
    return Weighed(query.terms, query.weights, _there(query.recent))


def _there(recent: Entries) -> Entries:
    """Return the entries that are not about removed documents."""
    if not len(recent.slots) or recent.slots.min() != GONE:
        return recent
    there = recent.slots != GONE
    return Entries(recent.terms[there], recent.slots[there], recent.counts[there])
