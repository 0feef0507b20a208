"""The demo corpus: what the running Python says about itself and its standard library."""

from collections.abc import Iterator

from niruhybrid.corpus.python_docs import python_docs
from niruhybrid.types import Document

__all__ = ("EDITION", "demo_documents")

EDITION = 2
"""Changes with what `demo_documents` makes of the same Python: what was kept of an earlier one is not mixed in."""


def demo_documents() -> Iterator[Document]:
    """Yield the nearly five thousand entries of Python's documentation, read from the interpreter itself.

    An id is the name of what is documented, such as `json.loads`. Most are a few sentences, some a chapter of thousands
    of words: a pipeline reads these in windows. The order is the same in each run of the same Python. Metadata holds
    `name` and `kind` ("language", "module", "class" or "function"). Blocks on files: about three seconds in all.
    """
    for entry in python_docs():
        yield Document(entry.name, entry.text, entry.title, {"name": entry.name, "kind": entry.kind})
