"""The services for asyncio hosts are those that the synchronous ones make."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]


def test_the_services_for_asyncio_are_up_to_date() -> None:
    generator: Any = _generator()
    folder = _ROOT / generator.TARGET
    there = {path.name: path.read_text("utf-8") for path in folder.glob("*.py") if path.name != "__init__.py"}
    assert there == generator.all_files(), "run make aio"


def _generator() -> Any:
    spec = importlib.util.spec_from_file_location("aio_generator", _ROOT / "tools" / "aio.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
