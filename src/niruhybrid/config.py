"""Settings as frozen, validated values. Nothing here reads a file or the environment: `pipeline` does that, once."""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal, get_args

from niruhybrid.errors import InvalidSettingError, OverloadedError
from niruhybrid.ranges import seconds, share, shown, text, whole
from niruhybrid.urls import is_url, shown_url

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = (
    "Durability",
    "GenerationConfig",
    "LongText",
    "ObserveConfig",
    "Overflow",
    "RetryPolicy",
    "ServerConfig",
    "StoreConfig",
    "StreamingConfig",
    "Traces",
)

LongText = Literal["windows", "mean", "late", "truncate", "error"]
"""What becomes of a text longer than one window; see `niruhybrid.windows`."""

Overflow = Literal["drop_oldest", "drop_newest", "block", "error"]
"""What a full buffer does with one item more; see `niruhybrid.streaming.stream_buffer`."""

Durability = Literal["process", "power"]
"""What an acknowledged write survives: the death of the process, or also the loss of power."""

Traces = Literal["off", "otlp", "provider"]
"""Where spans of OpenTelemetry go; see `niruhybrid.observe.tracing`."""

_SERVERS = ("postgresql://", "postgres://")


def _repr(config: "DataclassInstance", **shown: object) -> str:
    """Return what `repr` shows of settings, with some values replaced."""
    values = {each.name: getattr(config, each.name) for each in fields(config) if each.repr} | shown
    return f"{type(config).__name__}({', '.join(f'{name}={value!r}' for name, value in values.items())})"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What is tried again, for encoder and store alike: errors that pass, never bad input, never past the deadline.

    Attributes:
        attempts: tries in all; 1 to 100.
        wait_initial: seconds before the second try, doubled for each further one, with as much jitter; above 0, to 60.
        wait_max: seconds between two tries at the most; above 0, to 600.
        on: the errors that may pass.

    Raises:
        InvalidSettingError: a value is out of its range.
    """

    attempts: int = 3
    wait_initial: float = 0.05
    wait_max: float = 1.0
    on: tuple[type[Exception], ...] = (ConnectionError, TimeoutError)

    def __post_init__(self) -> None:
        whole("attempts", self.attempts, 1, 100)
        seconds("wait_initial", self.wait_initial, 1e-4, 60.0)
        seconds("wait_max", self.wait_max, 1e-4, 600.0)
        if not all(isinstance(each, type) and issubclass(each, Exception) for each in self.on):
            raise InvalidSettingError(f"`on` is {self.on!r}: give a tuple of exception classes")

    def wait(self, failures: int, error: Exception | None = None) -> float:
        """Return the seconds to wait before the next try, without jitter.

        Args:
            failures: tries that failed so far, from 1.
            error: the last failure; the wait is never shorter than its `retry_after`.
        """
        wait = min(self.wait_max, self.wait_initial * 2.0 ** min(failures - 1, 60))
        return max(wait, error.retry_after) if isinstance(error, OverloadedError) else wait


@dataclass(frozen=True, slots=True)
class StreamingConfig:
    """How items are buffered, batched and given up on.

    Attributes:
        buffer_size: items a buffer holds; 1 to 10,000,000.
        buffer_timeout: seconds the oldest item waits at the most for its batch to fill; 0 to 3600.
        batch_size: items in a micro-batch at the most; 1 to 65,536.
        max_concurrent_streams: streams one processor serves at a time, batches not counted; 1 to 100,000.
        processing_timeout: seconds from acceptance to result, after which a query without its own `timeout` ends with
            `DeadlineExceededError`; above 0, to 86,400. A document without its own has no deadline.
        overflow: what a full buffer does with one item more.
        buffer_bytes: bytes a buffer holds, as estimated from its texts; None for no such bound.
        max_batch_tokens: padded tokens in a micro-batch at the most (longest text times texts); 8 to 1,000,000.
        queue_size: items that may wait in each lane before new ones are refused; 1 to 10,000,000.
        queue_tokens: estimated tokens that may wait in each lane; 1 to 10**12.
        bulk_share: the share of encoder time that generated data keeps under any load of queries; .01 to .5.
        bulk_batch_time: seconds one batch of generated data may take while queries are about; above 0, to 60.
        hang_timeout: seconds after which an encode counts as hung and its worker is replaced; above 0, to 86,400.
        cache_bytes: bytes of query vectors kept for when the same is asked again; 0 keeps none, to 2**40.
        max_text_chars: characters of one text at the most; 1 to 1,000,000,000.
        retry: what is tried again when encoder or store fail for a passing reason.
        long_text: what becomes of a document longer than one window.
        chunk_size: tokens of a window, overlap included; 8 to 100,000, of which the encoder may read fewer.
        overlap_size: tokens that a window has in common with the one before; 0 to less than `chunk_size`.

    Raises:
        InvalidSettingError: a value is out of its range.
    """

    buffer_size: int = 1000
    buffer_timeout: float = 0.1
    batch_size: int = 32
    max_concurrent_streams: int = 256
    processing_timeout: float = 30.0
    overflow: Overflow = "drop_oldest"
    buffer_bytes: int | None = None
    max_batch_tokens: int = 768
    queue_size: int = 10_000
    queue_tokens: int = 4_000_000
    bulk_share: float = 0.1
    bulk_batch_time: float = 0.02
    hang_timeout: float = 30.0
    cache_bytes: int = 16_777_216
    max_text_chars: int = 1_000_000
    retry: RetryPolicy = RetryPolicy()
    long_text: LongText = "windows"
    chunk_size: int = 128
    overlap_size: int = 32

    def __post_init__(self) -> None:
        whole("buffer_size", self.buffer_size, 1, 10_000_000)
        seconds("buffer_timeout", self.buffer_timeout, 0.0, 3600.0)
        whole("batch_size", self.batch_size, 1, 65_536)
        whole("max_concurrent_streams", self.max_concurrent_streams, 1, 100_000)
        seconds("processing_timeout", self.processing_timeout, 1e-4, 86_400.0)
        if self.overflow not in get_args(Overflow):
            raise InvalidSettingError(
                f"`overflow` is {shown(self.overflow)}: give one of {', '.join(get_args(Overflow))}"
            )
        if self.buffer_bytes is not None:
            whole("buffer_bytes", self.buffer_bytes, 1, 1 << 50)
        whole("max_batch_tokens", self.max_batch_tokens, 8, 1_000_000)
        whole("queue_size", self.queue_size, 1, 10_000_000)
        whole("queue_tokens", self.queue_tokens, 1, 10**12)
        share("bulk_share", self.bulk_share, 0.01, 0.5)
        seconds("bulk_batch_time", self.bulk_batch_time, 1e-4, 60.0)
        seconds("hang_timeout", self.hang_timeout, 1e-4, 86_400.0)
        whole("cache_bytes", self.cache_bytes, 0, 1 << 40)
        whole("max_text_chars", self.max_text_chars, 1, 1_000_000_000)
        if not isinstance(self.retry, RetryPolicy):
            raise InvalidSettingError(f"`retry` is {self.retry!r}: give a RetryPolicy")
        if self.long_text not in get_args(LongText):
            raise InvalidSettingError(
                f"`long_text` is {shown(self.long_text)}: give one of {', '.join(get_args(LongText))}"
            )
        whole("chunk_size", self.chunk_size, 8, 100_000)
        whole("overlap_size", self.overlap_size, 0, self.chunk_size - 1)


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where documents are kept and how search weighs its two halves.

    Attributes:
        path: the store's file, or the URL of a PostgreSQL database, `postgresql://…`; None keeps it in memory.
        durability: what an acknowledged write survives: `process` (kill -9) or `power` (fsync at each commit). On
            PostgreSQL `process` waits for the server's own disk, `power` for its synchronous standbys too.
        dense_weight: weight of the dense half in the weighted sum, the lexical half has the rest; 0 to 1.
        connections: to PostgreSQL at the most, of one process; 1 to 1000. One more listens.
        server_timeout: seconds that a call to PostgreSQL may take, connections that break and wait included; above 0,
            to 3600.

    Raises:
        InvalidSettingError: a value is out of its range.
    """

    path: str | None = None
    durability: Durability = "process"
    dense_weight: float = 0.74
    connections: int = 8
    server_timeout: float = 10.0

    def __post_init__(self) -> None:
        if self.path is not None and (not isinstance(self.path, str) or not self.path):
            raise InvalidSettingError(
                f"`path` is {shown(self.path)}: give a file name, or None to keep the store in memory"
            )
        if self.on_server and (self.path or "").partition("://")[2].partition("/")[0].count("@") > 1:
            raise InvalidSettingError(
                "`path` has two @ before the host: write an @ of the user or password as %40"
            )  # else part of the password would be taken for the host, and shown
        if self.durability not in get_args(Durability):
            raise InvalidSettingError(f"`durability` is {shown(self.durability)}: give 'process' or 'power'")
        share("dense_weight", self.dense_weight)
        whole("connections", self.connections, 1, 1000)
        seconds("server_timeout", self.server_timeout, 1e-3, 3600.0)

    @property
    def on_server(self) -> bool:
        """Whether `path` is the URL of a PostgreSQL database."""
        return self.path is not None and self.path.startswith(_SERVERS)

    @property
    def name(self) -> str | None:
        """The path as it may be shown: of a URL only host, port and database, never a password."""
        if self.path is None or not self.on_server:
            return self.path
        return f"postgresql://{shown_url(self.path).partition('://')[2]}"

    def __repr__(self) -> str:
        return _repr(self, path=self.name)


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """Who writes answers: sentences of the hits as they stand, or a model behind an OpenAI-compatible endpoint.

    Attributes:
        base_url: the endpoint up to and with its version, such as `http://127.0.0.1:11434/v1`; None has no model write.
        model: the model's name there; to be given with `base_url`.
        api_key_env: the environment variable that holds the endpoint's key; None sends no key.
        max_tokens: tokens of one answer at the most, as the endpoint counts them; 1 to 1,000,000.
        context_tokens: tokens of all sources together, as estimated from their bytes; 16 to 10,000,000.
        connect_timeout: seconds until the connection stands; above 0, to 600.
        first_token_timeout: seconds until the first piece of text, all tries together; above 0, to 3600.
        token_timeout: seconds from one piece to the next; above 0, to 3600.
        retry: what is tried again before the first piece of text; its `on` is not asked: what may pass is tried again.

    Raises:
        InvalidSettingError: a value is out of its range, or only one of `base_url` and `model` is given.
    """

    base_url: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    max_tokens: int = 1024
    context_tokens: int = 3000
    connect_timeout: float = 5.0
    first_token_timeout: float = 30.0
    token_timeout: float = 15.0
    retry: RetryPolicy = RetryPolicy()

    def __post_init__(self) -> None:
        for name in ("base_url", "model", "api_key_env"):
            text(name, getattr(self, name))
        if (self.base_url is None) is not (self.model is None):
            raise InvalidSettingError(
                f"`base_url` is {shown(self.shown_url)} and `model` is {shown(self.model)}: give both, or none of them"
            )
        if self.base_url is not None and not is_url(self.base_url, "http", "https"):
            raise InvalidSettingError(
                f"`base_url` is {shown(self.shown_url)}: give a URL, such as http://127.0.0.1:8080/v1"
            )
        if self.model == "" or self.api_key_env == "":
            raise InvalidSettingError("`model` or `api_key_env` is empty: give a name, or None")
        whole("max_tokens", self.max_tokens, 1, 1_000_000)
        whole("context_tokens", self.context_tokens, 16, 10_000_000)
        seconds("connect_timeout", self.connect_timeout, 1e-3, 600.0)
        seconds("first_token_timeout", self.first_token_timeout, 1e-3, 3600.0)
        seconds("token_timeout", self.token_timeout, 1e-3, 3600.0)

    @property
    def shown_url(self) -> str | None:
        """The endpoint as it may be shown or logged: without user, password and query."""
        return None if self.base_url is None else shown_url(self.base_url)

    def __repr__(self) -> str:
        return _repr(self, base_url=self.shown_url)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where the server listens and what it takes from one client.

    Attributes:
        host: address to listen on; loopback by default.
        port: TCP port; 0 lets the system choose, to 65,535.
        max_body_bytes: bytes of a request body at the most; 1 to 2**31.
        max_query_chars: characters of one query at the most; 1 to 1,000,000.
        keep_alive: seconds of silence after which a stream sends a comment; above 0, to 3600.
        send_timeout: seconds a client may take to send a body, or to accept bytes before its stream is ended; above 0,
            to 3600.
        head_timeout: seconds until the head of a request is complete, from the connection's beginning or from the last
            response; above 0, to 3600.
        idle_timeout: seconds without a line after which a body of lines ends, while nothing of it is under way; above
            0, to 86,400.
        max_connections: connections open at once: the one that has waited longest for a request is closed for a new
            one; None takes what three quarters of the limit on open files allow, to 20,000. 1 to 1,000,000.
        max_connections_per_peer: of them from one address, the next is refused; not for addresses of this machine; None
            takes half of them. 1 to 1,000,000.
        max_streams: streams open at once, bodies of lines included, the next is refused; 1 to 100,000.
        api_keys: entries `name:scopes:secret`, see `niruhybrid.server.auth`; needed where `host` is not loopback.
        api_keys_file: a file of such entries; None for none.
        rate_limit: requests a second of each API key; 0 for no limit, to 1,000,000.
        rate_burst: requests that may come at once; 1 to 1,000,000.
        cors_origins: origins whose pages may ask, between blanks or commas; None for none, `*` for all.
        allowed_hosts: names that the server goes by beside those of loopback, between blanks or commas.
        tls_cert: file of the certificate chain; None for plain HTTP.
        tls_key: file of its key; to be given with `tls_cert`.
        max_subscribers: standing queries open at once, the next is refused, and as many readers of the counters as a
            stream; 0 to 100,000.
        max_line_bytes: bytes of one line of NDJSON at the most; 1 to 2**31.
        log_events: events of one answer that are kept for its readers; 16 to 1,000,000.
        log_bytes: bytes of them; 1024 to 2**30. An answer that nobody reads waits when it has made as much.
        log_seconds: seconds an answer is kept after its end, for who lost the connection; 0 to 86,400.
        kept_answers: answers kept after their end at the most; 0 to 1,000,000.
        kept_bytes: bytes of them; 0 to 2**40.
        grace: seconds an answer that nobody reads any more goes on, for its reader to come back; 0 stops it at once,
            to 3600.

    Raises:
        InvalidSettingError: a value is out of its range.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_body_bytes: int = 1_000_000
    max_query_chars: int = 8_000
    keep_alive: float = 15.0
    send_timeout: float = 30.0
    head_timeout: float = 10.0
    idle_timeout: float = 60.0
    max_connections: int | None = None
    max_connections_per_peer: int | None = None
    max_streams: int = 1000
    api_keys: str | None = field(default=None, repr=False)
    api_keys_file: str | None = None
    rate_limit: float = 0.0
    rate_burst: int = 100
    cors_origins: str | None = None
    allowed_hosts: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    max_subscribers: int = 2000
    max_line_bytes: int = 1_000_000
    log_events: int = 4096
    log_bytes: int = 262_144
    log_seconds: float = 60.0
    kept_answers: int = 2000
    kept_bytes: int = 33_554_432
    grace: float = 5.0

    def __post_init__(self) -> None:
        if not isinstance(self.host, str) or not self.host:
            raise InvalidSettingError(f"`host` is {shown(self.host)}: give an address, such as 127.0.0.1")
        for name in ("api_keys", "api_keys_file", "cors_origins", "allowed_hosts", "tls_cert", "tls_key"):
            text(name, getattr(self, name))
        whole("port", self.port, 0, 65_535)
        whole("max_body_bytes", self.max_body_bytes, 1, 1 << 31)
        whole("max_query_chars", self.max_query_chars, 1, 1_000_000)
        seconds("keep_alive", self.keep_alive, 1e-3, 3600.0)
        seconds("send_timeout", self.send_timeout, 1e-3, 3600.0)
        seconds("head_timeout", self.head_timeout, 1e-3, 3600.0)
        seconds("idle_timeout", self.idle_timeout, 1e-3, 86_400.0)
        for name in ("max_connections", "max_connections_per_peer"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 1, 1_000_000)
        whole("max_streams", self.max_streams, 1, 100_000)
        seconds("rate_limit", self.rate_limit, 0.0, 1_000_000.0)
        whole("rate_burst", self.rate_burst, 1, 1_000_000)
        if (self.tls_cert is None) is not (self.tls_key is None):
            raise InvalidSettingError(
                f"`tls_cert` is {shown(self.tls_cert)} and `tls_key` is {shown(self.tls_key)}: "
                "give both, or none of them"
            )
        whole("max_subscribers", self.max_subscribers, 0, 100_000)
        whole("max_line_bytes", self.max_line_bytes, 1, 1 << 31)
        whole("log_events", self.log_events, 16, 1_000_000)
        whole("log_bytes", self.log_bytes, 1024, 1 << 30)
        seconds("log_seconds", self.log_seconds, 0.0, 86_400.0)
        whole("kept_answers", self.kept_answers, 0, 1_000_000)
        whole("kept_bytes", self.kept_bytes, 0, 1 << 40)
        seconds("grace", self.grace, 0.0, 3600.0)


@dataclass(frozen=True, slots=True)
class ObserveConfig:
    """Who is told of what happens, beside the counters.

    Attributes:
        traces: where spans of OpenTelemetry go: nowhere, to a collector as OpenTelemetry's own variables have it, or to
            the provider that this process has set up.

    Raises:
        InvalidSettingError: a value is out of its range.
    """

    traces: Traces = "off"

    def __post_init__(self) -> None:
        if self.traces not in get_args(Traces):
            raise InvalidSettingError(f"`traces` is {shown(self.traces)}: give one of {', '.join(get_args(Traces))}")
