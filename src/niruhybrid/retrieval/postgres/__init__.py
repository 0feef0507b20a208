"""The store on PostgreSQL with pgvector: one store for many processes, one watermark for all their writers.

It keeps what `EmbeddedStore` keeps and scores as that does, with the same pure functions; what that has in memory the
server has in tables. Nothing is derived in this process but the counts of terms, which it may remember for a while.
"""

from niruhybrid.retrieval.postgres.store import PostgresStore

__all__ = ("PostgresStore",)
