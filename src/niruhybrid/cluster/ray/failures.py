"""What Ray raises, as what it means here."""

from niruhybrid.errors import ReplicaLostError

__all__ = ("ours",)


def ours(error: Exception) -> Exception:
    """Return what a replica raised, or `ReplicaLostError` where the replica or its answer is lost; else `error`."""
    from ray import exceptions  # noqa: PLC0415  # heavy
    from ray.serve.exceptions import RayServeException  # noqa: PLC0415  # same

    if isinstance(error, exceptions.RayTaskError):
        cause = error.cause
        return cause if isinstance(cause, Exception) else error
    lost = (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.ObjectLostError,
        exceptions.TaskCancelledError,  # by Ray, as part of a shutdown; never awaited after a cancel of our own
        RayServeException,
    )
    if isinstance(error, lost):
        return ReplicaLostError(f"the replica was lost ({type(error).__name__}): try again, another one takes over")
    return error
