"""Items are listed in pages, newest first, each exactly once."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from tests.integration.media_rows import four_kinds

from mindia import (
    Library,
    Media,
    MediaKind,
    MediaPage,
    Mindia,
)
from mindia._ids import uuid7
from mindia.errors import (
    InvalidError,
)
from mindia.testing import samples


@pytest.fixture
def other(app: Mindia) -> Library:
    """Another tenant's library."""
    return app.library(app.tenants.create("Globex"))


def pages(library: Library, *, limit: int, kind: MediaKind | str | None = None) -> Iterator[MediaPage]:
    after = None
    while True:
        page = library.media.find(kind=kind, limit=limit, after=after)
        yield page
        after = page.next
        if after is None:
            return


def test_every_item_is_on_exactly_one_page_whatever_its_length(library: Library, other: Library) -> None:
    added = [item for _ in range(2) for item in four_kinds(library)]
    with library.transaction() as tx:  # all of one moment
        added += [tx.media.add(samples.image(), filename=f"{number}.jpg") for number in range(4)]
    four_kinds(other)
    newest_first = added[::-1]

    for limit in range(1, len(added) + 2):
        found = list(pages(library, limit=limit))

        assert [item for page in found for item in page] == newest_first
        assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
        assert 1 <= len(found[-1]) <= limit


@pytest.mark.parametrize("kind", list(MediaKind))
def test_items_can_be_found_by_kind(library: Library, kind: MediaKind) -> None:
    added = [item for _ in range(3) for item in four_kinds(library)]
    expected = [item for item in reversed(added) if item.kind is kind]

    assert list(library.media.find(kind=kind)) == expected
    assert list(library.media.find(kind=str(kind))) == expected
    for limit in (1, 2, 3):
        assert [item for page in pages(library, limit=limit, kind=kind) for item in page] == expected


def test_pages_are_stable_while_items_are_added_and_deleted(library: Library) -> None:
    added = [library.media.add(samples.image(), filename=f"{number}.jpg") for number in range(9)]
    seen: list[Media] = []

    for number, page in enumerate(pages(library, limit=2)):
        seen += page
        library.media.add(samples.image(), filename=f"later-{number}.jpg")
        if number == 1:
            library.media.delete(added[8])  # seen before
            library.media.delete(added[5])  # the place that the page ended at has another item
            library.media.delete(added[3])  # not seen yet

    assert seen == [item for item in reversed(added) if item != added[3]]


def test_a_place_survives_the_item_that_it_names(library: Library) -> None:
    added = [library.media.add(samples.image(), filename=f"{number}.jpg") for number in range(4)]
    first = library.media.find(limit=2)
    library.media.delete(first[1])

    assert list(library.media.find(limit=2, after=first.next)) == [added[1], added[0]]


def test_a_page_is_a_sequence(library: Library) -> None:
    assert library.media.find() == MediaPage(())
    added = four_kinds(library)
    page = library.media.find(limit=3)

    assert len(page) == 3
    assert page[0] == added[3]
    assert page[1:] == (added[2], added[1])
    assert list(page) == list(page.items)
    assert page.next is not None
    assert library.media.find(limit=4).next is None
    assert not library.media.find(after=library.media.find(limit=3, after=page.next).next or page.next).next


def place(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "after",
    [
        "",
        " ",
        "nonsense",
        "äöü",
        "=====",
        "\0",
        place(""),
        place("now"),
        place(f"2024-01-01T00:00:00+00:00 {'x' * 36}"),
        place("2024-01-01T00:00:00+00:00"),
        place(f"2024-01-01T00:00:00 {uuid7()}"),
        place(f"2024-13-01T00:00:00+00:00 {uuid7()}"),
        place(f"{uuid7()} 2024-01-01T00:00:00+00:00"),
        place(f"2024-01-01T00:00:00+00:00 {uuid7()} 1"),
        place("' or 1=1 --"),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        "x" * 10_000,
    ],
)
def test_a_place_that_no_page_has_named_is_refused(library: Library, after: str) -> None:
    with pytest.raises(InvalidError, match="`next` of a page"):
        library.media.find(after=after)


@pytest.mark.parametrize("limit", [0, -1, 1001, 10**12])
def test_a_limit_out_of_range_is_refused(library: Library, limit: int) -> None:
    with pytest.raises(InvalidError, match=f"1 to 1000, not {limit}"):
        library.media.find(limit=limit)


@pytest.mark.parametrize("kind", ["", "picture", "Image", "images", "image'; drop table x"])
def test_a_kind_that_does_not_exist_is_refused(library: Library, kind: str) -> None:
    with pytest.raises(InvalidError, match="kind must be one of image, video, audio, document"):
        library.media.find(kind=kind)
