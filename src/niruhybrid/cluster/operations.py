"""What data messages ask for, and what becomes of those that fail. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from niruhybrid.cluster.broker import Message
from niruhybrid.errors import EncoderFailedError, EncoderOutputError, InvalidInputError, NiruError
from niruhybrid.streaming.inputs import as_document
from niruhybrid.types import Document
from niruhybrid.types.checks import checked_id

__all__ = ("Delete", "Operation", "backoff", "concerns", "is_lasting", "letter", "read")

_FIRST_WAIT = 0.5
_LONGEST_WAIT = 60.0
_LASTING = (InvalidInputError, EncoderFailedError, EncoderOutputError)
_SHOWN = 500


@dataclass(frozen=True, slots=True)
class Delete:
    """Asks for a document to be removed.

    Attributes:
        id: the document's id.
    """

    id: str


Operation = Document | Delete
"""A document to be stored, or one to be removed."""


def read(message: Message) -> Operation:
    """Return what a message asks for: JSON as a line of `POST /stream/data`, or `{"op": "delete", "id": …}`.

    Raises:
        InvalidInputError: it is not JSON, or nothing that can be done.
    """
    try:
        value = orjson.loads(message.data)
    except orjson.JSONDecodeError as err:
        raise InvalidInputError(f"the message is not JSON ({err.msg} at {err.pos}): send JSON in UTF-8") from err
    if not isinstance(value, dict) or "op" not in value:
        return as_document(value, message.sequence)
    if value["op"] != "delete" or value.keys() != {"op", "id"}:
        raise InvalidInputError('`op` is for {"op": "delete", "id": …} alone: send this, or a document without `op`')
    return Delete(checked_id(value["id"]))


def concerns(message: Message, document_id: str) -> bool:
    """Return whether a message is of a document; one that can't be read may be."""
    try:
        return read(message).id == document_id
    except InvalidInputError:
        return True


def is_lasting(error: BaseException) -> bool:
    """Return whether an error is the message's own fault, so that trying again would end the same way."""
    return isinstance(error, _LASTING)


def backoff(deliveries: int) -> float:
    """Return the seconds until the next try, after the `deliveries`-th failed for a reason that passes."""
    return float(min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(deliveries - 1, 10)))


def letter(message: Message, error: BaseException) -> Mapping[str, str]:
    """Return the headers that a dead letter has beside its own: why it is one, and where it comes from."""
    code = error.code if isinstance(error, NiruError) else NiruError.code
    return {
        "Niru-Reason": code,
        "Niru-Message": " ".join(str(error).split())[:_SHOWN],  # a header is one line
        "Niru-Subject": message.subject,
        "Niru-Sequence": str(message.sequence),
        "Niru-Deliveries": str(message.deliveries),
    }
