"""The main job from end to end: media in, found, worked on, gone."""

from __future__ import annotations

import pytest

from mindia import Image, Library, LocalStorage, Mindia, Tenant
from mindia.errors import NotFoundError
from mindia.testing import samples


def test_what_was_added_is_found_by_word_at_once_and_by_vector_after_the_worker(app: Mindia, library: Library) -> None:
    cat = library.media.add(samples.image(), filename="cat_on_windowsill.jpg", metadata={"place": "Lisbon"})

    assert isinstance(cat, Image)
    assert [result.media for result in library.search("cats")] == [cat]
    assert [result.media for result in library.search("lisbon")] == [cat]
    assert not library.search("cats", mode="semantic")

    app.run_until_idle()

    (found,) = library.search("wndowsill", mode="semantic")
    assert found.media == cat
    assert found.text_rank is None
    assert found.vector_rank == 1
    assert [result.media for result in library.search("wndowsill")] == [cat]


def test_nothing_of_a_deleted_item_is_left(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage
) -> None:
    item = library.media.add(samples.image(), filename="gone.jpg")
    app.run_until_idle()

    library.media.delete(item)
    app.run_until_idle()

    with pytest.raises(NotFoundError, match=str(item.id)):
        library.media.get(item.id)
    assert not library.search("gone")
    assert list(storage.list(tenant.s3_bucket)) == []
