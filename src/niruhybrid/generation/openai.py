"""Answers from a model behind any OpenAI-compatible endpoint, through the official client."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast, get_args
from urllib.parse import urlsplit

import stamina

from niruhybrid.config import GenerationConfig
from niruhybrid.errors import GenerationError, InvalidSettingError
from niruhybrid.generation.citations import CitationReader
from niruhybrid.generation.extractive import NO_ANSWER
from niruhybrid.generation.prompt import Prompt, build_prompt
from niruhybrid.types import Finish, FinishReason, Hit, Query, Token
from niruhybrid.urls import split_credentials

if TYPE_CHECKING:
    from openai import AsyncStream
    from openai.types.chat import ChatCompletionChunk
    from openai.types.chat.chat_completion_chunk import ChoiceDelta

__all__ = ("OpenAIGenerator",)

logger = logging.getLogger(__name__)

Piece = str | Finish

_REASONS = frozenset(get_args(FinishReason))
_MAY_PASS = frozenset({408, 409, 429})  # and all from 500
_DRAIN_SECONDS = 0.25  # for the stream's own end mark; with it the connection can be used again


class OpenAIGenerator:
    """Has a model write the answer from the hits, with citations.

    The model sees numbered sources, the best that fit into `context_tokens`, and is asked to cite them as `[n]`. Each
    citation in its text is a token of its own, whose `source` is the hit's id; the text stays as the model wrote it.
    Without hits it is not asked at all.

    What fails before the first piece of text is tried again, within `first_token_timeout` and as far as the error may
    pass. After that nothing is: no piece is ever given twice.

    Args:
        config: the endpoint and its bounds; with `base_url`.
        api_key: the endpoint's key; None sends none.

    Raises:
        InvalidSettingError: `config` has no endpoint, or the extra `openai` is not installed.
    """

    def __init__(self, config: GenerationConfig, *, api_key: str | None = None) -> None:
        if config.base_url is None or config.model is None:
            raise InvalidSettingError("`base_url` and `model` are not set: give the endpoint that is to answer")
        try:
            import openai  # noqa: PLC0415  # an extra, and half a second of import
        except ImportError as err:
            raise InvalidSettingError('the package openai is missing: install "niruhybrid[openai]"') from err
        silence = max(config.first_token_timeout, config.token_timeout)
        self._config = config
        self._model = config.model
        base_url, login = split_credentials(config.base_url)  # else the client's log would show the password
        left_out = ("OpenAI-Organization", "OpenAI-Project", *(() if api_key else ("Authorization",)))
        self._headers: dict[str, Any] = dict.fromkeys(
            left_out, openai.Omit()
        )  # else it takes them from the environment
        if login is not None:
            self._headers["Authorization"] = login
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            max_retries=0,  # they would also repeat what must not be, and outlast the bounds
            timeout=openai.Timeout(silence, connect=config.connect_timeout),
        )

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncGenerator[Token | Finish, None]:
        """Yield the answer as the model writes it; a `Finish` last, where there is something to say.

        Raises:
            GenerationError: the endpoint gave no answer, or not all of it.
        """
        if not hits:
            yield Token(NO_ANSWER)
            return
        prompt = build_prompt(query.text, hits, context_tokens=self._config.context_tokens)
        reader = CitationReader([hit.id for hit in prompt.sources])
        finish = Finish()
        async with aclosing(self._pieces(prompt)) as pieces:
            try:
                async for piece in pieces:
                    if isinstance(piece, Finish):
                        finish = piece
                        continue
                    for token in reader.feed(piece):
                        yield token
            except GenerationError:
                for token in reader.finish():
                    yield token
                raise
        for token in reader.finish():
            yield token
        yield Finish(finish.reason, prompt.notes + _notes_on(reader.unknown, len(prompt.sources)))

    async def aclose(self) -> None:
        """Close the connections to the endpoint."""
        await self._client.close()

    async def _pieces(self, prompt: Prompt) -> AsyncGenerator[Piece, None]:
        """Yield the text piece by piece, then why it ended."""
        stream, pieces, piece = await self._begin(prompt)
        async with stream, aclosing(pieces):
            yield piece
            try:
                while not isinstance(piece, Finish):
                    async with asyncio.timeout(self._config.token_timeout):
                        piece = await anext(pieces)
                    yield piece
                with contextlib.suppress(Exception):  # the answer is complete, whatever becomes of the connection
                    async with asyncio.timeout(_DRAIN_SECONDS):
                        await anext(pieces, None)
            except Exception as err:
                raise _broken(err, "the answer broke off") from err

    async def _begin(
        self, prompt: Prompt
    ) -> "tuple[AsyncStream[ChatCompletionChunk], AsyncGenerator[Piece, None], Piece]":
        """Return the endpoint's stream, its pieces, and the first of them, trying again while there is time."""
        config, retry = self._config, self._config.retry
        deadline = time.monotonic() + config.first_token_timeout
        tries = stamina.retry_context(
            on=lambda err: _may_pass(err, deadline - time.monotonic()),
            attempts=retry.attempts,
            timeout=config.first_token_timeout,
            wait_initial=retry.wait_initial,
            wait_max=retry.wait_max,
            wait_jitter=retry.wait_initial,
        )
        try:
            async with asyncio.timeout(config.first_token_timeout):
                async for attempt in tries:
                    with attempt:
                        return await self._open(prompt)
        except Exception as err:
            raise _broken(err, "no answer came") from err
        raise AssertionError("unreachable: the last try returns or raises")

    async def _open(
        self, prompt: Prompt
    ) -> "tuple[AsyncStream[ChatCompletionChunk], AsyncGenerator[Piece, None], Piece]":
        stream = await self._client.chat.completions.create(
            model=self._model,
            messages=[cast("Any", {"role": each.role, "content": each.content}) for each in prompt.messages],
            stream=True,
            extra_headers=self._headers,
            **_limit(self._config),
        )
        pieces = _read(stream)
        try:
            first = _not_empty(await anext(pieces))
        except BaseException:
            await pieces.aclose()
            await stream.close()
            raise
        return stream, pieces, first


class _EndedEarlyError(Exception):
    """The endpoint's stream ended without saying that the answer is complete."""


async def _read(chunks: "AsyncIterable[ChatCompletionChunk]") -> AsyncGenerator[Piece, None]:
    """Yield what the chunks bring, up to and with one `Finish`; then read to the end of the stream."""
    finished = False
    async for chunk in chunks:
        choice = next(iter(chunk.choices or ()), None)
        if choice is None or finished:
            continue
        delta: ChoiceDelta | None = choice.delta  # the client checks no types: what an endpoint leaves out is None
        if delta is not None and (text := delta.content or delta.refusal):
            yield text
        if choice.finish_reason:
            finished = True
            yield _finish(choice.finish_reason)
    if not finished:
        raise _EndedEarlyError("the stream ended without a finish_reason")


def _not_empty(first: Piece) -> Piece:
    if isinstance(first, Finish) and first.reason == "stop":
        raise GenerationError("the endpoint gave an empty answer: look at the model and its template")
    return first


def _finish(reason: str) -> Finish:
    if reason not in _REASONS:
        raise GenerationError(f"the endpoint ended the answer for the reason {reason[:40]!r}: this is not an answer")
    return Finish(cast("FinishReason", reason))


def _limit(config: GenerationConfig) -> dict[str, Any]:
    """Return the bound of the answer's length under the name that the endpoint knows."""
    host = urlsplit(config.base_url or "").hostname or ""
    name = "max_completion_tokens" if host.endswith(("openai.com", "azure.com")) else "max_tokens"
    return {name: config.max_tokens}


def _may_pass(error: Exception, left: float) -> bool | float:
    """Say whether to try again, or in how many seconds where the endpoint said so."""
    if isinstance(error, GenerationError) or not _of_endpoint(error):
        return False
    status = _status(error)
    if status is not None and status not in _MAY_PASS and status < 500:
        return False
    seconds = _retry_after(error)
    return True if seconds is None else seconds < left and seconds


def _of_endpoint(error: Exception) -> bool:
    from openai import OpenAIError  # noqa: PLC0415  # loaded already

    return isinstance(error, OpenAIError | _EndedEarlyError | ValueError)  # ValueError: a chunk that is not JSON


def _status(error: Exception) -> int | None:
    """Return the HTTP status of an error, be it one that came inside the stream; None for a lost connection."""
    status = str(getattr(error, "status_code", None) or getattr(error, "code", None))
    return int(status) if status.isdigit() else None


def _retry_after(error: Exception) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        seconds = float(headers.get("retry-after", "nan"))
    except ValueError:  # a date: rare, and our own wait will do
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _broken(error: Exception, what: str) -> Exception:
    """Return what is raised for `error`; a fault of our own stays as it is."""
    if isinstance(error, TimeoutError):
        return GenerationError(f"{what} in time: raise `first_token_timeout` or `token_timeout`")
    if isinstance(error, GenerationError) or not _of_endpoint(error):
        return error
    status, kind = _status(error), type(error).__name__
    logger.warning("generation_endpoint_failed error=%s status=%s", kind, status)  # its text may repeat the query
    return GenerationError(f"{what} ({kind}, status {status}): look at the endpoint")


def _notes_on(unknown: Sequence[int], known: int) -> tuple[str, ...]:
    if not unknown:
        return ()
    return (f"the answer cites {', '.join(f'[{number}]' for number in unknown)}; there are {known} sources",)
