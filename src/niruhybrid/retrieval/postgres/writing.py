"""What a write does: rows removed and added, the state moved on by one, all in one transaction.

Documents that are there are locked by their first passages, in the order of their ids; of two writers who both bring a
new one, the unique index tells the second, who begins again. The state's row is locked last, just before the commit,
so that the order of watermarks is that in which writes become visible; a reader of watermark n sees all of 1 to n.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from niruhybrid.retrieval.changes import Prepared, refuse_dimension
from niruhybrid.retrieval.passages import follow
from niruhybrid.retrieval.postgres import terms
from niruhybrid.retrieval.postgres.arrays import integers, vectors
from niruhybrid.retrieval.postgres.connection import Connection, Rows, Statement, ask
from niruhybrid.retrieval.postgres.filters import fields_of, kin_of
from niruhybrid.retrieval.postgres.reading import Piece
from niruhybrid.retrieval.postgres.schema import BATCH
from niruhybrid.retrieval.postgres.transactions import BEGIN, COMMIT
from niruhybrid.retrieval.session import split
from niruhybrid.types import IndexEntry

__all__ = ("CHANNEL", "Delete", "Upsert")

CHANNEL = "niru_writes"
"""Where each commit is told of, by its watermark."""

_LOCK = "SELECT id, row FROM niru.passages WHERE id = ANY(%s) AND part = 0 ORDER BY id FOR UPDATE"
_NEXT = (
    "WITH next AS MATERIALIZED (SELECT nextval('niru.batches') AS batch) "
    "SELECT batch, pg_advisory_xact_lock(batch) FROM next"
)
_REPLACED = (
    "SELECT p.row, p.terms FROM niru.passages p "
    "JOIN unnest(%s::text[], %s::bigint[]) AS w (id, first) ON p.id = w.id AND p.part >= w.first"
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
_VECTORS = "INSERT INTO niru.vectors (row, vector) SELECT * FROM unnest(%s::bigint[], %s::vector[])"
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
    "RETURNING watermark, passages), "
    "kept AS (INSERT INTO niru.writes (watermark, batch) SELECT watermark, %(batch)s FROM after) "
    f"SELECT watermark, passages, pg_notify('{CHANNEL}', watermark::text) FROM after"
)


class Upsert:
    """Keeps passages, in the place of those they replace; a `connection.Write`.

    Args:
        entries: as the store's `upsert` has them, at least one.
        kind: number of the type `vector` in this database.

    Attributes:
        batch: see `connection.Write`.
        watermark: see `connection.Write`.
        passages: how many there were after it; 0 where that was not told.

    Raises:
        InvalidPassageError: the entries themselves leave a gap in a document.
        InvalidVectorError: vectors differ in length, or one is not finite.
    """

    def __init__(self, entries: Sequence[IndexEntry], kind: int) -> None:
        self.batch: int | None = None
        self.watermark = 0
        self.passages = 0
        self._made = Prepared.of(entries)
        self._kind = kind
        self._words = [one.encode() for one in self._made.joined]
        self._fields = [fields_of(one) for one in self._made.as_kept]
        self._kins = [kin_of(one) for one in self._made.as_kept]

    def run(self, connection: Connection) -> None:
        """Make the transaction; see `connection.Write`.

        Raises:
            InvalidPassageError: a passage does not follow what the store has of its document.
            InvalidVectorError: the vectors' length is not the store's.
        """
        runs = self._made.runs
        dimension = ("SELECT dimension FROM niru.state", ())
        _, [[known]], found, [[batch, _]] = ask(connection, BEGIN, dimension, (_LOCK, (list(runs),)), (_NEXT, ()))
        if known is None:  # of two first writers the second sees what the first has set
            [[[known]]] = ask(connection, ("SELECT dimension FROM niru.state FOR UPDATE", ()))
        refuse_dimension(self._made.vectors, known)
        owners: dict[str, int] = dict(found)
        firsts = ([*runs], integers([run[0].part for run in runs.values()]))
        removed: Rows = []
        pieces: Rows = []
        if owners or any(run[0].part for run in runs.values()):
            removed, pieces = ask(connection, (_REPLACED, firsts), (_BEFORE, firsts))
        self._refuse_gaps(pieces)
        rows = range(batch * BATCH, batch * BATCH + len(self._made.entries))
        fresh = sum(not run[0].part and name not in owners for name, run in runs.items())
        self.batch = batch
        self.watermark, self.passages = _committed(
            connection, _removal(removed), self._insertion(rows, owners), self._difference(batch, fresh, removed)
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
        postings = terms.entries(rows, made.terms)
        return [
            (_PASSAGES, passages),
            (_VECTORS, (integers(rows), vectors(made.vectors, self._kind))),
            (_POSTINGS, tuple(map(integers, postings))),
        ]

    def _difference(self, batch: int, fresh: int, removed: Rows) -> dict[str, Any]:
        made = self._made
        return {
            "batch": batch,
            "passages": len(made.entries) - len(removed),
            "documents": fresh,
            "terms": sum(map(len, made.terms)) - _length(removed),
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
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self.batch: int | None = None
        self.watermark = 0
        self.removed = 0
        self._ids = list(dict.fromkeys(ids))

    def run(self, connection: Connection) -> None:
        """Make the transaction; see `connection.Write`."""
        state = ("SELECT watermark FROM niru.state", ())
        _, found, [[watermark]], [[batch, _]] = ask(connection, BEGIN, (_LOCK, (self._ids,)), state, (_NEXT, ()))
        self.removed = len(found)
        if not found:
            ask(connection, COMMIT)
            self.watermark = watermark
            return
        names = [name for name, _ in found]
        [removed] = ask(connection, (_REPLACED, (names, integers([0] * len(names)))))
        difference = {
            "batch": batch,
            "passages": -len(removed),
            "documents": -len(found),
            "terms": -_length(removed),
            "changes": len(removed),
            "dimension": None,
            "parted": False,
            "kindred": False,
        }
        self.batch = batch
        self.watermark, _ = _committed(connection, _removal(removed), [], difference)


def _committed(
    connection: Connection, removal: list[Statement], insertion: list[Statement], difference: dict[str, Any]
) -> tuple[int, int]:
    """Send all that changes something, with the commit, in one go; return the watermark, and how many passages are."""
    changes = [*removal, *insertion]
    answers = ask(connection, *changes, (_ADVANCE, difference), COMMIT)
    [[watermark, passages, _]] = answers[len(changes)]
    return int(watermark), int(passages)


def _removal(removed: Rows) -> list[Statement]:
    if not removed:
        return []
    rows = integers([row for row, _ in removed])
    postings = terms.entries([row for row, _ in removed], [split(words.decode()) for _, words in removed])
    return [
        ("DELETE FROM niru.passages WHERE row = ANY(%s::bigint[])", (rows,)),
        ("DELETE FROM niru.vectors WHERE row = ANY(%s::bigint[])", (rows,)),
        (_UNLIST, (integers(postings[0]), integers(postings[1]))),
    ]


def _length(removed: Rows) -> int:
    return int(np.sum([len(split(words.decode())) for _, words in removed], dtype=np.int64))
