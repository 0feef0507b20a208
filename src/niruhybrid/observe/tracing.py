"""Spans of OpenTelemetry for requests, queries and batches; it is imported only where they are wanted.

    POST /stream/query         of the server, under whatever the request's `traceparent` names
      niru.query               from the pipeline's door to the last event
        niru.wait              until its text was taken for encoding
        niru.encode            while its batch was encoded
        niru.search
        niru.generate
    niru.encode_batch          a trace of its own: it serves many; its links name whom

No span holds the text of a query, of a document or of an answer, nor a message that may quote one.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from niruhybrid.config import ObserveConfig
from niruhybrid.errors import InvalidSettingError, NiruError
from niruhybrid.types import Query, QueryResult

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext, TracerProvider

__all__ = ("QueryTrace", "RequestTrace", "Tracing", "open_tracing", "query_trace")

_NAME = "niruhybrid"
_SERVER_ERRORS = 500
_NOTHING = nullcontext()  # one for all: it is entered for each token


def open_tracing(config: ObserveConfig) -> "Tracing | None":
    """Return where spans go, as the settings have it; None if nowhere.

    `otlp` sends them to a collector, as the variables that OpenTelemetry has for it say: `OTEL_EXPORTER_OTLP_ENDPOINT`,
    `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER` and the others. `provider` gives them to what this process has set up
    for all its parts.

    Raises:
        InvalidSettingError: the extra `otel` is not installed.
    """
    if config.traces == "off":
        return None
    try:
        if config.traces == "otlp":
            return Tracing(*_exporting())
        return Tracing()
    except ImportError as err:
        raise InvalidSettingError(f'the package {err.name!r} is missing: install "niruhybrid[otel]"') from err


def query_trace(tracing: "Tracing | None", query: Query) -> "QueryTrace":
    """Return the spans of a query that begins now; if they are not wanted, something that costs next to nothing."""
    return _UNTRACED if tracing is None else tracing.query(query)


class QueryTrace:
    """The spans of one query; this one has none."""

    def active(self) -> AbstractContextManager[None]:
        """Return a block in which what is begun belongs to the query."""
        return _NOTHING

    def found(self, result: QueryResult) -> None:
        """Note that the search has ended, and how long its parts took."""

    def whole(self) -> AbstractContextManager[None]:
        """Return a block that is all there is of the query: `active`, and `end` with what it raises."""
        return _NOTHING

    def generating(self) -> AbstractContextManager[None]:
        """Return a block in which what is begun belongs to the answer: a request to a model, say."""
        return _NOTHING

    def end(self, ending: str, *, error: object = None, finish: str | None = None) -> None:
        """Note the end of all.

        Args:
            ending: `done`, `error` or `cancelled`.
            error: what it ended with: an exception, or a code.
            finish: why the answer ended.
        """


_UNTRACED = QueryTrace()


class Tracing:
    """Makes spans; safe to be used from any thread.

    Args:
        provider: where they go; None takes what this process has set up as OpenTelemetry's own.
        close: releases the provider; None leaves that to whoever made it.

    Raises:
        ImportError: OpenTelemetry is not installed.
    """

    def __init__(self, provider: "TracerProvider | None" = None, close: Callable[[], None] | None = None) -> None:
        from opentelemetry import context, propagate, trace  # noqa: PLC0415  # only where it is wanted

        self._context, self._propagate, self._trace = context, propagate, trace
        self._tracer = trace.get_tracer(_NAME, tracer_provider=provider)
        self._close = close

    def request(self, method: str, scheme: str, headers: Mapping[str, str]) -> "RequestTrace":
        """Begin the span of a request that arrived, under the one that its headers name.

        Args:
            method: of HTTP.
            scheme: `http` or `https`.
            headers: names in lower case.
        """
        parent = self._propagate.extract(dict(headers))
        span = self._tracer.start_span(
            method,
            parent,
            kind=self._trace.SpanKind.SERVER,
            attributes={"http.request.method": method, "url.scheme": scheme},
        )
        return RequestTrace(self, span, method)

    def query(self, query: Query) -> QueryTrace:
        """Begin the span of a query, under the one that is active here."""
        span = self._tracer.start_span(
            "niru.query",
            attributes={
                "gen_ai.operation.name": "retrieval",
                "gen_ai.request.top_k": query.top_k,
                "niru.query.mode": query.mode,
                "niru.query.filtered": query.filter is not None,
            },
        )
        return _TracedQuery(self, span)

    def origin(self) -> "SpanContext | None":
        """Return the span that is active here, to which what is handed in now belongs."""
        current = self._trace.get_current_span().get_span_context()
        return current if current.is_valid else None

    def encoded(
        self, lane: str, origins: Sequence[object], *, texts: int, tokens: int, seconds: float, failed: bool
    ) -> None:
        """Make the span of a batch whose encode ends now; see `niruhybrid.ports.BatchObserver`."""
        now = time.time_ns()
        named = {(each.trace_id, each.span_id): each for each in origins if isinstance(each, self._trace.SpanContext)}
        links = [self._trace.Link(each) for each in named.values()]
        attributes: dict[str, str | int] = {
            "gen_ai.operation.name": "embeddings",
            "niru.lane": lane,
            "niru.batch.texts": texts,
            "niru.batch.padded_tokens": tokens,
        }
        nowhere = self._context.Context()  # a worker has no request of its own
        began = now - round(seconds * 1e9)
        span = self._tracer.start_span(
            "niru.encode_batch", nowhere, attributes=attributes, links=links, start_time=began
        )
        if failed:
            self.fail(span, "encoder_failed")
        span.end(now)

    def child(self, name: str, parent: "Span", began: int, **attributes: Any) -> "Span":
        """Begin a span under another; times are nanoseconds of the clock on the wall."""
        under = self._trace.set_span_in_context(parent)
        named = {key.replace("__", "."): value for key, value in attributes.items()}
        return self._tracer.start_span(name, under, attributes=named, start_time=began)

    @contextmanager
    def use(self, span: "Span") -> Iterator[None]:
        """Have what is begun in this block belong to a span; must not be left by a `yield`."""
        token = self._context.attach(self._trace.set_span_in_context(span))
        try:
            yield
        finally:
            self._context.detach(token)

    def fail(self, span: "Span", error: object) -> None:
        """Note that a span failed, by the class or code of the error alone: a message may quote what is private."""
        kind = error.code if isinstance(error, NiruError) else error
        span.set_attribute("error.type", kind if isinstance(kind, str) else type(kind).__name__)
        span.set_status(self._trace.StatusCode.ERROR)

    def close(self) -> None:
        """Send what is left, and release what was made for this; blocks for some seconds if nobody takes it."""
        if self._close is not None:
            self._close()
            self._close = None


class RequestTrace:
    """The span of a request.

    Args:
        tracing: makes spans.
        span: its own.
        method: of HTTP.
    """

    def __init__(self, tracing: Tracing, span: "Span", method: str) -> None:
        self._tracing = tracing
        self._span = span
        self._method = method

    def active(self) -> AbstractContextManager[None]:
        """Return a block in which what is begun belongs to the request."""
        return self._tracing.use(self._span)

    def end(self, route: str, status: int, request_id: str | None) -> None:
        """Note the end.

        Args:
            route: the path as it is described, without what may be private in it; "" where there is none.
            status: of the response; 0 where none was sent.
            request_id: as the response names it.
        """
        span = self._span
        if route:
            span.update_name(f"{self._method} {route}")
            span.set_attribute("http.route", route)
        if request_id is not None:
            span.set_attribute("http.response.header.x-request-id", [request_id])
        if status:
            span.set_attribute("http.response.status_code", status)
        if status >= _SERVER_ERRORS or not status:
            self._tracing.fail(span, str(status) if status else "no_response")
        span.end()


class _TracedQuery(QueryTrace):
    def __init__(self, tracing: Tracing, span: "Span") -> None:
        self._tracing = tracing
        self._span = span
        self._began = time.time_ns()
        self._generate: Span | None = None

    def active(self) -> AbstractContextManager[None]:
        return self._tracing.use(self._span)

    def found(self, result: QueryResult) -> None:
        queued, encode, search, total = (round(seconds * 1e9) for seconds in result.timings)
        taken, ended = self._began + queued, self._began + total
        self._part("niru.wait", self._began, taken)
        if encode:
            self._part("niru.encode", taken, taken + encode, gen_ai__operation__name="embeddings")
        self._span.set_attribute("niru.query.cached", not encode)
        self._part("niru.search", ended - search, ended, db__response__returned_rows=len(result.hits))

    @contextmanager
    def whole(self) -> Iterator[None]:
        try:
            with self.active():
                yield
        except Exception as err:
            self.end("error", error=err)
            raise
        except BaseException:
            self.end("cancelled")
            raise
        self.end("done")

    def generating(self) -> AbstractContextManager[None]:
        if self._generate is None:
            self._generate = self._tracing.child("niru.generate", self._span, time.time_ns())
        return self._tracing.use(self._generate)

    def end(self, ending: str, *, error: object = None, finish: str | None = None) -> None:
        self._span.set_attribute("niru.query.ending", ending)
        if self._generate is not None and finish is not None:
            self._generate.set_attribute("gen_ai.response.finish_reasons", [finish])
        for span in (self._generate, self._span):
            if span is not None:
                if error is not None:
                    self._tracing.fail(span, error)
                span.end()

    def _part(self, name: str, began: int, ended: int, **attributes: Any) -> None:
        self._tracing.child(name, self._span, began, **attributes).end(ended)


def _exporting() -> tuple["TracerProvider", Callable[[], None]]:
    """Return a provider that sends spans to a collector, from a thread and a bounded queue of its own."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # an extra
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  # same
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  # same
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  # same

    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if named else {"service.name": _NAME}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider, provider.shutdown
