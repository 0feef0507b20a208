"""The demo corpus as texts of a like length, for benchmarks that hand them to an encoder or a store as they are."""

from collections.abc import Iterator
from dataclasses import replace

from niruhybrid.corpus.demo import demo_documents
from niruhybrid.corpus.passages import passages
from niruhybrid.types import Document


def demo_passages() -> Iterator[Document]:
    """Yield about six thousand passages that the encoder reads whole, each a document of its own."""
    for document in demo_documents():
        for number, text in enumerate(passages(document.text), 1):
            yield replace(document, id=document.id if number == 1 else f"{document.id}#{number}", text=text)
