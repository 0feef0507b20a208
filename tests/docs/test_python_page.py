"""The page of Python names shows every public one, and none that is not there."""

import importlib
import re
from types import ModuleType

import niruhybrid
from tests.docs.pages import ROOT

SHOWN = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.MULTILINE)


def resolved(path: str) -> object:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def test_every_name_on_the_page_is_there_once() -> None:
    assert len(SHOWN) == len(set(SHOWN)) > 20
    for path in SHOWN:
        assert resolved(path).__doc__


def test_every_public_name_is_on_the_page() -> None:
    shown: list[object] = []
    for each in map(resolved, SHOWN):
        shown += [getattr(each, name) for name in each.__all__] if isinstance(each, ModuleType) else [each]
    names = [name for name in niruhybrid.__all__ if name != "__version__"]
    assert [name for name in names if getattr(niruhybrid, name) not in shown] == []
