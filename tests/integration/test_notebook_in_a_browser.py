"""What notebooks show, in a real browser: it renders, and nothing that came from outside runs."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
from tools.browser import chromium, document_of, screenshot

from mindia import Library
from mindia.testing import samples

_MARK = "document.body.dataset.ran=1"
_HOSTILE = f'"><script>{_MARK}</script><img src=x onerror="{_MARK}"><svg onload="{_MARK}">'
_PAGE = "<!doctype html><meta charset='utf-8'><title>Notebook</title><body>{}</body>"

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium: install the package chromium")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.html"


def test_the_browser_would_run_it(page: Path) -> None:
    page.write_text(_PAGE.format(_HOSTILE), "utf-8")

    assert 'data-ran="1"' in document_of(page)


def test_hostile_names_descriptions_and_metadata_do_not_run(library: Library, page: Path) -> None:
    item = library.media.add(
        samples.image(),
        filename='"><img src=x onerror=document.body.dataset.ran=1>.jpg',
        description=_HOSTILE,
        metadata={"said": _HOSTILE},
    )
    shown = [
        library.media.find()._repr_html_(),
        library.search("script")._repr_html_(),
        library.show(item)._repr_html_(),
        item._repr_html_(),
        library._repr_html_(),
    ]
    page.write_text(_PAGE.format("".join(shown)), "utf-8")

    document = document_of(page)

    assert "data-ran" not in document
    assert "&lt;script&gt;" in document


def test_200_hits_render_below_two_megabytes(library: Library, page: Path, tmp_path: Path) -> None:
    library.media.add_many([samples.image(width=64 + n % 50, height=48 + n // 50) for n in range(200)])
    shown = library.media.find(limit=200)._repr_html_()
    assert len(shown.encode()) < 2_000_000
    page.write_text(_PAGE.format(shown), "utf-8")

    screenshot(page, tmp_path / "page.png", width=1200, height=900)

    assert document_of(page).count("data:image/jpeg") == 200
    with PIL.Image.open(tmp_path / "page.png") as picture:
        assert picture.size == (1200, 900)
        colours = picture.convert("RGB").getcolors(maxcolors=2**24)
    assert colours is not None
    assert max(colours)[0] < 1200 * 900 * 0.95
