"""The same bytes again: stored again, given back, linked or refused, as the host says; and never half of it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import psycopg
import pytest
from tests.faults.proxy import Moment, Proxy, Words
from tests.integration.media_rows import Host, four_kinds, register, rolled_back, rows, sweep_all
from tests.integration.shared_bytes import QUICK, check_bytes, check_counts, counted, told, wait_for_a_lock

import mindia
from mindia import Image, Library, LocalStorage, Media, Mindia, OnDuplicate, Tenant
from mindia.errors import (
    AlreadyExistsError,
    DuplicateError,
    InvalidError,
    MindiaError,
    StagedObjectExpiredError,
    TypeMismatchError,
)
from mindia.testing import samples
from mindia.testing.storage import listed

CAT = samples.image()
POLICIES = ("return", "link", "error")


@pytest.fixture
def app(database_url: str, storage: LocalStorage) -> Iterator[Mindia]:
    with mindia.connect(database_url, storage=storage, settings=QUICK) as app:
        yield app


@pytest.fixture
def other(app: Mindia) -> Library:
    """Another tenant's library."""
    return app.library(app.tenants.create("Globex"))


def by_bytes(library: Library, content: bytes, filename: str, **said: Any) -> Media:
    return library.media.add(content, filename=filename, **said)


def by_staging(library: Library, content: bytes, filename: str, **said: Any) -> Media:
    return library.media.add(library.media.stage(content, filename=filename), **said)


def in_a_transaction(library: Library, content: bytes, filename: str, **said: Any) -> Media:
    with library.transaction() as tx:
        return tx.media.add(content, filename=filename, **said)


def in_bulk(library: Library, content: bytes, filename: str, **said: Any) -> Media:
    policy = said.pop("on_duplicate")
    (result,) = library.media.add_many(
        [mindia.MediaInput(content, filename=filename, **said)], on_duplicate=policy, concurrency=1
    )
    if result.error is not None:
        raise result.error
    assert result.media is not None
    return result.media


WAYS = (by_bytes, by_staging, in_a_transaction, in_bulk)
Way = Callable[..., Media]
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


def objects(storage: LocalStorage, tenant: Tenant) -> set[str]:
    return set(listed(storage, tenant.s3_bucket))


def expire(host: Host, item: Media) -> None:
    with host.transaction():
        host.execute("update mindia.images set expires_at = now() where id = %s", (item.id,))


# What comes of it


@each_way
def test_bytes_are_stored_again_where_that_is_wanted(library: Library, way: Way) -> None:
    first = by_bytes(library, CAT, "cat.jpg")

    again = way(library, CAT, "cat.jpg", on_duplicate=OnDuplicate.STORE)

    assert again.id != first.id
    assert again.s3_key != first.s3_key
    assert again.sha256 == first.sha256


@each_way
def test_the_oldest_item_is_given_back_as_it_is(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, way: Way
) -> None:
    register(host, library, ["*"])
    first = by_bytes(library, CAT, "cat.jpg", description="on a windowsill", metadata={"place": "Lisbon"})
    by_bytes(library, CAT, "younger.jpg")
    before = rows(host, library), told(host, library)

    found = way(
        library, CAT, "other.jpg", on_duplicate="return", description="in a basket", metadata={"place": "Porto"}
    )

    assert found == first == library.media.get(first.id)
    assert (rows(host, library), told(host, library)) == before
    sweep_all(app)
    assert objects(storage, tenant) == {item.s3_key for item in library.media.find()}


@each_way
def test_an_error_names_the_item_that_is_there(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, way: Way
) -> None:
    register(host, library, ["*"])
    first = by_bytes(library, CAT, "cat.jpg")
    before = rows(host, library), told(host, library)

    with pytest.raises(DuplicateError, match=rf"{first.id} \('cat\.jpg'\)") as refused:
        way(library, CAT, "other.jpg", on_duplicate="error")

    assert isinstance(refused.value, AlreadyExistsError)
    assert refused.value.code == "duplicate"
    assert refused.value.http_status == 409
    assert (rows(host, library), told(host, library)) == before
    sweep_all(app)
    assert objects(storage, tenant) == {first.s3_key}


@each_way
def test_a_linked_item_shares_the_bytes_and_has_all_else_of_its_own(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, way: Way
) -> None:
    register(host, library, ["*"])
    later = datetime.now(UTC) + timedelta(days=1)
    first = by_bytes(library, CAT, "cat.jpg", description="on a windowsill", metadata={"place": "Lisbon"})
    app.run_until_idle()

    linked = way(
        library, CAT, "tiger.jpg", on_duplicate="link", description="in a basket", metadata={"a": 1}, expires_at=later
    )

    assert linked == library.media.get(linked.id)
    assert linked.id != first.id
    assert (linked.filename, linked.original_filename) == ("tiger.jpg", "tiger.jpg")
    assert (linked.description, linked.metadata, linked.expires_at) == ("in a basket", {"a": 1}, later)
    assert (linked.s3_key, linked.sha256, linked.file_size) == (first.s3_key, first.sha256, first.file_size)
    assert linked.uploaded_at == linked.updated_at > first.uploaded_at
    assert library.media.get(first.id) == first
    assert library.media.read(linked) == library.media.read(first) == CAT
    assert told(host, library) == [("image.uploaded", str(first.id)), ("image.uploaded", str(linked.id))]
    assert rows(host, library, "search_documents", "embeddings") == {"search_documents": 2, "embeddings": 1}

    for query, found in (("basket", linked), ("tiger", linked), ("windowsill", first), ("lisbon", first)):
        assert [result.media for result in library.search(query) if result.text_rank] == [found], query
    app.run_until_idle()
    assert rows(host, library, "search_documents", "embeddings") == {"search_documents": 2, "embeddings": 2}
    assert library.search("baskets with tigers")[0].media == linked
    check_bytes(app, library, storage, host)
    assert objects(storage, tenant) == {first.s3_key}


@each_way
@pytest.mark.parametrize("policy", POLICIES)
def test_bytes_that_are_new_make_an_item_whatever_is_done_with_others(library: Library, way: Way, policy: str) -> None:
    by_bytes(library, CAT, "cat.jpg")

    item = way(library, samples.image(color="navy"), "night.jpg", on_duplicate=policy, metadata={"a": 1})

    assert library.media.get(item.id) == item
    assert item.filename == "night.jpg"
    assert len(library.media.find()) == 2


def test_a_linked_item_of_any_kind_has_the_facts_of_its_bytes(
    app: Mindia, library: Library, storage: LocalStorage, host: Host
) -> None:
    song = samples.audio("ipod", codec="aac", seconds=0.2, title="Jóga", artist="Björk", album="Homogenic")
    film = samples.pdf(["about llamas"], title="Annual report")
    photo = samples.image(camera="Lumix", taken_at=datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC))
    four_kinds(library)
    for content, name in ((song, "song.m4a"), (film, "report.pdf"), (photo, "photo.jpg")):
        by_bytes(library, content, name)

    for original in list(library.media.iterate()):
        content = library.media.read(original)
        linked = library.media.add(content, filename=original.filename, on_duplicate="link")
        assert linked == library.media.get(linked.id)
        assert linked.s3_key == original.s3_key
        for fact in ("width", "height", "duration", "bitrate", "channels", "page_count", "title", "artist", "camera"):
            assert getattr(linked, fact, None) == getattr(original, fact, None)
        assert getattr(linked, "taken_at", None) == getattr(original, "taken_at", None)
        library.media.delete(original)

    assert [result.media.filename for result in library.search("llamas")] == ["report.pdf"]
    assert [result.media.filename for result in library.search("Björk Homogenic")] == ["song.m4a"]
    assert [result.media.filename for result in library.search("Lumix")] == ["photo.jpg"]
    assert len(check_bytes(app, library, storage, host)) == 7


# What is no duplicate


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_another_tenants_or_expired_or_deleted_is_no_duplicate(
    app: Mindia, library: Library, other: Library, storage: LocalStorage, host: Host, policy: str
) -> None:
    by_bytes(other, CAT, "theirs.jpg")
    expired = by_bytes(library, CAT, "expired.jpg")
    expire(host, expired)
    library.media.delete(by_bytes(library, CAT, "deleted.jpg"))

    item = by_bytes(library, CAT, "cat.jpg", on_duplicate=policy)

    assert item.filename == "cat.jpg"
    assert list(library.media.find()) == [item]
    assert item.s3_key.endswith(str(item.id)), "it has bytes of its own"
    assert check_bytes(app, library, storage, host) == [item]
    assert [found.filename for found in other.media.find()] == ["theirs.jpg"]


@pytest.mark.parametrize("policy", POLICIES)
def test_what_has_expired_is_passed_over_for_what_is_there(library: Library, host: Host, policy: str) -> None:
    expire(host, by_bytes(library, CAT, "expired.jpg"))
    there = by_bytes(library, CAT, "there.jpg")

    if policy == "error":
        with pytest.raises(DuplicateError, match=str(there.id)):
            by_bytes(library, CAT, "cat.jpg", on_duplicate=policy)
    else:
        assert by_bytes(library, CAT, "cat.jpg", on_duplicate=policy).s3_key == there.s3_key


# What is refused


@each_way
@pytest.mark.parametrize("policy", POLICIES)
def test_a_name_that_contradicts_the_bytes_is_refused_although_they_are_known(
    library: Library, tenant: Tenant, storage: LocalStorage, host: Host, way: Way, policy: str
) -> None:
    first = by_bytes(library, CAT, "cat.jpg")

    with pytest.raises(TypeMismatchError, match=r"cat\.png"):
        way(library, CAT, "cat.png", on_duplicate=policy)
    with pytest.raises(TypeMismatchError, match="image/png"):
        library.media.add(CAT, filename="cat.jpg", content_type="image/png", on_duplicate=policy)

    assert list(library.media.find()) == [first]
    assert objects(storage, tenant) == {first.s3_key}
    assert counted(host, library) == {}


@pytest.mark.parametrize("policy", ["", "Return", "skip", None, 1])
def test_another_word_for_what_to_do_is_refused_before_a_byte_is_read(library: Library, policy: Any) -> None:
    source = io.BytesIO(CAT)

    with pytest.raises(InvalidError, match="store, return, link, error"):
        library.media.add(source, on_duplicate=policy)
    with pytest.raises(InvalidError, match="store, return, link, error"):
        library.media.add_many([source], on_duplicate=policy)

    assert source.tell() == 0


@pytest.mark.parametrize("policy", ["return", "error"])
def test_what_was_staged_and_was_not_needed_can_still_be_added(library: Library, policy: str) -> None:
    by_bytes(library, CAT, "cat.jpg")
    staged = library.media.stage(CAT, filename="other.jpg")
    with suppress(DuplicateError):
        library.media.add(staged, on_duplicate=policy)

    assert library.media.add(staged).id == staged.id
    with pytest.raises(StagedObjectExpiredError):
        library.media.add(staged)


# At once


def at_once(library: Library, policy: str, ways: list[Way]) -> list[Media | MindiaError]:
    together = threading.Barrier(len(ways))

    def work(number: int) -> Media | MindiaError:
        together.wait(30)
        try:
            return ways[number](library, CAT, f"{number}.jpg", on_duplicate=policy)
        except MindiaError as error:
            return error

    with ThreadPoolExecutor(len(ways)) as pool:
        return list(pool.map(work, range(len(ways))))


@pytest.mark.parametrize("policy", POLICIES)
def test_of_eight_that_add_the_same_at_once_one_makes_the_item_and_the_others_see_it(
    app: Mindia, storage: LocalStorage, host: Host, policy: str
) -> None:
    for _ in range(4):
        tenant = app.tenants.create("Acme")  # for which no keys are leased that the sweep of the last one has taken
        library = app.library(tenant)
        ended = at_once(library, policy, [*WAYS, *WAYS])

        made = [each for each in ended if isinstance(each, Image)]
        items = check_bytes(app, library, storage, host)
        match policy:
            case "return":
                assert made == [items[0]] * 8
                assert len(items) == 1
            case "error":
                assert made == items
                assert len(items) == 1
                refused = [each for each in ended if each is not made[0]]
                assert all(isinstance(each, DuplicateError) and str(made[0].id) in str(each) for each in refused)
            case _:
                assert {item.id for item in made} == {item.id for item in items}
                assert len(items) == 8
                assert counted(host, library) == {items[0].s3_key: 8}
        assert len(objects(storage, tenant)) == 1
        library.media.delete_many(items)
        sweep_all(app)
        assert objects(storage, tenant) == set()
        assert counted(host, library) == {}


# In a transaction


def test_a_transaction_sees_the_duplicates_that_it_has_made_itself(
    app: Mindia, library: Library, storage: LocalStorage, host: Host
) -> None:
    with library.transaction() as tx:
        first = tx.media.add(CAT, filename="a.jpg", on_duplicate="error")
        assert tx.media.add(CAT, filename="b.jpg", on_duplicate="return") == first
        linked = tx.media.add(CAT, filename="c.jpg", on_duplicate="link")
        with pytest.raises(DuplicateError, match=str(first.id)):
            tx.media.add(CAT, filename="d.jpg", on_duplicate="error")
        assert tx.media.read(linked) == CAT
        assert tx.connection.execute("select 1").fetchone() == (1,), "the transaction is usable"

    assert linked.s3_key == first.s3_key
    assert {item.id for item in check_bytes(app, library, storage, host)} == {first.id, linked.id}


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_rolled_back_is_no_duplicate_and_leaves_nothing(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, policy: str
) -> None:
    with rolled_back(library) as tx:
        tx.media.add(CAT, filename="a.jpg", on_duplicate=policy)

    item = library.media.add(CAT, filename="b.jpg", on_duplicate=policy)

    assert item.filename == "b.jpg"
    assert check_bytes(app, library, storage, host) == [item]
    assert objects(storage, tenant) == {item.s3_key}


@pytest.mark.parametrize("joined", [False, True], ids=["own connection", "connection of the host"])
def test_a_link_that_is_rolled_back_has_not_happened(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, database_url: str, joined: bool
) -> None:
    register(host, library, ["*"])
    first = by_bytes(library, CAT, "a.jpg")
    before = rows(host, library), told(host, library)

    if joined:
        with psycopg.connect(database_url) as connection:
            with library.transaction(connection=connection) as joined_tx:
                joined_tx.media.add(CAT, filename="b.jpg", on_duplicate="link")
                assert len(joined_tx.media.find()) == 2
            connection.rollback()
    else:
        with rolled_back(library) as tx:
            tx.media.add(CAT, filename="b.jpg", on_duplicate="link")
            assert len(tx.media.find()) == 2

    assert (rows(host, library), told(host, library)) == before
    assert counted(host, library) == {}
    assert check_bytes(app, library, storage, host) == [first]
    library.media.delete(first)
    assert check_bytes(app, library, storage, host) == []
    assert objects(storage, tenant) == set()


def test_who_adds_what_an_open_transaction_is_adding_waits_for_its_end(
    app: Mindia, library: Library, storage: LocalStorage, host: Host
) -> None:
    staged = library.media.stage(CAT, filename="late.jpg")
    with ThreadPoolExecutor(1) as pool:
        with library.transaction() as tx:
            first = tx.media.add(CAT, filename="early.jpg", on_duplicate="link")
            waiting = pool.submit(library.media.add, staged, on_duplicate="return")
            wait_for_a_lock(host)
        assert waiting.result(30) == first

    assert check_bytes(app, library, storage, host) == [first]


# Connections that break


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("is_there", [False, True], ids=["of new bytes", "of known bytes"])
def test_a_call_whose_commit_was_not_acknowledged_is_done_once(
    database_url: str, storage: LocalStorage, host: Host, policy: str, is_there: bool
) -> None:
    with Proxy(database_url) as proxy, mindia.connect(proxy.url, storage=storage, settings=QUICK) as app:
        for commit in count():
            tenant = app.tenants.create("Acme")
            library = app.library(tenant)
            before = [library.media.add(CAT, filename="first.jpg")] if is_there else []
            proxy.cut_at(Words.COMMIT, Moment.ANSWERED, skip=commit)

            made: Media | None = None
            try:
                made = library.media.add(CAT, filename="cat.jpg", on_duplicate=policy)
            except DuplicateError:
                assert is_there
                assert policy == "error"

            is_new = not is_there or policy == "link"
            assert made is None or library.media.get(made.id) == made
            expected = {item.id for item in before} | ({made.id} if is_new and made is not None else set())
            assert {item.id for item in library.media.find()} == expected
            assert made is not None or policy == "error"
            check_counts(host, library)
            if proxy.cuts_left:
                break
        assert commit > 0
