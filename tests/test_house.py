"""What holds for the tree as a whole: its contracts, its public names, its words."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import Module7_NiruHybrid
import niruhybrid
from niruhybrid import errors

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "tools", "benchmarks", "docs", "requirements", "changelog.d", "deploy", ".ci")
WRITTEN = {
    ".py",
    ".md",
    ".toml",
    ".yml",
    ".yaml",
    ".json",
    ".conf",
    ".service",
    ".txt",
    ".in",
    ".html",
    ".js",
    ".css",
    "",
}
GUIDE = ROOT / "docs" / "guide.md"


def modules(package: ModuleType) -> list[str]:
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [package.__name__, *(module.name for module in found if "._" not in module.name)]


def texts() -> Iterator[tuple[Path, str]]:
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*"))]
    for path in [*sorted(ROOT.iterdir()), *files]:
        if path.is_file() and path.suffix in WRITTEN and "__pycache__" not in path.parts:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


def pages() -> Iterator[tuple[Path, str]]:
    return ((path, text) for path, text in texts() if path.suffix == ".md" and ROOT / path != GUIDE)


def test_imports_run_one_way() -> None:
    # in a process of its own: it sets up logging for itself
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [*modules(niruhybrid), *modules(Module7_NiruHybrid)])
def test_public_names_are_listed_once_and_described(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    listed = getattr(module, "__all__", ())
    assert len(listed) == len(set(listed))
    classes = [key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == name]
    assert {key for key in classes if not key.startswith("_")} <= set(listed)
    described = [getattr(module, key) for key in listed]
    assert [
        value for value in described if (inspect.isclass(value) or inspect.isroutine(value)) and not value.__doc__
    ] == []


def drawn_tree(drawing: str) -> dict[str, str]:
    """Return each class of a drawn tree with its bases, as `Child -> Parent, Other`."""
    parents: list[tuple[int, str]] = []
    tree = {}
    for line in drawing.splitlines():
        if found := re.match(r" {4}([│├└─ ]*)(\w+Error)(?: \(([\w, ]+)\))?", line):
            depth, name, also = len(found[1]), found[2], found[3]
            parents = [(column, parent) for column, parent in parents if column < depth]
            tree[name] = ", ".join(base for base in (parents[-1][1] if parents else "Exception", also) if base)
            parents.append((depth, name))
    return tree


def test_error_tree_is_as_drawn() -> None:
    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == errors.__name__
    ]
    real = {
        error.__name__: ", ".join(
            base.__name__ for base in sorted(error.__bases__, key=lambda base: not issubclass(base, errors.NiruError))
        )
        for error in classes
    }
    assert drawn_tree(errors.__doc__ or "") == real


def test_error_codes_are_unique() -> None:
    codes = [getattr(errors, name).code for name in errors.__all__]
    assert sorted(codes) == sorted(set(codes))


def test_no_file_names_a_package_index_or_this_machine_or_an_unfinished_part() -> None:
    here = "|".join(re.escape(f"{place}/") for place in {str(ROOT), str(Path.home())})
    unwanted = re.compile(rf"pypi[.]org|pythonhosted[.]|\b(?:TO[D]O|FIXM[E]|XX[X])\b|(?<![\w./~-])(?:{here})")
    found = [f"{path}: {hit[0]}" for path, text in texts() for hit in unwanted.finditer(text)]
    assert found == []


def test_requirements_are_pinned_with_hashes_and_name_no_host() -> None:
    locks = sorted((ROOT / "requirements").glob("*.txt"))
    assert {lock.stem for lock in locks} == {"build", "cluster", "dev", "docs", "guide", "model", "runtime"}
    for lock in locks:
        pins = re.split(r"\n(?=\S)", re.sub(r"(?m)^#.*\n", "", lock.read_text(encoding="utf-8")).strip())
        assert all(re.match(r"[\w.\[\]-]+==\S+ .*\\\n +--hash=sha256:", pin) for pin in pins), lock.name
        assert not any(re.match(r"torch|--|.*://", pin) for pin in pins), lock.name


def test_pins_satisfy_what_the_project_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    pins = (ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    names = [re.split(r"[>\[;]", requirement)[0].lower() for requirement in wanted]
    missing = [name for name in names if f"\n{name}==" not in f"\n{pins}"]
    assert missing == []


def asserts(test: ast.AST) -> bool:
    """Whether a test can fail by itself: an assertion, an expected error, or a helper that is named after checking."""
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if re.match(r"raises|warns|run_state_machine|_?(check|assert|expect|verify)", name):
                return True
    return False


def test_every_test_asserts() -> None:
    idle = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not asserts(node)
    ]
    assert idle == []


def test_every_result_that_a_page_names_exists() -> None:
    named = {(path, name) for path, text in pages() for name in re.findall(r"benchmarks/results/[\w.-]*\w", text)}
    assert [f"{path}: {name}" for path, name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_speed_that_a_page_states_names_its_result() -> None:
    speed = re.compile("\\d ?(?:\u00d7|(?:ms|µs|(?:texts|items|queries|documents)(?:/s| a second))\\b)")
    unnamed = []
    for path, text in pages():
        if "changelog" in str(path).lower():
            continue
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        paragraphs = [part for part in re.split(r"\n\s*\n", prose) if part.strip()]
        around = zip(["", *paragraphs], paragraphs, [*paragraphs[1:], ""], strict=False)
        unnamed += [
            f"{path}: {part[:60]}"
            for before, part, after in around
            if speed.search(part) and "benchmarks/results/" not in before + part + after
        ]
    assert unnamed == []


@pytest.mark.integration
def test_importing_the_library_loads_no_heavy_package() -> None:
    heavy = (
        "openvino",
        "openvino_telemetry",
        "tokenizers",
        "fastapi",
        "pydantic",
        "uvicorn",
        "rich",
        "click",
        "torch",
        "httpx2",
        "openai",
        "opentelemetry",
    )
    code = f"import sys, niruhybrid; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run((sys.executable, "-W", "error", "-c", code), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_guides_import_paths_only_re_export() -> None:
    for path in sorted((ROOT / "src" / "Module7_NiruHybrid").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            documents = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            lists = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            imports = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("niruhybrid.")
            assert documents or lists or imports, f"{path.name}:{node.lineno} does more than re-export"


def test_every_make_target_that_a_page_names_exists() -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", rules, re.MULTILINE))
    named = {(path, word) for path, text in pages() for word in re.findall(r"(?:`|\$ )make ([a-z][a-z-]*)", text)}
    assert [f"{path}: make {word}" for path, word in sorted(named) if word not in targets] == []
    assert {"serve", "test"} <= {word for path, word in named if path.name == "README.md"}


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.splitlines()[-1] == "run test"
    assert "$ make test" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_promise_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", page)
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) >= 10
    assert [name for name in named if f"def {name}(" not in tests] == []
