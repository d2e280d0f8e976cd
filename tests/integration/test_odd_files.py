"""Good files that are out of the ordinary are taken in with the facts that they were made with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.corpus.odd import OddFile
from tests.corpus.odd_audio import AUDIO
from tests.corpus.odd_documents import DOCUMENTS
from tests.corpus.odd_images import IMAGES
from tests.corpus.odd_names import ODD_NAMES
from tests.corpus.odd_video import VIDEOS

import mindia
from mindia import Library, LocalStorage
from mindia.testing import samples

FILES: dict[str, OddFile] = IMAGES | VIDEOS | AUDIO | DOCUMENTS


@pytest.fixture(scope="module")
def shared(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """A library for all of them, so that parsers are started once."""
    storage = LocalStorage(tmp_path_factory.mktemp("objects"))
    with mindia.connect(database_url, storage=storage) as app:
        yield app.library(app.tenants.create("Acme"))


@pytest.mark.parametrize("name", FILES)
def test_an_odd_file_is_taken_in_with_the_facts_that_it_was_made_with(shared: Library, name: str) -> None:
    odd = FILES[name]
    content = odd.make()

    item = shared.media.add(content, filename=odd.filename)

    assert item.content_type == odd.content_type
    assert item.filename == odd.filename
    assert item.file_size == len(content)
    expected = {
        fact: pytest.approx(value, abs=odd.within + 1e-6) if fact == "duration" else value
        for fact, value in odd.facts.items()
    }
    assert {fact: getattr(item, fact) for fact in odd.facts} == expected
    assert shared.media.get(item.id) == item
    assert shared.media.read(item) == content


@pytest.mark.parametrize("what", ODD_NAMES)
def test_an_odd_filename_is_kept_as_far_as_it_can_be_shown(shared: Library, what: str) -> None:
    given, cleaned = ODD_NAMES[what]

    item = shared.media.add(samples.image(), filename=given)

    assert item.filename == cleaned
    assert item.original_filename == given[:255]
    assert shared.media.get(item.id).filename == cleaned
