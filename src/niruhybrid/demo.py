"""The demo: Python's own documentation, encoded once and kept in the user's cache."""

import hashlib
import logging
import platform
from collections.abc import Callable
from pathlib import Path

from niruhybrid.corpus.demo import EDITION, demo_documents
from niruhybrid.ingest import Failure, IngestReport, ingest_new
from niruhybrid.pipeline import Pipeline
from niruhybrid.settings import Settings, cache_directory, library_version

__all__ = ("demo_store", "fill_demo")

logger = logging.getLogger(__name__)


def demo_store(settings: Settings) -> Path | None:
    """Return the file that keeps the demo corpus of this Python, model and version; None if no file can be kept."""
    model = hashlib.sha256((settings.model or "").encode()).hexdigest()[:8]
    folder = cache_directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        logger.warning("demo_not_kept reason=%s: set XDG_CACHE_HOME to a folder that can be written to", err.strerror)
        return None
    return folder / f"demo-{platform.python_version()}-{model}-{library_version()}-{EDITION}.db"


async def fill_demo(
    pipeline: Pipeline,
    store: Path | None,
    *,
    on_progress: Callable[[IngestReport], None] | None = None,
    on_failure: Callable[[Failure], None] | None = None,
) -> IngestReport | None:
    """Store the demo corpus, unless `store` has all of it; return what was done, None for nothing.

    That it is complete is noted in a file beside the store, as the number of documents.
    """
    note = None if store is None else store.with_suffix(".complete")
    if note is not None and note.exists() and note.read_text() == str((await pipeline.stats()).documents):
        return None
    report = await ingest_new(pipeline, demo_documents(), on_progress=on_progress, on_failure=on_failure)
    if note is not None and not report.failed:
        note.write_text(str((await pipeline.stats()).documents))
    return report
