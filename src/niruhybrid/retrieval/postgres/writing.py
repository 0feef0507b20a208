"""What a write does: rows removed and added, the state moved on by one, all in one transaction.

A write locks its documents before it reads or changes anything of them: their rows in `niru.locks`, in the order of
the keys, so that writers wait for each other but never in a circle. Such a row is made where there is none, so two
writers of a new document take turns, too. Every later statement sees what earlier holders of these locks have
committed. The counts change by the rows that the statements removed and added.

The state's row is locked last, just before the commit, so that the order of watermarks is that in which writes become
visible; a reader of watermark n sees all of 1 to n.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from niruhybrid.retrieval.changes import Prepared, refuse_dimension
from niruhybrid.retrieval.passages import follow
from niruhybrid.retrieval.postgres import terms
from niruhybrid.retrieval.postgres.arrays import integers, vectors
from niruhybrid.retrieval.postgres.connection import Connection, Rows, Statement, ask
from niruhybrid.retrieval.postgres.filters import fields_of, kin_of
from niruhybrid.retrieval.postgres.reading import Piece
from niruhybrid.retrieval.postgres.schema import BATCH, VERSION
from niruhybrid.retrieval.postgres.state import Counts
from niruhybrid.retrieval.postgres.transactions import BEGIN, COMMIT, ROLLBACK
from niruhybrid.retrieval.session import split
from niruhybrid.types import IndexEntry

__all__ = ("CHANNEL", "Delete", "Upsert")

CHANNEL = "niru_writes"
"""Where each commit is told of, by its watermark."""

_KEYS = 'SELECT DISTINCT hashtextextended(id COLLATE "C", 0) AS key FROM unnest(%s::text[]) AS w (id)'
_LOCK = (
    f"INSERT INTO niru.locks (key) {_KEYS} ORDER BY key "
    "ON CONFLICT (key) DO UPDATE SET key = excluded.key WHERE false"  # locks the row, and does not write it
)
_UNLOCK = f"DELETE FROM niru.locks WHERE key IN ({_KEYS})"
_NEXT = (
    "WITH next AS MATERIALIZED (SELECT nextval('niru.batches') AS batch) "
    f"SELECT batch, pg_advisory_xact_lock(batch), set_config('niru.format', '{VERSION}', true) FROM next"
)
_REMOVE = (
    "DELETE FROM niru.passages p USING unnest(%s::text[], %s::bigint[]) AS w (id, first) "
    "WHERE p.id = w.id AND p.part >= w.first RETURNING p.row, p.part, p.length, p.terms"
)
_BEFORE = (
    "SELECT p.id, p.start, p.text, p.owner FROM niru.passages p "
    "JOIN unnest(%s::text[], %s::bigint[]) AS w (id, first) ON p.id = w.id AND p.part = w.first - 1"
)
_PASSAGES = (
    "INSERT INTO niru.passages (row, owner, part, start, length, id, kin, fields, title, metadata, text, terms) "
    "SELECT row, owner, part, start, length, id, kin, fields::jsonb, title, metadata, text, terms FROM unnest("
    "%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], "
    "%s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[]) "
    "AS new (row, owner, part, start, length, id, kin, fields, title, metadata, text, terms) ORDER BY id"
)
_VECTORS = "INSERT INTO niru.newest (row, vector) SELECT * FROM unnest(%s::bigint[], %s::vector[])"
_POSTINGS = (
    "INSERT INTO niru.postings (term, row, count, length) "
    "SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
)
_UNLIST = (
    "DELETE FROM niru.postings q USING unnest(%s::bigint[], %s::bigint[]) AS gone (term, row) "
    "WHERE q.term = gone.term AND q.row = gone.row"
)
_ADVANCE = (
    "WITH after AS (UPDATE niru.state SET watermark = watermark + 1, passages = passages + %(passages)s, "
    "documents = documents + %(documents)s, terms = terms + %(terms)s, changes = changes + %(changes)s, "
    "dimension = coalesce(dimension, %(dimension)s), parted = parted OR %(parted)s, kindred = kindred OR %(kindred)s "
    "RETURNING watermark, passages, documents, terms), "
    "kept AS (INSERT INTO niru.writes (watermark, batch) SELECT watermark, %(batch)s FROM after) "
    f"SELECT watermark, passages, documents, terms, pg_notify('{CHANNEL}', watermark::text) FROM after"
)


class _Removed(NamedTuple):
    """A passage that a write has removed.

    Attributes:
        row: its number.
        part: its place in its document.
        length: its terms, counted.
        terms: the terms, as they were kept.
    """

    row: int
    part: int
    length: int
    terms: bytes


class Upsert:
    """Keeps passages, in the place of those they replace; a `connection.Write`.

    Args:
        entries: as the store's `upsert` has them, at least one.
        kind: number of the type `vector` in this database.

    Attributes:
        batch: see `connection.Write`.
        watermark: see `connection.Write`.
        counts: what the state says after it; None until it is committed, and where a lost connection hid the answer.

    Raises:
        InvalidPassageError: the entries themselves leave a gap in a document.
        InvalidVectorError: vectors differ in length, or one is not finite.
    """

    def __init__(self, entries: Sequence[IndexEntry], kind: int) -> None:
        self.batch: int | None = None
        self.watermark = 0
        self.counts: Counts | None = None
        self._made = Prepared.of(entries)
        self._kind = kind
        self._words = [one.encode() for one in self._made.joined]
        self._fields = [fields_of(one) for one in self._made.as_kept]
        self._kins = [kin_of(one) for one in self._made.as_kept]
        self._postings = terms.entries(range(len(self._made.entries)), self._made.terms)  # with places for rows

    def run(self, connection: Connection) -> None:
        """Make the transaction; see `connection.Write`.

        Raises:
            InvalidPassageError: a passage does not follow what the store has of its document.
            InvalidVectorError: the vectors' length is not the store's.
        """
        runs = self._made.runs
        firsts = ([*runs], integers([run[0].part for run in runs.values()]))
        _, [[known]], _, gone, pieces, [[batch, *_]] = ask(
            connection,
            BEGIN,
            ("SELECT dimension FROM niru.state", ()),
            (_LOCK, (list(runs),)),
            (_REMOVE, firsts),
            (_BEFORE, firsts),
            (_NEXT, ()),
        )
        if known is None:  # of two first writers the second sees what the first has set
            [[[known]]] = ask(connection, ("SELECT dimension FROM niru.state FOR UPDATE", ()))
        refuse_dimension(self._made.vectors, known)
        self._refuse_gaps(pieces)
        removed = [_Removed(*row) for row in gone]
        rows = range(batch * BATCH, batch * BATCH + len(self._made.entries))
        owners = {name: owner for name, *_, owner in pieces}
        self.batch = batch
        self.watermark, self.counts = _committed(
            connection, _removal(removed), self._insertion(rows, owners), self._difference(batch, removed)
        )

    def _refuse_gaps(self, pieces: Rows) -> None:
        before = {name: Piece(start, text.decode()) for name, start, text, _ in pieces}
        for name, run in self._made.runs.items():
            if run[0].part:
                follow(name, run[0], before.get(name))

    def _insertion(self, rows: range, known: dict[str, int]) -> list[Statement]:
        made = self._made
        owners, at = [], 0
        for name, run in made.runs.items():
            owners += [known[name] if run[0].part else rows[at]] * len(run)
            at += len(run)
        documents = [one.document for one in made.entries]
        passages = (
            integers(rows),
            integers(owners),
            integers([one.part for one in made.entries]),
            integers([one.start for one in made.entries]),
            integers([len(words) for words in made.terms]),
            [one.id for one in documents],
            self._kins,
            self._fields,
            [one.title.encode() for one in documents],
            list(made.metadata),
            [one.text.encode() for one in documents],
            self._words,
        )
        term, place, count, length = self._postings
        return [
            (_PASSAGES, passages),
            (_VECTORS, (integers(rows), vectors(made.vectors, self._kind))),
            (_POSTINGS, tuple(map(integers, (term, place + rows.start, count, length)))),
        ]

    def _difference(self, batch: int, removed: Sequence[_Removed]) -> dict[str, Any]:
        made = self._made
        return {
            "batch": batch,
            "passages": len(made.entries) - len(removed),
            "documents": sum(not one.part for one in made.entries) - sum(not one.part for one in removed),
            "terms": sum(map(len, made.terms)) - sum(one.length for one in removed),
            "changes": len(made.entries) + len(removed),
            "dimension": made.vectors.shape[1],
            "parted": any(one.part for one in made.entries),
            "kindred": any(kin is not None for kin in self._kins),
        }


class Delete:
    """Removes documents; a `connection.Write`.

    Args:
        ids: of the documents; unknown ones are passed over.

    Attributes:
        batch: see `connection.Write`.
        watermark: see `connection.Write`; the present one where nothing was removed.
        removed: how many documents there were, once it has run.
        counts: see `Upsert`; None where nothing was removed, too.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self.batch: int | None = None
        self.watermark = 0
        self.removed = 0
        self.counts: Counts | None = None
        self._ids = list(dict.fromkeys(ids))

    def run(self, connection: Connection) -> None:
        """Make the transaction; see `connection.Write`."""
        _, _, gone, [[watermark]], [[batch, *_]] = ask(
            connection,
            BEGIN,
            (_LOCK, (self._ids,)),
            (_REMOVE, (self._ids, integers([0] * len(self._ids)))),
            ("SELECT watermark FROM niru.state", ()),
            (_NEXT, ()),
        )
        removed = [_Removed(*row) for row in gone]
        self.removed = sum(not one.part for one in removed)
        if not removed:
            ask(connection, ROLLBACK)  # at this watermark there was nothing: nobody else could write these documents
            self.watermark = watermark
            return
        difference = {
            "batch": batch,
            "passages": -len(removed),
            "documents": -self.removed,
            "terms": -sum(one.length for one in removed),
            "changes": len(removed),
            "dimension": None,
            "parted": False,
            "kindred": False,
        }
        self.batch = batch
        forgotten: list[Statement] = [(_UNLOCK, (self._ids,))]
        self.watermark, self.counts = _committed(connection, _removal(removed), forgotten, difference)


def _committed(
    connection: Connection, removal: list[Statement], rest: list[Statement], difference: dict[str, Any]
) -> tuple[int, Counts]:
    """Send all that is still to be changed, with the commit, in one go; return the watermark and the counts."""
    changes = [*removal, *rest]
    answers = ask(connection, *changes, (_ADVANCE, difference), COMMIT)
    [[watermark, passages, documents, words, _]] = answers[len(changes)]
    return int(watermark), Counts(int(passages), int(documents), int(words))


def _removal(removed: Sequence[_Removed]) -> list[Statement]:
    """Return the statements that remove what belongs to passages that are gone."""
    if not removed:
        return []
    rows = integers([one.row for one in removed])
    postings = terms.entries([one.row for one in removed], [split(one.terms.decode()) for one in removed])
    return [
        ("DELETE FROM niru.newest WHERE row = ANY(%s::bigint[])", (rows,)),
        ("DELETE FROM niru.settled WHERE row = ANY(%s::bigint[])", (rows,)),  # second: they move this way
        (_UNLIST, (integers(postings[0]), integers(postings[1]))),
    ]
