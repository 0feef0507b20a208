"""Everything that can go wrong, one class per cause.

    NiruError
    ├── InvalidInputError (ValueError)      what the caller gave can't be used; nothing was done with it
    │   ├── InvalidSettingError             a configuration value or an argument is out of range
    │   ├── InvalidTextError                a text is missing, too large or not encodable
    │   ├── InvalidIdError                  an id is empty, too long or has control characters
    │   ├── InvalidVectorError              an embedding has the wrong shape or a value that is not finite
    │   └── InvalidMetadataError            metadata is not a JSON object
    ├── OverloadedError                     refused at the door, nothing was done; try again after `retry_after`
    │   ├── QueueFullError                  the lane or buffer has no room
    │   └── DeadlineUnreachableError        the deadline can't be met with what is already waiting
    ├── DeadlineExceededError (TimeoutError)  accepted, but not finished in time
    ├── SupersededError                     a newer query of the same session took its place
    ├── ClosedError                         the buffer, processor or store has been closed
    ├── ItemDroppedError                    removed before processing, by the overflow policy
    ├── EncoderError                        the encoder, not the text, is at fault
    │   ├── EncoderFailedError              it raised, also for this text alone
    │   ├── EncoderOutputError              it returned the wrong number of rows, or values that are not finite
    │   └── EncoderHungError (TimeoutError)  it did not return in time
    ├── ModelError
    │   ├── ModelNotFoundError (FileNotFoundError)  no model at this path or name, and no network to fetch it
    │   └── ModelCorruptError               a file of the model is damaged or of another kind
    ├── StoreError
    │   ├── StoreLockedError                another process has the store open
    │   ├── StoreCorruptError               a file of the store is damaged
    │   ├── StoreReadOnlyError              the store can't be written to
    │   ├── StoreFullError                  the disk is full
    │   ├── StoreBehindError                no write yet has the `min_watermark` asked for
    │   └── StoreVersionError               the store was written by a newer version
    ├── GenerationError                     no answer, or only part of one, could be generated
    ├── UnreachableError (ConnectionError)  a client got no answer from its server
    ├── StreamLostError                     a client's stream broke off, and can't be taken up where it did
    └── SourceError                         a file to be ingested can't be read

Each message says what happened, with the values, and after a colon what to do. `code` is stable and meant for machines;
the HTTP status of each code is decided in one table, `niruhybrid.server.problems`.
"""

from typing import ClassVar

__all__ = (
    "ClosedError",
    "DeadlineExceededError",
    "DeadlineUnreachableError",
    "EncoderError",
    "EncoderFailedError",
    "EncoderHungError",
    "EncoderOutputError",
    "GenerationError",
    "InvalidIdError",
    "InvalidInputError",
    "InvalidMetadataError",
    "InvalidSettingError",
    "InvalidTextError",
    "InvalidVectorError",
    "ItemDroppedError",
    "ModelCorruptError",
    "ModelError",
    "ModelNotFoundError",
    "NiruError",
    "OverloadedError",
    "QueueFullError",
    "SourceError",
    "StoreBehindError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "StoreReadOnlyError",
    "StoreVersionError",
    "StreamLostError",
    "SupersededError",
    "UnreachableError",
)


class NiruError(Exception):
    """Any error this library raises on purpose."""

    code: ClassVar[str] = "internal"


class InvalidInputError(NiruError, ValueError):
    """What the caller gave can't be used; nothing was done with it."""

    code = "invalid_input"


class InvalidSettingError(InvalidInputError):
    """A configuration value or an argument is out of range."""

    code = "invalid_setting"


class InvalidTextError(InvalidInputError):
    """A text is missing, too large or not encodable."""

    code = "invalid_text"


class InvalidIdError(InvalidInputError):
    """An id is empty, too long or has control characters."""

    code = "invalid_id"


class InvalidVectorError(InvalidInputError):
    """An embedding has the wrong shape or a value that is not finite."""

    code = "invalid_vector"


class InvalidMetadataError(InvalidInputError):
    """Metadata is not a JSON object."""

    code = "invalid_metadata"


class OverloadedError(NiruError):
    """Refused at the door: nothing was done, and a later try may succeed.

    Attributes:
        retry_after: seconds after which a retry has a fair chance; never negative.
    """

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = max(0.0, retry_after)


class QueueFullError(OverloadedError):
    """The lane or buffer has no room."""

    code = "queue_full"


class DeadlineUnreachableError(OverloadedError):
    """The deadline can't be met with what is already waiting."""

    code = "deadline_unreachable"


class DeadlineExceededError(NiruError, TimeoutError):
    """Accepted, but not finished in time."""

    code = "deadline_exceeded"


class SupersededError(NiruError):
    """A newer query of the same session took this one's place."""

    code = "superseded"


class ClosedError(NiruError):
    """The buffer, processor or store has been closed."""

    code = "closed"


class ItemDroppedError(NiruError):
    """Removed before processing, by the overflow policy."""

    code = "dropped"


class EncoderError(NiruError):
    """The encoder, not the text, is at fault."""

    code = "encoder_error"


class EncoderFailedError(EncoderError):
    """The encoder raised, also for this text alone; the cause is kept in `__cause__`."""

    code = "encoder_failed"


class EncoderOutputError(EncoderError):
    """The encoder returned the wrong number of rows, or values that are not finite."""

    code = "encoder_output"


class EncoderHungError(EncoderError, TimeoutError):
    """The encoder did not return in time."""

    code = "encoder_hung"


class ModelError(NiruError):
    """A model can't be loaded."""

    code = "model_error"


class ModelNotFoundError(ModelError, FileNotFoundError):
    """No model at this path or name, and no network to fetch it."""

    code = "model_not_found"


class ModelCorruptError(ModelError):
    """A file of the model is damaged or of another kind."""

    code = "model_corrupt"


class StoreError(NiruError):
    """The store can't do what it was asked to; what it holds is unchanged."""

    code = "store_error"


class StoreLockedError(StoreError):
    """Another process has the store open."""

    code = "store_locked"


class StoreCorruptError(StoreError):
    """A file of the store is damaged."""

    code = "store_corrupt"


class StoreReadOnlyError(StoreError):
    """The store can't be written to."""

    code = "store_read_only"


class StoreFullError(StoreError):
    """The disk is full."""

    code = "store_full"


class StoreBehindError(StoreError):
    """No write yet has the `min_watermark` that a search asked for."""

    code = "store_behind"


class StoreVersionError(StoreError):
    """The store was written by a newer version of this library."""

    code = "store_version"


class GenerationError(NiruError):
    """No answer, or only part of one, could be generated."""

    code = "generation_failed"


class UnreachableError(NiruError, ConnectionError):
    """A client got no answer: its server can't be reached, or the connection broke before the answer began."""

    code = "unreachable"


class StreamLostError(NiruError):
    """A client's stream broke off, and can't be taken up where it did; what came of it is true, but not all.

    Attributes:
        partial: the text of the answer so far; "" where none had come, or where the stream is not an answer.
        last_event_id: the last whole event, `<stream>:<n>`; "" where there was none.
    """

    code = "stream_lost"

    def __init__(self, message: str, *, partial: str = "", last_event_id: str = "") -> None:
        super().__init__(message)
        self.partial = partial
        self.last_event_id = last_event_id


class SourceError(NiruError):
    """A file to be ingested can't be read."""

    code = "source_unreadable"
