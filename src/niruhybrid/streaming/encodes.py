"""One encode of one batch: tried again where that may help, and what it returned checked row by row."""

import logging
import time
from typing import NamedTuple, cast

from niruhybrid.config import RetryPolicy
from niruhybrid.errors import EncoderOutputError, NiruError
from niruhybrid.ports import BatchObserver, Encoder
from niruhybrid.streaming.lanes import Batch
from niruhybrid.streaming.retrying import with_retries
from niruhybrid.streaming.rows import checked_rows
from niruhybrid.types import Vector

__all__ = ("Encodes", "Raw")

_log = logging.getLogger(__name__)


class Raw(NamedTuple):
    """A batch that the encoder is done with.

    Attributes:
        batch: the batch.
        outcome: what the encoder returned, unread, or what it raised.
    """

    batch: Batch
    outcome: object


class Encodes:
    """The encoder as the batcher's threads see it: nothing that it does can end them.

    Args:
        encoder: called in the thread that calls `encode`.
        retry: what is tried again.
        observer: is told of every encode.
    """

    __slots__ = ("_dim", "_encoder", "_observer", "_retry")

    def __init__(self, encoder: Encoder, retry: RetryPolicy, observer: BatchObserver | None = None) -> None:
        self._encoder = encoder
        self._retry = retry
        self._observer = observer
        self._dim: int | None = getattr(encoder, "dimension", None)

    def encode(self, batch: Batch) -> Raw:
        """Encode a batch; whatever goes wrong is returned."""
        texts = cast("list[str]", batch.texts)  # windows only where the encoder takes them
        began = time.monotonic()
        try:
            raw = Raw(batch, with_retries(self._retry, batch.deadline, lambda: self._encoder.encode(texts)))
        except BaseException as err:  # noqa: BLE001  # an encoder may raise anything, SystemExit too
            raw = Raw(batch, err)
        if self._observer is not None:
            self._tell(self._observer, raw, time.monotonic() - began)
        return raw

    @staticmethod
    def _tell(observer: BatchObserver, raw: Raw, seconds: float) -> None:
        batch = raw.batch
        origins = [job.origin for work in batch.works for job in tuple(work.jobs)]  # one may be cancelled meanwhile
        failed = isinstance(raw.outcome, BaseException)
        try:
            observer.encoded(
                batch.lane, origins, texts=len(batch.works), tokens=batch.tokens, seconds=seconds, failed=failed
            )
        except Exception:  # noqa: BLE001  # whatever is wrong with it, those who wait for the batch are not to suffer
            _log.exception("observer_failed")

    def read(self, raw: Raw) -> list[Vector | EncoderOutputError] | BaseException:
        """Return the rows of a batch, each checked, or what is wrong with the whole; see `checked_rows`."""
        if isinstance(raw.outcome, BaseException):
            return raw.outcome
        try:
            rows = checked_rows(raw.outcome, len(raw.batch.works), self._dim)
        except BaseException as err:  # noqa: BLE001  # what an encoder returns may raise anything when it is read
            return err
        if self._dim is None:
            self._dim = next((row.size for row in rows if not isinstance(row, NiruError)), None)
        return rows
