"""The pages: links between them lead somewhere, and no error is missing."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import mindia
from mindia import errors
from mindia.errors import MindiaError

_ROOT = Path(__file__).parents[2]
_PAGES = (_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md")))
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \| (yes|no) \| ([^|]+) \| ([^|]+) \|$", flags=re.MULTILINE)


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = [link for link in _LINK.findall(page.read_text("utf-8")) if "://" not in link]
    missing = [link for link in targets if not (page.parent / link.partition("#")[0]).exists()]
    assert not missing


def test_every_page_is_named_in_the_readme() -> None:
    linked = set(_LINK.findall((_ROOT / "README.md").read_text("utf-8")))
    assert {f"docs/{page.name}" for page in _PAGES[1:]} <= linked


def test_the_site_leads_to_every_page() -> None:
    named = re.findall(r"([a-z-]+\.md)$", (_ROOT / "mkdocs.yml").read_text("utf-8"), flags=re.MULTILINE)
    assert sorted(named) == [page.name for page in _PAGES[1:]]


def test_the_reference_has_the_home_of_every_public_name() -> None:
    described = set(re.findall(r"^::: ([\w.]+)$", (_ROOT / "docs" / "reference.md").read_text("utf-8"), re.MULTILINE))
    for module in described:
        name, _, attribute = module.rpartition(".")
        assert find_spec(module) if attribute.islower() else hasattr(import_module(name), attribute), module

    offered = [getattr(mindia, name) for name in mindia.__all__]
    homes = {each.__module__ for each in offered if inspect.isclass(each) or inspect.isroutine(each)}
    assert homes - described <= {"mindia.errors"}  # which have a page of their own


def test_the_page_of_errors_has_each_as_it_is() -> None:
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, MindiaError)]
    rows = _ROW.findall((_ROOT / "docs" / "errors.md").read_text("utf-8"))

    assert {row[:5] for row in rows} == {
        (
            error.__name__,
            error.code,
            str(error.http_status),
            "yes" if error.retryable else "no",
            (error.__doc__ or "").splitlines()[0],
        )
        for error in classes
    }
    assert len(rows) == len(classes)
