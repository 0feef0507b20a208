"""The demo corpus: what the running Python says about itself and its standard library."""

from collections.abc import Iterator

from niruhybrid.corpus.passages import passages
from niruhybrid.corpus.python_docs import python_docs
from niruhybrid.types import Document

__all__ = ("demo_documents",)


def demo_documents() -> Iterator[Document]:
    """Yield about five thousand passages of Python's documentation, read from the interpreter itself.

    An id is the name of what is documented, such as `json.loads`, with `#2` and so on for its further passages. The
    order and the ids are the same in each run of the same Python. Metadata holds `name`, `kind` ("language", "module",
    "class" or "function"), `passage` from 1 and `passages`, their number. Blocks on files: about three seconds in all.
    """
    for entry in python_docs():
        cut = passages(entry.text)
        for number, text in enumerate(cut, 1):
            yield Document(
                id=entry.name if number == 1 else f"{entry.name}#{number}",
                text=text,
                title=entry.title,
                metadata={"name": entry.name, "kind": entry.kind, "passage": number, "passages": len(cut)},
            )
