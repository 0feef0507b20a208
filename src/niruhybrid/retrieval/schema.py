"""The tables of a store's file, and how files of earlier formats become files of this one.

    state       one row: what the last transaction left
    passages    the texts; one row for each passage, of which most documents have one only
    vectors     apart from the texts: a table of rows this long would leave its pages half empty
    checkpoint  one row: which file of derived indexes belongs to this one

Format 1 kept terms with blanks between them, an index of its own, and vectors without a checksum; format 2 knew
documents of one passage only.
"""

__all__ = (
    "APPLICATION_ID",
    "BLANK",
    "COUNTED",
    "FIRST_WITH_CHECKPOINTS",
    "MIGRATIONS",
    "SCHEMA",
    "SEPARATOR",
    "SETTINGS",
    "VERSION",
)

VERSION = 3
BLANK = 0
"""The format of a file without any tables."""
FIRST_WITH_CHECKPOINTS = 2
APPLICATION_ID = 0x4E495255
"""`NIRU` in ASCII: which program a database belongs to."""

SEPARATOR = "\x1f"
"""Between terms; a term that has one becomes two, alike for documents and, in vain, for queries."""

_STATE = """
CREATE TABLE state (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    watermark INTEGER NOT NULL,
    last_row INTEGER NOT NULL,
    documents INTEGER NOT NULL,
    dimension INTEGER
);
"""

_PASSAGES = """
CREATE TABLE passages (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    part INTEGER NOT NULL,
    start INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    title TEXT NOT NULL,
    metadata BLOB NOT NULL,
    text TEXT NOT NULL,
    terms TEXT NOT NULL,
    UNIQUE (id, part)
);
"""

_CHECKPOINT = "CREATE TABLE checkpoint (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), name TEXT NOT NULL);"

SCHEMA = f"""
{_STATE}
INSERT INTO state VALUES (1, 0, 0, 0, NULL);
{_PASSAGES}
CREATE TABLE vectors (row INTEGER PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER NOT NULL DEFAULT 0);
{_CHECKPOINT}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""

_FROM_1 = f"""
DROP TABLE IF EXISTS vocabulary;
DROP TABLE IF EXISTS lexical;
ALTER TABLE vectors ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE vectors SET checksum = crc32(vector);
UPDATE documents SET terms = replace(terms, ' ', char(31));
{_CHECKPOINT}
PRAGMA user_version = 2;
"""

_FROM_2 = f"""
{_PASSAGES}
INSERT INTO passages SELECT row, id, 0, 0, row, title, metadata, text, terms FROM documents ORDER BY row;
DROP TABLE documents;
ALTER TABLE state RENAME TO state_2;
{_STATE}
INSERT INTO state SELECT 1, watermark, last_row, (SELECT count(*) FROM passages), dimension FROM state_2;
DROP TABLE state_2;
PRAGMA user_version = 3;
"""

MIGRATIONS = {1: _FROM_1, 2: _FROM_2}
"""What turns a format into the next; `crc32` is to be there as a function."""

_COUNTED_DOCUMENTS = "SELECT watermark, (SELECT count(*) FROM documents) FROM state"
COUNTED = {1: _COUNTED_DOCUMENTS, 2: _COUNTED_DOCUMENTS, 3: "SELECT watermark, documents FROM state"}
"""What reads watermark and number of documents, for each format."""

SETTINGS = """
PRAGMA mmap_size = 2147483648;
PRAGMA cache_size = -65536;
PRAGMA wal_autocheckpoint = 4000;
PRAGMA temp_store = memory;
"""
