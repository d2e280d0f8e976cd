"""The services for asyncio hosts are those that the synchronous ones make."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import mindia
from mindia import aio
from mindia.app import Mindia
from mindia.library import Library, LibraryTransaction, Transaction

_ROOT = Path(__file__).parents[2]


def test_the_services_for_asyncio_are_up_to_date() -> None:
    generator: Any = _generator()
    folder = _ROOT / generator.TARGET
    there = {path.name: path.read_text("utf-8") for path in folder.glob("*.py") if path.name != "__init__.py"}
    assert there == generator.all_files(), "run make aio"


@pytest.mark.parametrize("name", ["connect", "local"])
def test_what_opens_takes_the_same_and_threads(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (aio, mindia))
    assert {key: (each.annotation, each.default) for key, each in ours.items() if key != "threads"} == {
        key: (each.annotation, each.default) for key, each in theirs.items()
    }
    assert list(ours)[-1] == "threads"


_PAIRS: list[tuple[type[Any], type[Any]]] = [
    (Mindia, aio.AsyncMindia),
    (Library, aio.AsyncLibrary),
    (LibraryTransaction, aio.AsyncLibraryTransaction),
    (Transaction, aio.AsyncTransaction),
]


def test_what_asyncio_does_not_have_is_named_on_the_page() -> None:
    page = (_ROOT / "docs" / "async.md").read_text("utf-8")
    section = page.partition("## What is not there")[2]
    told = set(re.findall(r"^\| `([\w.]+)` \|", section, flags=re.MULTILINE))
    missing = {f"{theirs.__name__}.{name}" for theirs, ours in _PAIRS for name in _public(theirs) - _public(ours)}
    assert missing == told


def _public(kind: type[Any]) -> set[str]:
    """Return the names of methods and properties, and of what `__init__` sets."""
    makers = [vars(each)["__init__"] for each in kind.__mro__[:-1] if "__init__" in vars(each)]
    sources = [inspect.getsource(each) for each in makers]
    attributes = {name for source in sources for name in re.findall(r"self\.([a-z]\w*)(?: =|: )", source)}
    return attributes | {name for name in dir(kind) if not name.startswith("_")}


def _generator() -> Any:
    spec = importlib.util.spec_from_file_location("aio_generator", _ROOT / "tools" / "aio.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
