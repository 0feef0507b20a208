"""The documentation of the running Python, read from its own library: sources are parsed, not imported.

Only what is compiled into the interpreter, or written in C, is read by importing the module that offers it; those
modules (`_COMPILED`) do nothing on import. Nothing outside the standard library is needed here.
"""

import ast
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import NamedTuple

__all__ = ("Entry", "python_docs")

MIN_CHARS = 24
_SKIPPED = frozenset(  # what acts on import, what only an implementer needs, and what few would ask about
    """
    aifc antigravity audioop bdb chunk distutils encodings ensurepip genericpath idlelib imaplib lib2to3 mailbox msilib
    nntplib nt ntpath nturl2path opcode pydoc_data pyexpat sre_compile sre_constants sre_parse sunau telnetlib test this
    tkinter turtle turtledemo wsgiref xdrlib xmlrpc xxlimited
    """.split()  # noqa: SIM905  # a list of names to read, not of quotation marks
)
_COMPILED = """
    builtins array asyncio atexit binascii bisect bz2 cmath collections collections.abc contextvars copyreg csv datetime
    decimal errno faulthandler fcntl functools gc hashlib heapq hmac io itertools json lzma marshal math mmap operator
    os pickle random re resource select signal socket sqlite3 ssl string struct sys syslog termios threading time types
    unicodedata weakref zlib zoneinfo
    """.split()  # noqa: SIM905  # same
_FIRST = """
    json csv os pathlib re collections functools contextlib datetime argparse logging subprocess shutil glob random
    string textwrap typing dataclasses enum asyncio threading concurrent queue tempfile zipfile urllib http unittest
    statistics copy
    """.split()  # noqa: SIM905  # same
_SHOWN_AS = {"posixpath": "os.path", "_collections_abc": "collections.abc", "_py_warnings": "warnings"}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Entry(NamedTuple):
    """One documented thing: a module, class, function, method or topic of the language.

    Attributes:
        name: its dotted name, such as `json.loads`, or `topic:with`; unique.
        title: a line to show.
        text: signature, where known, and documentation.
        kind: "language", "module", "class" or "function".
    """

    name: str
    title: str
    text: str
    kind: str


def python_docs() -> Iterator[Entry]:
    """Yield the documentation of the language and the standard library, always in the same order.

    Private names and documentation under 24 characters are left out; nothing is printed and no warning escapes.
    """
    seen: set[str] = set()
    for entry in _all_entries():
        if entry.name not in seen and len(entry.text.partition("\n\n")[2] or entry.text) >= MIN_CHARS:
            seen.add(entry.name)
            yield entry


def _all_entries() -> Iterator[Entry]:
    """Yield what is asked for most first: who fills an index can be asked sensible things early."""
    library = Path(sysconfig.get_path("stdlib"))
    for name in _FIRST:
        yield from _module(library, name)
    for name in _COMPILED:
        yield from _compiled_entries(name)
    yield from _topics()
    for name in sorted(sys.stdlib_module_names):
        if name not in _SKIPPED and (name in _SHOWN_AS or not name.startswith("_")):
            yield from _source_entries(library, name)


def _module(library: Path, name: str) -> Iterator[Entry]:
    if name in _COMPILED:
        yield from _compiled_entries(name)
    yield from _source_entries(library, name)


def _topics() -> Iterator[Entry]:
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    for name, text in sorted(topics.items()):
        heading = text.lstrip().partition("\n")[0].replace('"', "")
        yield Entry(f"topic:{name}", heading, text.strip(), "language")


def _compiled_entries(name: str) -> Iterator[Entry]:
    """Yield what a module offers that has no Python source."""
    try:
        module = importlib.import_module(name)
    except ImportError:  # left out of this build
        return
    if not _has_source(module):
        yield Entry(name, name, _doc(module), "module")
    for attribute, value in sorted(vars(module).items()):
        if not attribute.startswith("_") and _is_compiled(value) and _is_at_home(value, name):
            yield from _compiled_entry(attribute if name == "builtins" else f"{name}.{attribute}", value)


def _compiled_entry(name: str, value: object) -> Iterator[Entry]:
    yield Entry(name, name, _with_signature(name, value), "class" if isinstance(value, type) else "function")
    if isinstance(value, type) and not issubclass(value, BaseException):
        for attribute, member in sorted(vars(value).items()):
            if not attribute.startswith("_"):
                full = f"{name}.{attribute}"
                yield Entry(full, full, _with_signature(full, member), "function")


def _has_source(module: ModuleType) -> bool:
    return (getattr(module, "__file__", None) or "").endswith(".py")


def _is_compiled(value: object) -> bool:
    if isinstance(value, type):
        return not any(isinstance(member, FunctionType) for member in vars(value).values())
    return inspect.isbuiltin(value)


def _is_at_home(value: object, module: str) -> bool:
    """Tell whether a module offers the value as its own, not as an import from another public module."""
    owner = (getattr(value, "__module__", None) or module).lstrip("_")
    return module in {"builtins", owner} or owner not in sys.stdlib_module_names or owner in {"posix", "nt"}


def _doc(value: object) -> str:
    doc = vars(value).get("__doc__") if isinstance(value, type) else getattr(value, "__doc__", None)
    return inspect.cleandoc(doc) if isinstance(doc, str) else ""


def _with_signature(name: str, value: object) -> str:
    doc = _doc(value)
    signature = getattr(value, "__text_signature__", None)
    if not doc or not isinstance(signature, str) or doc.startswith(name.rpartition(".")[2] + "("):
        return doc
    shown = (
        signature.replace("($self, /)", "()").replace("$self, /, ", "").replace("$self, ", "").replace("$module, ", "")
    )
    return f"{name}{shown}\n\n{doc}"


def _source_entries(library: Path, name: str) -> Iterator[Entry]:
    shown = _SHOWN_AS.get(name, name)
    if (library / f"{name}.py").is_file():
        yield from _module_entries(_parsed(library / f"{name}.py"), shown)
    elif (library / name / "__init__.py").is_file():
        yield from _package_entries(library / name, shown)


def _package_entries(folder: Path, package: str) -> Iterator[Entry]:
    tree = _parsed(folder / "__init__.py")
    yield from _module_entries(tree, package)
    offered = _imported_names(tree, package)
    for path in sorted(folder.iterdir()):
        if path.name.startswith("__") or path.name in {"test", "tests"}:
            continue
        name = f"{package}.{path.stem}"
        if path.suffix == ".py" and (not path.stem.startswith("_") or path.stem in offered):
            entries = _module_entries(_parsed(path), name)
            yield from _offered(entries, name, package, offered.get(path.stem, frozenset()))
        elif (path / "__init__.py").is_file() and not path.name.startswith("_"):
            yield from _package_entries(path, name)


def _offered(entries: Iterator[Entry], module: str, package: str, offered: frozenset[str]) -> Iterator[Entry]:
    """Rename what the package offers under its own name; a private module shows nothing else."""
    private = module.rpartition(".")[2].startswith("_")
    for entry in entries:
        inner = entry.name.removeprefix(module).lstrip(".")
        if inner and (inner.partition(".")[0] in offered or "*" in offered):
            name = f"{package}.{inner}"
            yield entry._replace(name=name, title=name, text=entry.text.replace(entry.name + "(", name + "(", 1))
        elif not private:
            yield entry


def _imported_names(tree: ast.Module, package: str) -> dict[str, frozenset[str]]:
    """Return, for each submodule, the names that the package imports from it; `*` stands for all."""
    names: dict[str, frozenset[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = node.module if node.level else node.module.removeprefix(package + ".")
            if node.level or module != node.module:
                names[module] = names.get(module, frozenset()) | {alias.name for alias in node.names}
    return names


def _parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file, an empty one if it can't be read: the documentation then lacks that file."""
    try:
        return ast.parse(path.read_bytes(), path.name)
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def _module_entries(tree: ast.Module, module: str) -> Iterator[Entry]:
    yield Entry(module, module, ast.get_docstring(tree) or "", "module")
    public = _declared_all(tree)
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_") and (not public or node.name in public):
            yield _definition_entry(node, f"{module}.{node.name}")
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and not member.name.startswith("_"):
                        yield _definition_entry(member, f"{module}.{node.name}.{member.name}")


def _declared_all(tree: ast.Module) -> frozenset[str]:
    """Return the names of a literal `__all__`, none when there is no such list or the code adds to it."""
    mentions = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "__all__"]
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets == mentions:  # set once, and never added to
            try:
                return frozenset(ast.literal_eval(node.value))
            except ValueError:
                return frozenset()
    return frozenset()


def _definition_entry(node: Definition, name: str) -> Entry:
    doc = ast.get_docstring(node) or ""
    if not isinstance(node, ast.ClassDef):
        return Entry(name, name, f"{name}({_arguments(node)})\n\n{doc}" if doc else "", "function")
    head = f"class {name}"
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            head = f"class {name}({_arguments(member)})"
            doc = f"{doc}\n\n{ast.get_docstring(member) or ''}".strip()
    return Entry(name, name, f"{head}\n\n{doc}" if doc else "", "class")


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    arguments = ast.unparse(node.args)
    first, _, rest = arguments.partition(", ")
    return rest if first in {"self", "cls"} else arguments
