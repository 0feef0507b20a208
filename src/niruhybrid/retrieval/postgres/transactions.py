"""How transactions begin and end."""

__all__ = ("BEGIN", "COMMIT", "ROLLBACK", "SNAPSHOT")

BEGIN = ("BEGIN ISOLATION LEVEL READ COMMITTED", ())
"""Each statement sees what was committed before it began: after a wait for a lock, what the other writer has done."""

SNAPSHOT = ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ())
"""All statements up to the commit see one state."""

COMMIT = ("COMMIT", ())
ROLLBACK = ("ROLLBACK", ())
