"""How transactions begin and end."""

__all__ = ("BEGIN", "COMMIT", "SNAPSHOT")

BEGIN = ("BEGIN", ())
SNAPSHOT = ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ())
"""All statements up to the commit see one state."""

COMMIT = ("COMMIT", ())
