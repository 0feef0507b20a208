"""Logs as lines of JSON, with the id of the request that each belongs to."""

import logging
import re
from datetime import UTC, datetime

import orjson

from niruhybrid.server.front import REQUEST_ID

__all__ = ("JsonFormatter", "TextFormatter", "set_up")


_QUIET = ("uvicorn", "asyncio", "faiss", "httpx", "httpx2", "httpcore", "httpcore2", "openai")
"""Loggers of other libraries, of which only warnings are shown: some write the address of each request."""

_IN_URL = re.compile(r"://\S*@")


def _without_secrets(text: str) -> str:
    """Return a text without the names and passwords in its URLs."""
    return _IN_URL.sub("://…@", text) if "@" in text else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, and `request_id` and `error` where there are.

    Names and passwords in URLs are left out, as `TextFormatter` leaves them out.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request_id := REQUEST_ID.get()) is not None:
            fields["request_id"] = request_id
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        shown = {name: _without_secrets(value) for name, value in fields.items()}
        return orjson.dumps(shown, default=str).decode()


class TextFormatter(logging.Formatter):
    """Level, logger and message, and the id of the request if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        request_id = REQUEST_ID.get()
        text = _without_secrets(super().format(record))
        return text if request_id is None else f"{text} request_id={request_id}"


def set_up(*, as_json: bool, level: str) -> None:
    """Send the process's logs to stderr.

    Args:
        as_json: lines of JSON instead of text.
        level: the lowest level that is shown, such as `INFO`; `DEBUG` shows each request.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    for noisy in _QUIET:
        logging.getLogger(noisy).setLevel(logging.WARNING)
