"""The runner itself, on small pages: it must fail where a page is wrong."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tools.run_page import Block, PageError, parse, run

RUNNER = Path(__file__).parents[2] / "tools" / "run_page.py"


def page(text: str) -> list[Block]:
    return parse(textwrap.dedent(text))


def outputs(text: str) -> list[str]:
    return [output for _, output in run(page(text), "sample.md")]


def test_only_python_and_bash_blocks_are_run() -> None:
    found = page(
        """\
        Words.

        ```python
        print(1)
        ```

        ```console
        $ make serve
        ```

        ```bash
        echo 2
        ```
        """
    )
    assert found == [Block("python", "print(1)\n", 4), Block("bash", "echo 2\n", 12)]


def test_blocks_share_a_namespace_and_an_event_loop() -> None:
    printed = outputs(
        """\
        ```python
        import asyncio
        queue = asyncio.Queue()
        await queue.put("kept")
        loop = asyncio.get_running_loop()
        ```

        ```python
        print(await queue.get(), loop is asyncio.get_running_loop())
        ```
        """
    )
    assert printed == ["", "kept True\n"]


def test_async_for_works_at_the_top_level_of_a_block() -> None:
    printed = outputs(
        """\
        ```python
        async def numbers():
            yield 1
            yield 2

        async for number in numbers():
            print(number)
        ```
        """
    )
    assert printed == ["1\n2\n"]


def test_a_dataclass_can_be_defined_in_a_page() -> None:
    printed = outputs(
        """\
        ```python
        from dataclasses import dataclass

        @dataclass
        class Pair:
            left: int

        print(Pair(1))
        ```
        """
    )
    assert printed == ["Pair(left=1)\n"]


def test_a_text_block_right_after_a_block_is_what_it_must_print() -> None:
    shown = "```python\nprint(6 * 7)\n```\n\n```text\n{}\n```\n"
    assert outputs(shown.format(42)) == ["42\n"]
    with pytest.raises(PageError, match=r"sample\.md:2 printed '42\\n': the page shows '43\\n'"):
        outputs(shown.format(43))


def test_a_text_block_further_down_is_not_an_output() -> None:
    assert outputs("```python\nprint(1)\n```\n\nA drawing:\n\n```text\n+--+\n```\n") == ["1\n"]


def test_an_exception_points_to_its_line_in_the_page() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        outputs("One.\n\nTwo.\n\n```python\n\n1 / 0\n```\n")
    last = caught.traceback[-1]
    assert (str(last.path).rpartition("/")[2], last.lineno + 1) == ("sample.md", 7)


def test_bash_output_is_returned_and_a_failing_command_is_an_error() -> None:
    assert outputs("```bash\nprintf 'a\\nb\\n' | tail -1\n```\n") == ["b\n"]
    with pytest.raises(PageError, match=r"sample\.md:2 exited with 1"):
        outputs("```bash\nfalse | true\n```\n")


@pytest.mark.integration
def test_a_warning_or_a_failure_ends_the_program_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```python\nprint('fine')\n```\n\n```python\nopen('page.md')\n```\n")
    command = (sys.executable, "-W", "error", str(RUNNER), str(tmp_path / "page.md"))
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.stdout.splitlines()[0] == '{"line": 2, "language": "python", "output": "fine\\n"}'
    assert "ResourceWarning" in ran.stderr
