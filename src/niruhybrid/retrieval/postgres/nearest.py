"""The dense half, as statements: all vectors compared, or the index asked for likely ones that are then compared.

The index has half-precision copies; what it finds is compared again by the vectors themselves. It is asked only where
comparing all would take longer: in a large store, and with a filter that lets many pass.
"""

from niruhybrid.retrieval.postgres.arrays import integers
from niruhybrid.retrieval.postgres.connection import Statement
from niruhybrid.retrieval.postgres.filters import Where
from niruhybrid.retrieval.postgres.schema import NEAREST
from niruhybrid.types import Vector

__all__ = ("EXACT", "MOST_DIMENSIONS", "compared", "cosines", "index", "likely", "passing", "settings")

EXACT = 20_000
"""So many vectors are compared as fast as the index finds some among more."""

MOST_DIMENSIONS = 4000
"""Of what the index takes; longer vectors are always compared."""

_SPARE = 1.5  # times as many candidates as are wanted: half precision may get their order wrong
_BEAM = 1000  # the longest list that the index's search takes

_PRODUCT = "-(v.vector <#> %(vector)s::float8[]::vector)"


def compared(vector: Vector, limit: int, where: Where) -> Statement:
    """Return the statement that finds the `limit` nearest rows and their inner products, among those that pass."""
    sql = (
        f"SELECT v.row, {_PRODUCT} AS near FROM niru.vectors v{where.joined} ORDER BY near DESC, v.row LIMIT %(limit)s"
    )
    return sql, where.values | {"vector": vector.tolist(), "limit": limit}


def likely(vector: Vector, limit: int, where: Where) -> Statement:
    """Return the same by the index; needs `settings`."""
    half = f"halfvec({len(vector)})"
    sql = (
        f"WITH v AS MATERIALIZED (SELECT v.row, v.vector FROM niru.vectors v{where.joined} "
        f"ORDER BY v.vector::{half} <#> %(vector)s::float8[]::vector::{half} LIMIT %(spare)s) "
        f"SELECT v.row, {_PRODUCT} AS near FROM v ORDER BY near DESC, v.row LIMIT %(limit)s"
    )
    return sql, where.values | {"vector": vector.tolist(), "limit": limit, "spare": int(limit * _SPARE)}


def settings(limit: int) -> Statement:
    """Return the statement that has the index look deep enough for `limit` rows, until the transaction's end."""
    return (
        "SELECT set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', 'relaxed_order', true)",
        (str(min(_BEAM, int(limit * _SPARE))),),
    )


def passing(where: Where) -> Statement:
    """Return the statement that counts what passes a filter, but no further than needed to know whether it is much."""
    sql = f"SELECT count(*) FROM (SELECT FROM niru.passages p WHERE {where.condition} LIMIT %(most)s) AS some"
    return sql, where.values | {"most": EXACT + 1}


def cosines(vector: Vector, rows: list[int]) -> Statement:
    """Return the statement that finds the inner products of some rows."""
    sql = f"SELECT v.row, {_PRODUCT} FROM niru.vectors v WHERE v.row = ANY(%(rows)s::bigint[])"
    return sql, {"vector": vector.tolist(), "rows": integers(rows)}


def index(dimension: int) -> str:
    """Return the statement that makes the index while others write."""
    name = NEAREST.partition(".")[2]
    return (
        f"CREATE INDEX CONCURRENTLY {name} ON niru.vectors USING hnsw ((vector::halfvec({dimension})) halfvec_ip_ops)"
    )
