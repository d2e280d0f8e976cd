"""Items are listed in pages, in six orders, each item exactly once."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

import attrs
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool
from tests.integration.library_calls import SETTINGS
from tests.integration.media_rows import Host, four_kinds, rolled_back

import mindia
from mindia import Library, Media, MediaKind, MediaPage, MemoryStorage, Mindia
from mindia._ids import uuid7
from mindia.db._cursor import OwnCursor, own_cursor
from mindia.domain.filters import MediaOrder
from mindia.errors import InvalidError, NotFoundError
from mindia.testing import samples

TRUSTING = attrs.evolve(SETTINGS, isolate_parsers=False)

TINY = samples.image("PNG", width=2, height=2)
SMALL = samples.image("GIF", width=9, height=9)

NAMES = [
    "Zebra",
    "apple",
    "Apple",
    "apple",
    "a",
    "A",
    "Äpfel",
    "äpfel",
    "\uff5e",
    "😀",
    "一",
    "zebra 10",
    "zebra 9",
    "apple",
]
"""Of which some are alike, and whose order is another one in most languages and in UTF-16."""

ORDERS = pytest.mark.parametrize("order", list(MediaOrder))


@pytest.fixture(scope="module")
def trusting(database_url: str) -> Iterator[Mindia]:
    """An application that parses in its own process, and keeps bytes in memory."""
    with mindia.connect(database_url, storage=MemoryStorage(), settings=TRUSTING) as app:
        yield app


@pytest.fixture
def library(trusting: Mindia) -> Library:
    return trusting.library(trusting.tenants.create("Acme"))


@pytest.fixture
def other(trusting: Mindia) -> Library:
    """Another tenant's library."""
    return trusting.library(trusting.tenants.create("Globex"))


@attrs.frozen
class Shelf:
    """A library, and all that is in it."""

    library: Library
    items: list[Media]

    def ordered(self, order: MediaOrder, kind: MediaKind | None = None) -> list[Media]:
        return ordered([item for item in self.items if kind in (None, item.kind)], order)


@pytest.fixture(scope="module")
def shelf(trusting: Mindia) -> Shelf:
    """Items of all kinds, many of which have the same time, the same name or the same size."""
    library = trusting.library(trusting.tenants.create("Acme"))
    items = four_kinds(library)
    with library.transaction() as tx:
        items += [tx.media.add(TINY if number % 3 else SMALL, filename=name) for number, name in enumerate(NAMES)]
        items += [tx.media.copy(item, filename="apple") for item in items[:4]]
    other = trusting.library(trusting.tenants.create("Globex"))
    other.media.add(TINY, filename="apple")
    assert len({item.uploaded_at for item in items}) < len({item.filename for item in items}) < len(items)
    return Shelf(library, items)


def ordered(items: list[Media], order: MediaOrder) -> list[Media]:
    """By the value and then by the id; Python compares texts by their code points."""
    name = order.removeprefix("-")
    return sorted(items, key=lambda item: (getattr(item, name), item.id), reverse=order.startswith("-"))


def pages(library: Library, *, limit: int, **arguments: Any) -> Iterator[MediaPage]:
    """Walk forward through all pages."""
    after = None
    while True:
        page = library.media.find(limit=limit, after=after, **arguments)
        yield page
        after = page.next
        if after is None:
            return


def pages_back(library: Library, page: MediaPage, *, limit: int, **arguments: Any) -> Iterator[MediaPage]:
    """Walk back from a page through all pages before it."""
    while page.previous is not None:
        page = library.media.find(limit=limit, before=page.previous, **arguments)
        yield page


def all_of(found: Iterator[MediaPage] | list[MediaPage]) -> list[Media]:
    return [item for page in found for item in page]


# Pages


def test_the_newest_come_first_where_nothing_else_is_said(shelf: Shelf) -> None:
    assert shelf.library.media.find() == shelf.library.media.find(order=MediaOrder.NEWEST)
    assert list(shelf.library.media.find(limit=1000)) == shelf.ordered(MediaOrder.NEWEST)
    assert list(shelf.library.media.iterate()) == shelf.ordered(MediaOrder.NEWEST)


@ORDERS
def test_every_item_is_on_exactly_one_page_whatever_its_length(shelf: Shelf, order: MediaOrder) -> None:
    expected = shelf.ordered(order)

    for limit in [*range(1, 12), len(expected) - 1, len(expected), len(expected) + 1, 1000]:
        found = list(pages(shelf.library, limit=limit, order=order))

        assert all_of(found) == expected
        assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
        assert 1 <= len(found[-1]) <= limit


@ORDERS
def test_the_pages_walked_back_are_those_walked_forward(shelf: Shelf, order: MediaOrder) -> None:
    for limit in [*range(1, 12), len(shelf.items) - 1, len(shelf.items)]:
        found = list(pages(shelf.library, limit=limit, order=order))
        back = list(pages_back(shelf.library, found[-1], limit=limit, order=order))

        assert [page.items for page in back] == [page.items for page in found[-2::-1]]
        if back:
            assert shelf.library.media.find(limit=limit, order=order, after=back[-1].next) == found[1]


@ORDERS
def test_only_the_first_page_has_none_before_it_and_only_the_last_none_after(shelf: Shelf, order: MediaOrder) -> None:
    for limit in (1, 4, len(shelf.items)):
        found = list(pages(shelf.library, limit=limit, order=order))
        back = list(pages_back(shelf.library, found[-1], limit=limit, order=order))

        assert [page.previous is None for page in found] == [True] + [False] * (len(found) - 1)
        assert [page.next is None for page in found] == [False] * (len(found) - 1) + [True]
        assert [page.previous is None for page in back] == [False] * (len(back) - 1) + [True] * bool(back)
        assert all(page.next is not None for page in back)


@ORDERS
def test_a_page_before_an_item_ends_just_ahead_of_it_whatever_its_length(shelf: Shelf, order: MediaOrder) -> None:
    expected = shelf.ordered(order)
    for at in range(1, len(expected) - 1, 3):
        here = shelf.library.media.find(
            limit=1, order=order, after=shelf.library.media.find(limit=at, order=order).next
        )
        assert here.items == (expected[at],)
        for limit in (1, 2, at - 1, at, at + 1, 1000):
            if limit:
                page = shelf.library.media.find(limit=limit, order=order, before=here.previous)

                assert list(page) == expected[max(0, at - limit) : at]
                assert (page.previous is None) == (at <= limit)
                after = shelf.library.media.find(limit=1000, order=order, after=page.next)
                assert list(after) == expected[at:]


@ORDERS
@pytest.mark.parametrize("kind", list(MediaKind))
def test_each_kind_has_pages_of_its_own(shelf: Shelf, order: MediaOrder, kind: MediaKind) -> None:
    expected = shelf.ordered(order, kind)
    assert len(expected) >= 2

    for limit in (1, 2, 5):
        found = list(pages(shelf.library, limit=limit, order=order, kind=str(kind)))
        back = list(pages_back(shelf.library, found[-1], limit=limit, order=order, kind=kind))

        assert all_of(found) == expected
        assert [page.items for page in back] == [page.items for page in found[-2::-1]]


def test_an_order_may_be_given_by_its_name(shelf: Shelf) -> None:
    for order in MediaOrder:
        assert shelf.library.media.find(order=str(order)) == shelf.library.media.find(order=order)
        assert list(shelf.library.media.iterate(order=str(order))) == shelf.ordered(order)


def test_filenames_are_ordered_by_the_code_points_of_their_characters(library: Library) -> None:
    names = ["A", "Z", "_", "a", "a b", "a-b", "ab", "z", "Ä", "é", "Ω", "я", "一", "\uff5e", "🐈", "😀", "😀😀"]
    for name in reversed(names):
        library.media.add(TINY, filename=name)

    assert [item.filename for item in library.media.find(order="filename")] == names
    assert [item.filename for item in library.media.find(order="-filename")] == names[::-1]
    for limit in (1, 2, 3):
        found = all_of(pages(library, limit=limit, order="filename"))
        assert [item.filename for item in found] == names


def test_a_place_may_be_beside_the_longest_name(library: Library) -> None:
    names = [character * 255 for character in ("a", "é", "😀")]
    for name in names:
        library.media.add(TINY, filename=name)

    found = list(pages(library, limit=1, order="filename"))

    assert [item.filename for item in all_of(found)] == names
    assert len(list(pages_back(library, found[-1], limit=1, order="filename"))) == 2


def test_the_filters_may_change_from_page_to_page(shelf: Shelf) -> None:
    expected = shelf.ordered(MediaOrder.FILENAME)
    first = shelf.library.media.find(order="filename", limit=3)

    page = shelf.library.media.find(order="filename", limit=1000, after=first.next, kind="image")

    assert list(page) == [item for item in expected[3:] if item.kind == "image"]


def test_an_empty_library_has_one_empty_page(library: Library, other: Library) -> None:
    four_kinds(other)

    for order in MediaOrder:
        assert library.media.find(order=order) == MediaPage(())
        assert list(library.media.iterate(order=order)) == []
    assert library.media.count() == 0
    assert not library.media.exists()


def test_a_page_is_a_sequence(shelf: Shelf) -> None:
    expected = shelf.ordered(MediaOrder.NEWEST)
    page = shelf.library.media.find(limit=3)

    assert len(page) == 3
    assert page[0] == expected[0]
    assert page[-1] == expected[2]
    assert page[1:] == tuple(expected[1:3])
    assert list(page) == list(page.items) == expected[:3]
    assert expected[1] in page
    assert expected[3] not in page
    assert page
    assert not MediaPage(())


# What happens meanwhile


@ORDERS
def test_pages_are_stable_while_items_are_added_deleted_and_renamed(library: Library, order: MediaOrder) -> None:
    """Whatever stays as it is, is seen once and in order, forward and back."""
    with library.transaction() as tx:
        added = [
            tx.media.add(TINY if number % 2 else SMALL, filename=f"{number * 7 % 10} {number % 3}")
            for number in range(12)
        ]
    before = ordered(added, order)
    changed: set[UUID] = set()

    def disturb(number: int) -> None:
        for filename in ("0", "5", "9 9"):
            changed.add(library.media.add(TINY if number % 2 else SMALL, filename=filename).id)
        gone, renamed = before[number], before[-2 - number]
        if gone.id not in changed:
            library.media.delete(gone)
        if renamed.id not in changed:
            library.media.update(renamed, filename=f"{9 - number} renamed")
        changed.update((gone.id, renamed.id))

    def seen(found: Iterator[MediaPage]) -> list[UUID]:
        ids = []
        for number, page in enumerate(found):
            ids += [item.id for item in page]
            if number in (1, 3):
                disturb(number)
        return ids

    forward = seen(pages(library, limit=2, order=order))
    unchanged = [item.id for item in before if item.id not in changed]
    assert [media_id for media_id in forward if media_id in unchanged] == unchanged
    assert len({*unchanged}) == 8

    last = list(pages(library, limit=2, order=order))[-1]
    backward = [item.id for page in pages_back(library, last, limit=2, order=order) for item in page[::-1]]
    unchanged_back = [media_id for media_id in reversed(unchanged) if media_id not in {item.id for item in last}]
    assert [media_id for media_id in backward if media_id in unchanged] == unchanged_back
    assert len({*backward}) == len(backward)


@ORDERS
def test_a_place_survives_the_item_that_it_names(library: Library, order: MediaOrder) -> None:
    added = ordered([library.media.add(TINY, filename=f"{number}.png") for number in range(5)], order)
    first = library.media.find(limit=2, order=order)
    second = library.media.find(limit=2, order=order, after=first.next)
    library.media.delete(added[1])
    library.media.delete(added[2])

    assert list(library.media.find(limit=2, order=order, after=first.next)) == added[3:]
    assert list(library.media.find(limit=2, order=order, before=second.previous)) == added[:1]


@ORDERS
def test_items_may_be_deleted_while_they_are_iterated_over(library: Library, order: MediaOrder) -> None:
    added = ordered([library.media.add(TINY, filename=f"{number}.png") for number in range(7)], order)

    seen = []
    for item in library.media.iterate(order=order, page_length=2):
        seen.append(item)
        library.media.delete(item)

    assert seen == added
    assert not library.media.exists()


@ORDERS
def test_all_items_are_iterated_over_whatever_the_length_of_the_pages(shelf: Shelf, order: MediaOrder) -> None:
    for page_length in (1, 2, 3, 7, len(shelf.items), 1000):
        assert list(shelf.library.media.iterate(order=order, page_length=page_length)) == shelf.ordered(order)


def test_no_connection_is_held_between_the_pages_of_an_iteration(database_url: str) -> None:
    settings = attrs.evolve(TRUSTING, pool_size=1, pool_timeout_s=5)
    with mindia.connect(database_url, storage=MemoryStorage(), settings=settings) as app:
        library = app.library(app.tenants.create("Acme"))
        added = [library.media.add(TINY) for _ in range(5)]

        found = [library.media.get(item.id) for item in library.media.iterate(page_length=2)]

        assert found == added[::-1]


# What is refused


@pytest.mark.parametrize(("made_in", "used_in"), list(permutations(MediaOrder, 2)))
def test_a_place_of_another_order_is_refused(shelf: Shelf, made_in: MediaOrder, used_in: MediaOrder) -> None:
    place = shelf.library.media.find(order=made_in, limit=2).next
    assert place is not None

    with pytest.raises(
        InvalidError, match=f"^after must be the `next` of a page in the order '{used_in}', not '{place[:80]}"
    ):
        shelf.library.media.find(order=used_in, after=place)
    with pytest.raises(InvalidError, match=f"^before must be the `previous` of a page in the order '{used_in}'"):
        shelf.library.media.find(order=used_in, before=place)


def brief(value: object) -> str:
    return "huge" if isinstance(value, int) and value > 2**64 else repr(value)[:30]


def place(*values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


NOW = "2024-01-01T00:00:00+00:00"

NO_PLACES: list[Any] = [
    "",
    " ",
    "nonsense",
    "äöü",
    "=====",
    "\0",
    "\ud800",
    "x" * 10_000,
    "' or 1=1 --",
    b"",
    5,
    True,
    (),
    uuid7(),
    base64.urlsafe_b64encode(b"").decode(),
    base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    base64.urlsafe_b64encode(b"null").decode(),
    base64.urlsafe_b64encode(b"{}").decode(),
    base64.urlsafe_b64encode(b"[" * 100_000).decode(),
    base64.urlsafe_b64encode(b"[1," + b"1" * 10_000 + b",2]").decode(),
    place(),
    place("-uploaded_at"),
    place("-uploaded_at", NOW),
    place("-uploaded_at", NOW, str(uuid7()), 1),
    place("uploaded_at", NOW, str(uuid7())),
    place("m.id; --", NOW, str(uuid7())),
    place(["-uploaded_at"], NOW, str(uuid7())),
    place(None, NOW, str(uuid7())),
    place("-uploaded_at", NOW, "x" * 36),
    place("-uploaded_at", NOW, None),
    place("-uploaded_at", NOW, 5),
    place("-uploaded_at", NOW, [str(uuid7())]),
    place("-uploaded_at", "2024-01-01T00:00:00", str(uuid7())),
    place("-uploaded_at", "2024-13-01T00:00:00+00:00", str(uuid7())),
    place("-uploaded_at", "10000-01-01T00:00:00+00:00", str(uuid7())),
    place("-uploaded_at", "infinity", str(uuid7())),
    place("-uploaded_at", "now()", str(uuid7())),
    place("-uploaded_at", 1_700_000_000, str(uuid7())),
    place("-uploaded_at", None, str(uuid7())),
    place("-uploaded_at", [NOW], str(uuid7())),
]


@pytest.mark.parametrize("wrong", NO_PLACES, ids=[f"{number}" for number in range(len(NO_PLACES))])
def test_a_place_that_no_page_has_named_is_refused(shelf: Shelf, wrong: Any) -> None:
    with pytest.raises(InvalidError, match=r"^after must be the `next` of a page in the order '-uploaded_at', not "):
        shelf.library.media.find(after=wrong)
    with pytest.raises(
        InvalidError, match=r"^before must be the `previous` of a page in the order '-uploaded_at', not "
    ):
        shelf.library.media.find(before=wrong)


@pytest.mark.parametrize(
    ("order", "value"),
    [
        ("filename", 5),
        ("filename", None),
        ("filename", ["a"]),
        ("filename", "a\0b"),
        ("filename", "\ud800"),
        ("-filename", True),
        ("file_size", "5"),
        ("file_size", 5.0),
        ("file_size", True),
        ("file_size", -1),
        ("file_size", 2**63),
        ("file_size", 10**100),
        ("file_size", float("nan")),
        ("-file_size", float("inf")),
        ("-file_size", None),
        ("-file_size", {}),
    ],
)
def test_a_place_with_another_value_than_the_order_has_is_refused(shelf: Shelf, order: str, value: object) -> None:
    with pytest.raises(InvalidError, match=f"^after must be the `next` of a page in the order '{order}'"):
        shelf.library.media.find(order=order, after=place(order, value, str(uuid7())))


@ORDERS
def test_a_place_that_was_cut_or_changed_leads_nowhere_else(shelf: Shelf, order: MediaOrder) -> None:
    """It is refused, or still a place of this tenant's."""
    known = shelf.library.media.find(order=order, limit=3).next
    assert known is not None
    for at in range(0, len(known), 5):
        for changed in (known[:at], known[:at] + "A" + known[at + 1 :], known[:at] + "-_" + known[at:]):
            try:
                found = shelf.library.media.find(order=order, after=changed)
            except InvalidError:
                continue
            assert {*found} <= {*shelf.items}


def test_a_page_is_asked_for_by_one_place(shelf: Shelf) -> None:
    page = shelf.library.media.find(limit=2)

    with pytest.raises(InvalidError, match="after and before"):
        shelf.library.media.find(after=page.next, before=page.next)


@pytest.mark.parametrize("limit", [0, -1, 1001, 10**12, 10**5000, 2.5, float("nan"), "2", None, [1]], ids=brief)
def test_a_length_out_of_range_is_refused(shelf: Shelf, limit: Any) -> None:
    with pytest.raises(InvalidError, match=r"^limit must be 1 to 1000, not "):
        shelf.library.media.find(limit=limit)
    with pytest.raises(InvalidError, match=r"^page_length must be 1 to 1000, not "):
        list(shelf.library.media.iterate(page_length=limit))


@pytest.mark.parametrize(
    "order", ["", "newest", "Filename", "--filename", "filename desc", "id", "m.id; --", None, 5, []]
)
def test_an_order_that_does_not_exist_is_refused(shelf: Shelf, order: Any) -> None:
    with pytest.raises(InvalidError, match="order must be one of -uploaded_at, uploaded_at, filename"):
        shelf.library.media.find(order=order)
    with pytest.raises(InvalidError, match="order must be one of"):
        next(shelf.library.media.iterate(order=order))


# In a transaction


def test_all_that_finds_and_reads_works_in_a_transaction(library: Library, other: Library, tmp_path: Any) -> None:
    before = library.media.add(TINY, filename="before", metadata={"n": 1})
    with rolled_back(library) as tx:
        inside = tx.media.add(SMALL, filename="inside", metadata={"n": 2})
        alike = tx.media.copy(before, filename="alike")
        everything = [before, inside, alike]

        for order in MediaOrder:
            expected = ordered(everything, order)
            found = list(pages(tx, limit=1, order=order))
            assert all_of(found) == list(tx.media.iterate(order=order, page_length=2)) == expected
            assert [page.items for page in pages_back(tx, found[-1], limit=1, order=order)] == [
                page.items for page in found[-2::-1]
            ]
        assert list(tx.media.find(metadata={"n": 2})) == [inside]
        assert tx.media.count() == 3
        assert tx.media.count(metadata={"n": 1}) == 2
        assert tx.media.exists(filename="ins*")
        assert tx.media.get(inside.id) == inside
        assert tx.media.get_many([alike.id, uuid7(), inside.id]) == [alike, inside]
        with tx.media.open(inside) as file:
            assert file.read() == SMALL
        assert tx.media.read(alike, start=1, length=3) == TINY[1:4]
        assert tx.media.save_to(inside, tmp_path).read_bytes() == SMALL
        assert str(inside.id) in tx.media.url(inside)
        with pytest.raises(InvalidError):
            tx.media.find(metadata={"n": float("nan")})
        assert tx.media.count() == 3, "an error leaves the transaction usable"

        assert list(library.media.find()) == [before]
        assert not other.media.exists()
    assert list(library.media.iterate()) == [before]


# Expiry


def test_what_has_expired_a_moment_ago_is_not_found_by_anything(library: Library, host: Host, tmp_path: Any) -> None:
    kept = library.media.add(TINY, filename="kept", expires_at=datetime.now(UTC) + timedelta(days=1))
    gone = four_kinds(library)
    gone += [library.media.copy(item, filename="windowsill") for item in gone]
    for item in gone:
        library.index.embed(item.id)
    assert library.media.count() == 9
    place = library.media.find(limit=4).next
    with host.transaction():
        for table in ("images", "videos", "audios", "documents"):
            query = "update mindia.{} set expires_at = clock_timestamp() where tenant_id = %s and id <> %s"
            host.execute(sql.SQL(query).format(sql.Identifier(table)), (library.tenant_id, kept.id))

    assert list(library.media.find(after=place)) == [kept]
    for order in MediaOrder:
        assert list(library.media.find(order=order)) == list(library.media.iterate(order=order)) == [kept]
    assert library.media.count() == 1
    assert library.media.get_many([item.id for item in [*gone, kept]]) == [kept]
    assert not library.search("windowsill")
    assert not library.search("wndowsil")
    for item in gone:
        assert not library.media.exists(sha256=item.sha256, kind=item.kind, filename=item.filename)
        calls: list[Callable[[], object]] = [
            lambda item=item: library.media.get(item.id),  # type: ignore[misc]  # mypy cannot type the default
            lambda item=item: library.media.get(item.id, type=type(item)),  # type: ignore[misc]  # as above
            lambda item=item: library.media.open(item),  # type: ignore[misc]  # as above
            lambda item=item: library.media.read(item),  # type: ignore[misc]  # as above
            lambda item=item: library.media.save_to(item, tmp_path),  # type: ignore[misc]  # as above
            lambda item=item: library.media.url(item),  # type: ignore[misc]  # as above
            lambda item=item: library.media.copy(item),  # type: ignore[misc]  # as above
            lambda item=item: library.media.update(item, description="x"),  # type: ignore[misc]  # as above
            lambda item=item: library.index.embed(item.id),  # type: ignore[misc]  # as above
            lambda item=item: library.media.delete(item),  # type: ignore[misc]  # as above
        ]
        for call in calls:
            with pytest.raises(NotFoundError, match=str(item.id)):
                call()
    assert list(tmp_path.iterdir()) == []


# How it is found

ITEMS = 20_000

_SPECIAL = {
    "images": ("s3_url, width, height", "'s3://b/originals/' || id, 40, 30"),
    "videos": ("duration, width, height", "61.5, 1920, 1080"),
    "audios": ("duration, bitrate, sample_rate, channels", "182.25, 192000, 44100, 2"),
    "documents": ("page_count", "12"),
}

_ROWS = """
create temporary table items as
select n, mod(n, 4) as kind, now() - (%(items)s - n) * interval '1 second' as moment, gen_random_uuid() as id,
       jsonb_build_object('album', 'album ' || mod(n, 1000), 'number', n, 'rating', mod(n, 5)) as metadata
from generate_series(1, %(items)s) as n
"""

_MEDIA = """
insert into mindia.{table} (id, tenant_id, filename, original_filename, s3_key, content_type, file_size, sha256,
                            metadata, uploaded_at, updated_at, {columns})
select id, %(tenant_id)s, 'item ' || n, 'item ' || n, 'originals/' || id, 'image/png', 1000 + n,
       sha256(n::text::bytea), metadata, moment, moment, {values}
from items where kind = %(kind)s
"""

_TEXTS = """
insert into mindia.search_documents (tenant_id, entity_id, entity_type, title, metadata, tsv, updated_at)
select %(tenant_id)s, id, (array['image', 'video', 'audio', 'document'])[kind + 1]::mindia.entity_type, 'item ' || n,
       metadata, to_tsvector('english', 'item ' || n), moment
from items
"""


@pytest.fixture(scope="module")
def large(server_url: str) -> Iterator[tuple[Library, ConnectionPool[Any]]]:
    """A tenant with many items, in a database of its own; the library uses the one connection of the pool."""
    name = f"mindia_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            url = make_conninfo(server_url, dbname=name)
            with (
                ConnectionPool(url, kwargs={"autocommit": True}, min_size=1, max_size=1, open=True) as pool,
                mindia.connect(pool, storage=MemoryStorage(), settings=TRUSTING) as app,
            ):
                app.migrate()
                library = app.library(app.tenants.create("Acme"))
                _fill(url, library.tenant_id)
                yield library, pool
        finally:
            server.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _fill(url: str, tenant_id: UUID) -> None:
    with psycopg.connect(url, autocommit=True) as connection, psycopg.ClientCursor(connection) as cursor:
        cursor.execute(_ROWS, {"items": ITEMS})
        for kind, (table, (columns, values)) in enumerate(_SPECIAL.items()):
            query = sql.SQL(_MEDIA).format(
                table=sql.Identifier(table), columns=sql.SQL(columns), values=sql.SQL(values)
            )
            cursor.execute(query, {"tenant_id": tenant_id, "kind": kind})
        cursor.execute(_TEXTS, {"tenant_id": tenant_id})
        cursor.execute("vacuum (analyze)")


@attrs.frozen
class Plan:
    """What a plan does, and which indexes it reads."""

    steps: set[str]
    indexes: set[str]

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Plan:
        steps = {node["Node Type"]}
        indexes = {node["Index Name"]} if "Index Name" in node else set()
        for inner in map(cls.of, node.get("Plans", [])):
            steps |= inner.steps
            indexes |= inner.indexes
        return cls(steps, indexes)


def plans(pool: ConnectionPool[Any], call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Return the plan of the last statement of a call: as it is sent at first, and once it has been prepared."""
    sent: list[tuple[bytes, Any]] = []
    execute = OwnCursor.execute

    def recording(cursor: OwnCursor[Any], query: Any, parameters: Any = (), **options: Any) -> OwnCursor[Any]:
        sent.append((query, parameters))
        return execute(cursor, query, parameters, **options)

    with monkeypatch.context() as patch:
        patch.setattr(OwnCursor, "execute", recording)
        for _ in range(12):
            call()
    query, parameters = sent[-1]
    with pool.connection() as connection, own_cursor(connection, lambda plan: plan) as cursor:
        cursor.execute(b"explain (format json) " + query, parameters, prepare=False)
        at_first = cursor.fetchone()
        prepared = connection.execute(
            "select name, statement from pg_prepared_statements order by prepare_time desc"
        ).fetchall()
        name = next(name for name, statement in prepared if _shape(statement) == _shape(query.decode()))
        values = [parameters[key] for key in dict.fromkeys(_names(query.decode()))]
        explain = sql.SQL("explain (format json) execute {}({})").format(
            sql.Identifier(name), sql.SQL(", ").join(map(sql.Literal, values))
        )
        later = connection.execute(explain).fetchone()
    assert at_first is not None
    assert later is not None
    return [Plan.of(at_first[0]["Plan"]), Plan.of(later[0][0]["Plan"])]


def _names(query: str) -> list[str]:
    return [piece.partition(")s")[0] for piece in query.split("%(")[1:]]


def _shape(statement: str) -> str:
    """Return a statement without its parameters, which have names in ours and numbers in the server's."""
    for name in _names(statement):
        statement = statement.replace(f"%({name})s", "?")
    for number in range(20, 0, -1):
        statement = statement.replace(f"${number}", "?")
    return statement


def of_all_kinds(column: str) -> set[str]:
    return {f"idx_{table}_{column}" for table in _SPECIAL}


INDEXES = {
    "uploaded_at": {"idx_images_tenant", "idx_videos_tenant_created", "idx_audios_tenant", "idx_documents_tenant"},
    "filename": of_all_kinds("filename"),
    "file_size": of_all_kinds("file_size"),
}

Large = tuple[Library, ConnectionPool[Any]]


@ORDERS
def test_any_page_of_an_order_is_read_along_its_index(
    large: Large, order: MediaOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, pool = large
    deep = [*zip(range(10), pages(library, limit=1000, order=order), strict=False)][-1][1]
    calls: list[Callable[[], object]] = [
        lambda: library.media.find(order=order),
        lambda: library.media.find(order=order, after=deep.next),
        lambda: library.media.find(order=order, before=deep.next),
        lambda: library.media.find(order=order, kind=[*MediaKind], after=deep.next),
    ]
    for call in calls:
        for plan in plans(pool, call, monkeypatch):
            assert plan.indexes == INDEXES[order.removeprefix("-")]
            assert "Merge Append" in plan.steps
            assert not plan.steps & {"Sort", "Incremental Sort", "Seq Scan"}


@ORDERS
def test_pages_of_one_kind_are_read_from_its_table_alone(
    large: Large, order: MediaOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, pool = large
    deep = library.media.find(order=order, kind="audio", limit=1000)
    calls: list[Callable[[], object]] = [
        lambda: library.media.find(order=order, kind="audio"),
        lambda: library.media.find(order=order, kind="audio", after=deep.next),
        lambda: library.media.find(order=order, kind="audio", before=deep.next),
    ]
    for call in calls:
        for plan in plans(pool, call, monkeypatch):
            (index,) = plan.indexes
            assert index in INDEXES[order.removeprefix("-")]
            assert "audios" in index
            assert not plan.steps & {"Sort", "Incremental Sort", "Seq Scan", "Append", "Merge Append"}


@pytest.mark.parametrize(
    ("filters", "indexes"),
    [
        ({"filename": "item 1234*"}, of_all_kinds("filename")),
        ({"filename": "item 12345"}, of_all_kinds("filename")),
        ({"filename": "item 1999?"}, of_all_kinds("filename")),
        ({"filename": "nothing*"}, of_all_kinds("filename")),
        ({"sha256": "9" * 64}, of_all_kinds("sha256")),
        ({"sha256": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"}, of_all_kinds("sha256")),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_is_rare_is_looked_up_by_its_index(
    large: Large, filters: dict[str, Any], indexes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    library, pool = large
    calls: list[Callable[[], object]] = [
        lambda: library.media.find(**filters),
        lambda: library.media.find(limit=1, **filters),
        lambda: library.media.count(**filters),
        lambda: library.media.exists(**filters),
    ]
    for call in calls:
        for plan in plans(pool, call, monkeypatch):
            assert indexes <= plan.indexes
            assert "Seq Scan" not in plan.steps


@pytest.mark.parametrize(
    "metadata", [{"number": 7}, {"number": -1}, {"album": "album 7", "number": 7.0}, {"nothing": [1, 2]}], ids=str
)
def test_rare_metadata_are_looked_up_by_their_index(large: Large, metadata: dict[str, Any]) -> None:
    """By a function, whose plan is not part of that of the statement: the server counts what is used."""
    library, pool = large
    calls: list[Callable[[], object]] = [
        lambda: library.media.find(metadata=metadata),
        lambda: library.media.count(metadata=metadata),
        lambda: library.media.exists(metadata=metadata),
    ]
    for call in calls:
        before = scans(pool)
        call()
        index, sequential = (after - earlier for after, earlier in zip(scans(pool), before, strict=True))
        assert (index, sequential) == (1, 0)


def scans(pool: ConnectionPool[Any]) -> tuple[int, int]:
    """Return how often the index of metadata was used, and how often media or search texts were read as a whole."""
    with pool.connection() as connection:
        connection.execute("select pg_stat_force_next_flush()")
        counted = connection.execute(
            """
            select (select idx_scan from pg_stat_user_indexes where indexrelname = 'idx_search_documents_metadata'),
                   (select sum(seq_scan) from pg_stat_user_tables
                    where relname in ('images', 'videos', 'audios', 'documents', 'search_documents'))
            """
        ).fetchone()
    assert counted is not None
    return int(counted[0]), int(counted[1])


@ORDERS
def test_the_items_of_a_large_library_are_all_iterated_over_in_order(large: Large, order: MediaOrder) -> None:
    library, _ = large
    name = order.removeprefix("-")
    number, last = 0, None
    for item in library.media.iterate(order=order, page_length=1000, kind="image"):
        here = (getattr(item, name), item.id)
        if last is not None:
            assert (here < last) if order.startswith("-") else (here > last)
        last = here
        number += 1

    assert number == library.media.count(kind="image") == ITEMS // 4
