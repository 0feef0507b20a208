import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

Records = Sequence[Mapping[str, Any]]
MakeFolder = Callable[..., Path]

DOCUMENTS = [
    {"_id": "d1", "title": "Bridges", "text": "A suspension bridge hangs from cables."},
    {"_id": "d2", "title": "", "text": "Bread rises because yeast makes gas."},
    {"_id": "d3", "title": "Rivers", "text": "A river carries sand to the sea."},
    {"_id": "d4", "text": "Cables of steel are spun from wires."},
]
QUERIES = [
    {"_id": "q1", "text": "suspension bridge"},
    {"_id": "q2", "text": "why does bread rise"},
    {"_id": "q3", "text": "what about volcanoes"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td4\t1\nq2\td2\t1\nq2\td3\t0\n"


@pytest.fixture
def folder(tmp_path: Path) -> MakeFolder:
    def make(
        name: str = "small",
        documents: Records | str = DOCUMENTS,
        queries: Records | str = QUERIES,
        qrels: str | None = QRELS,
        *,
        gz: bool = False,
        test_split: bool = False,
    ) -> Path:
        root = tmp_path / name
        root.mkdir()
        for stem, records in (("corpus", documents), ("queries", queries)):
            text = records if isinstance(records, str) else "\n".join(json.dumps(record) for record in records) + "\n"
            if gz:
                (root / f"{stem}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
            else:
                (root / f"{stem}.jsonl").write_text(text)
        if qrels is not None:
            path = root / ("qrels/test.tsv" if test_split else "qrels.tsv")
            path.parent.mkdir(exist_ok=True)
            path.write_text(qrels)
        return root

    return make
