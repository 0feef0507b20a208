"""What every store says of the requests it is given: what it refuses, and what of one it passes over. Pure."""

from collections.abc import Sequence

from niruhybrid.errors import UnknownWatermarkError
from niruhybrid.retrieval.changes import checked_matrix
from niruhybrid.retrieval.lexical import MAX_QUERY_TERMS
from niruhybrid.types import SearchRequest

__all__ = ("notes_of", "refuse_too_new", "refuse_vectors")


def refuse_too_new(requests: Sequence[SearchRequest], watermark: int) -> None:
    """Refuse requests for a later write than the store has come to.

    Raises:
        UnknownWatermarkError: a `min_watermark` is above `watermark`.
    """
    asked = max((request.min_watermark for request in requests), default=0)
    if asked > watermark:
        raise UnknownWatermarkError(
            f"the store is at watermark {watermark}, `min_watermark` is {asked}: ask for one that this store returned"
        )


def refuse_vectors(requests: Sequence[SearchRequest], dimension: int | None) -> None:
    """Refuse requests whose vectors don't fit the store's.

    Raises:
        InvalidVectorError: a vector is not finite, or not of this dimension; None takes that of the first.
    """
    vectors = [request.vector for request in requests if request.vector is not None]
    if vectors:
        checked_matrix(vectors, dimension)


def notes_of(request: SearchRequest) -> tuple[str, ...]:
    """Say what of a request was passed over."""
    if request.mode == "dense" or len(request.terms) <= MAX_QUERY_TERMS:
        return ()
    return (f"of {len(request.terms)} terms the first {MAX_QUERY_TERMS} were searched for",)
