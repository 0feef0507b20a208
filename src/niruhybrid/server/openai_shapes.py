"""The shapes of OpenAI's API: requests checked, answers and errors built. Pure."""

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from niruhybrid.server import problems
from niruhybrid.server.problems import RequestError
from niruhybrid.server.sending import json_bytes
from niruhybrid.types import Query, Vector
from niruhybrid.types.checks import MAX_TOP_K, checked_text

__all__ = (
    "Chat",
    "ChatRequest",
    "EmbeddingRequest",
    "checked",
    "embeddings",
    "error_of",
    "framed",
    "model_list",
    "model_of",
    "notes_on",
    "question_of",
)

CHAT_MODEL = "niruhybrid"
EMBEDDING_MODEL = "niruhybrid-embedding"
MOST_TEXTS = 2048
DONE = b"data: [DONE]\n\n"

_Request = TypeVar("_Request", bound=BaseModel)

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
ERROR_SHAPE = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


_TEXT = {"type": "string", "minLength": 1, "pattern": r"[^\s]"}  # a query's pattern would bring a query's length


class EmbeddingRequest(BaseModel):
    """Texts to be encoded. Parameters that OpenAI knows and this server has no use for are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    input: Annotated[
        str | list[Any],
        Field(description="A text or up to 2048 texts; arrays of token numbers are refused."),
        WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MOST_TEXTS}]}),
    ]
    model: Annotated[str, Field(description="Any name; the answer says which model it was.")] = EMBEDDING_MODEL
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int | None, Field(ge=1, description="Refused, unless it is the encoder's own.")] = None

    def texts(self) -> list[str]:
        """Return the texts.

        Raises:
            RequestError: there are none or too many, or they are not texts.
        """
        texts = [self.input] if isinstance(self.input, str) else self.input
        if not 1 <= len(texts) <= MOST_TEXTS:
            raise _refused("input", f"`input` has {len(texts)} texts: give 1 to {MOST_TEXTS}")
        if not all(isinstance(text, str) for text in texts):
            raise _refused("input", "`input` has no texts but tokens of another model's: send the texts themselves")
        return [checked_text(text, what="`input`") for text in texts]


class ChatRequest(BaseModel):
    """A conversation; its last user message is the question. What only a model could heed is passed over and noted."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, description="With `role` and `content`.")]
    model: Annotated[str, Field(description="Any name; the answer says which model it was.")] = CHAT_MODEL
    stream: bool | None = False
    stream_options: Annotated[dict[str, Any] | None, Field(description="`include_usage` adds a chunk.")] = None
    n: Annotated[int | None, Field(ge=1, le=1, description="There is one answer.")] = 1
    tool_choice: Annotated[Any, Field(description="Refused, if a tool must be called.")] = None
    response_format: Annotated[dict[str, Any] | None, Field(description="Refused, unless it is text.")] = None
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K, description="Sources wanted; beyond OpenAI's API.")] = 5
    filter: Annotated[
        dict[str, Any] | None, Field(description="What a source's metadata must say; beyond OpenAI's API.")
    ] = None


_HEEDED = frozenset(ChatRequest.model_fields) | {"user", "store", "metadata", "safety_identifier", "prompt_cache_key"}


def checked(model: type[_Request], values: Mapping[str, Any]) -> tuple[_Request, list[str]]:
    """Return the request that a body's values are, and the names of the parameters that are passed over.

    Raises:
        RequestError: a field is missing or of the wrong type.
    """
    try:
        request = model.model_validate(values, strict=True)
    except pydantic.ValidationError as err:
        first = err.errors(include_url=False, include_input=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"])[:60]
        raise _refused(name, f"`{name}`: {first['msg']}: correct the request") from err
    return request, sorted(name for name, value in values.items() if name not in _HEEDED and value is not None)


def question_of(request: ChatRequest, query_id: str, *, max_chars: int) -> Query:
    """Return the query that a conversation asks: its last message, which must be the user's.

    Raises:
        RequestError: there is no such message, or it is not text; or what is asked for can't be had.
        InvalidInputError: a value can't be used.
    """
    if request.tool_choice == "required" or isinstance(request.tool_choice, dict):
        raise _refused("tool_choice", "`tool_choice` demands a tool, and none is ever called: leave it out")
    if request.response_format is not None and request.response_format.get("type", "text") != "text":
        raise _refused("response_format", "`response_format` is not text, and answers are: leave it out")
    asked = [message for message in request.messages if message.get("role") == "user"]
    if not asked:
        raise _refused("messages", "`messages` has none of the role `user`: ask something")
    text = checked_text(_text_of(asked[-1].get("content")), what="the last user message", max_chars=max_chars)
    return Query(query_id, text, top_k=request.top_k, filter=request.filter)


def notes_on(request: ChatRequest, passed_over: Sequence[str]) -> list[str]:
    """Say what of a request has no effect."""
    notes = [f"`{name[:60]}` has no effect here" for name in passed_over[:20]]
    if len(request.messages) > 1:
        notes.append("only the last user message was read")
    return notes


def embeddings(vectors: Sequence[Vector], request: EmbeddingRequest, tokens: int) -> dict[str, Any]:
    """Return the answer to a request for embeddings.

    Raises:
        RequestError: another number of dimensions is asked for than there is.
    """
    size = vectors[0].size
    if request.dimensions not in {None, size}:
        raise _refused("dimensions", f"`dimensions` is {request.dimensions}, the encoder has {size}: leave it out")
    as_asked = _base64 if request.encoding_format == "base64" else _floats
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": number, "embedding": as_asked(vector)}
            for number, vector in enumerate(vectors)
        ],
        "model": EMBEDDING_MODEL,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def model_list() -> dict[str, Any]:
    """Return the list of models."""
    return {"object": "list", "data": [model_of(name) for name in (CHAT_MODEL, EMBEDDING_MODEL)]}


def model_of(name: str) -> dict[str, Any]:
    """Return a model's description.

    Raises:
        RequestError: there is no such model.
    """
    if name not in {CHAT_MODEL, EMBEDDING_MODEL}:
        raise RequestError("not_found", "there is no such model: see /v1/models")
    return {"id": name, "object": "model", "created": 0, "owned_by": "niruhybrid"}


def error_of(problem: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return status and body of a problem object, as OpenAI's clients know them."""
    status = 400 if problem["status"] in {409, 422} else problem["status"]
    kind = _TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    param = next((error["field"] for error in problem.get("errors", ())), None)
    error = {"message": problem["detail"], "type": kind, "param": param, "code": problem["code"]}
    return status, {"error": error}


@dataclass
class Chat:
    """An answer on its way to becoming a chat completion, whole or in chunks.

    Beside OpenAI's fields there are `sources`, the hits; `citations`, which characters of the content come from which
    source; and `notes`, what has no effect or was left out. In a stream they stand in the first chunk, in the chunk
    whose text they are about, and in the last.

    Attributes:
        id: the completion's.
        notes: what to say at the end.
        created: seconds since 1970.
        text: so far.
    """

    id: str
    notes: list[str]
    created: int = field(default_factory=lambda: int(time.time()))
    text: str = ""
    _sources: list[Any] = field(default_factory=list)
    _citations: list[dict[str, Any]] = field(default_factory=list)
    _finish_reason: str | None = None

    def take(self, event: str, data: Mapping[str, Any]) -> dict[str, Any] | None:
        """Take an event of the answer; return the chunk that it becomes, if any.

        Raises:
            RequestError: it is the event `error`.
        """
        match event:
            case "sources":
                self._sources = data["hits"]
                self.notes += data.get("notes", ())
                return self._chunk({"role": "assistant", "content": ""}, sources=self._sources)
            case "token":
                return self._chunk({"content": data["text"]}, **self._cited(data))
            case "done":
                self._finish_reason = data["finish_reason"]
                self.notes += data.get("notes", ())
                return self._chunk({}, **({"notes": self.notes} if self.notes else {}))
            case "error":
                problem = problems.wire_error(data)
                raise RequestError(problem["code"], problem["detail"])
            case _:
                return None

    def whole(self, usage: Mapping[str, int]) -> dict[str, Any]:
        """Return the completion."""
        message = {"role": "assistant", "content": self.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish_reason}
        return self._head("chat.completion") | {
            "choices": [choice],
            "usage": usage,
            "sources": self._sources,
            "citations": self._citations,
            "notes": self.notes,
        }

    def counted(self, usage: Mapping[str, int]) -> dict[str, Any]:
        """Return the chunk that says how much was read and written."""
        return self._head("chat.completion.chunk") | {"choices": [], "usage": usage}

    def _cited(self, data: Mapping[str, Any]) -> dict[str, Any]:
        start, self.text = len(self.text), self.text + data["text"]
        if "source" not in data:
            return {}
        self._citations.append({"start": start, "end": len(self.text), "source": data["source"]})
        return {"citations": self._citations[-1:]}

    def _chunk(self, delta: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": self._finish_reason}
        return self._head("chat.completion.chunk") | {"choices": [choice], **more}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": CHAT_MODEL}


def framed(chunk: Mapping[str, Any]) -> bytes:
    """Return a chunk as an event."""
    return b"data: %b\n\n" % json_bytes(chunk)


def _text_of(content: object) -> object:
    """Return the text of a message's content, which may come in parts.

    Raises:
        RequestError: a part is not text.
    """
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        raise _refused("messages", "the last user message has parts that are not text: send text only")
    return "\n".join(str(part.get("text", "")) for part in content)


def _refused(param: str | None, detail: str) -> RequestError:
    return RequestError("invalid_input", detail, errors=[{"field": param, "detail": detail}] if param else ())


def _floats(vector: Vector) -> list[float]:
    values: list[float] = vector.tolist()
    return values


def _base64(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
