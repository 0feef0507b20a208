"""What a tool that makes requests of the OpenAPI description has to be told: what a printable text is."""

import schemathesis
from hypothesis import strategies as st

_CHARACTERS = st.characters(exclude_categories=("C", "Zl", "Zp", "Zs"), include_characters=" ")

schemathesis.openapi.format("printable", st.text(_CHARACTERS, min_size=1, max_size=512).filter(str.isprintable))
