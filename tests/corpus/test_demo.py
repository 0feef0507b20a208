import subprocess
import sys

import pytest

from niruhybrid.corpus.demo import demo_documents
from niruhybrid.corpus.passages import size
from niruhybrid.types import Document


@pytest.fixture(scope="module")
def corpus() -> dict[str, Document]:
    documents = list(demo_documents())
    by_id = {document.id: document for document in documents}
    assert len(by_id) == len(documents), "ids are unique"
    return by_id


@pytest.mark.slow
def test_holds_thousands_of_entries_most_of_them_short_and_some_long(corpus: dict[str, Document]) -> None:
    assert 3_500 <= len(corpus) <= 6_000
    sizes = [size(document.text) for document in corpus.values()]
    assert sum(each <= 100 for each in sizes) > len(sizes) / 2
    assert sum(each > 1_000 for each in sizes) >= 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("itertools.chain", "str.split", "json.loads", "os.path.join", "os.walk", "csv.reader", "re.compile", "open"),
        *("asyncio.gather", "asyncio.Queue", "collections.deque", "functools.lru_cache", "datetime.datetime", "csv"),
        *("pathlib.Path.glob", "subprocess.run", "threading.Lock", "io.StringIO", "decimal.Decimal", "topic:with"),
        *("re.Pattern.match", "socket.socket", "unittest.TestCase", "math.sqrt", "time.sleep", "sqlite3.connect"),
    ],
)
def test_holds_what_people_ask_about(corpus: dict[str, Document], name: str) -> None:
    document = corpus[name]
    assert document.title
    assert document.metadata["name"] == name


@pytest.mark.slow
def test_names_no_private_thing_and_nothing_twice(corpus: dict[str, Document]) -> None:
    names = [document.metadata["name"] for document in corpus.values()]
    assert not [name for name in names if any(part.startswith("_") for part in name.split("."))]
    assert "asyncio.tasks.gather" not in names
    assert not [name for name in corpus if "#" in name]


@pytest.mark.slow
def test_is_the_same_in_every_run_and_silent() -> None:
    code = (
        "import hashlib, sys; from niruhybrid.corpus.demo import demo_documents\n"
        "digest = hashlib.sha256()\n"
        "for d in demo_documents(): digest.update(repr((d.id, d.title, d.text)).encode())\n"
        "assert not {'tkinter', 'this', 'antigravity', 'idlelib'} & set(sys.modules)\n"
        "print(digest.hexdigest())"
    )
    runs = [
        subprocess.run(  # the code above
            [sys.executable, "-W", "error", "-c", code], capture_output=True, check=True, text=True
        )
        for _ in range(2)
    ]
    assert [run.stderr for run in runs] == ["", ""]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64
