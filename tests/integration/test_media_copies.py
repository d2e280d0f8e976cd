"""Items may share bytes: each is read and deleted as if they were its own, and the last one takes them along."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.media_rows import Host, four_kinds, register, rolled_back, rows, sweep_all
from tests.integration.shared_bytes import QUICK, check_bytes, check_counts, counted, multiplied, told

import mindia
from mindia import Library, LocalStorage, Media, Mindia, Tenant, Video
from mindia._ids import uuid7
from mindia.errors import InvalidError, NotFoundError, TypeMismatchError
from mindia.services.leases import Slot
from mindia.testing import samples
from mindia.testing.storage import listed

CAT = samples.image()


@pytest.fixture
def app(database_url: str, storage: LocalStorage) -> Iterator[Mindia]:
    with mindia.connect(database_url, storage=storage, settings=QUICK) as app:
        yield app


@pytest.fixture
def other(app: Mindia) -> Library:
    """Another tenant's library."""
    return app.library(app.tenants.create("Globex"))


def cat(library: Library) -> Media:
    return library.media.add(CAT, filename="cat.jpg", description="on a windowsill", metadata={"place": "Lisbon"})


# Copies


def test_a_copy_is_what_the_original_was_unless_something_else_is_said(
    app: Mindia, library: Library, storage: LocalStorage, host: Host
) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    original = library.media.add(
        CAT, filename="cat.jpg", description="on a windowsill", metadata={"place": "Lisbon"}, expires_at=later
    )

    plain = library.media.copy(original)
    other = library.media.copy(
        original.id, filename="../Tiger\u202e.JPEG", description="", metadata={}, expires_at=later
    )

    assert (plain.filename, plain.original_filename) == ("cat.jpg", "cat.jpg")
    assert (plain.description, plain.metadata, plain.expires_at) == ("on a windowsill", {"place": "Lisbon"}, None)
    assert (other.filename, other.original_filename) == ("Tiger.JPEG", "../Tiger\u202e.JPEG")
    assert (other.description, other.metadata, other.expires_at) == ("", {}, later)
    for copy in (plain, other):
        assert library.media.get(copy.id) == copy
        assert copy.s3_key == original.s3_key
        assert copy.uploaded_at == copy.updated_at > original.uploaded_at
        assert library.media.read(copy) == CAT
    assert library.media.get(original.id) == original
    assert {result.media for result in library.search("windowsill")} == {original, plain}
    assert [result.media for result in library.search("tiger")] == [other]
    assert counted(host, library) == {original.s3_key: 3}
    assert len(check_bytes(app, library, storage, host)) == 3


def test_an_item_of_any_kind_can_be_copied_with_all_that_hangs_on_it(
    app: Mindia, library: Library, storage: LocalStorage, host: Host
) -> None:
    originals = four_kinds(library)
    app.run_until_idle()
    register(host, library, ["*"])

    copies = [library.media.copy(item) for item in originals]

    assert [library.media.get(copy.id) for copy in copies] == copies
    assert told(host, library) == [(f"{copy.kind}.uploaded", str(copy.id)) for copy in copies]
    assert rows(host, library, "embeddings", "search_documents") == {"embeddings": 4, "search_documents": 8}
    app.run_until_idle()
    assert rows(host, library, "embeddings") == {"embeddings": 8}
    for original in originals:
        library.media.delete(original)
    assert {item.id for item in check_bytes(app, library, storage, host)} == {copy.id for copy in copies}


def test_a_copy_of_a_video_has_its_streaming_form_and_none_that_is_only_being_made(
    library: Library, host: Host
) -> None:
    plain = library.media.add(samples.video(seconds=0.2, audio_codec=None), filename="a.mp4")
    original = library.media.add(samples.video(seconds=0.2, audio_codec=None), filename="b.mp4")
    key = f"derived/{original.id}/{uuid7()}/master.m3u8"
    with host.transaction():
        host.execute("update mindia.videos set processing_status = 'processing' where id = %s", (plain.id,))
        host.execute(
            "update mindia.videos set processing_status = 'completed', hls_master_key = %s where id = %s",
            (key, original.id),
        )

    of_plain, copy = library.media.copy(plain), library.media.copy(original)

    assert isinstance(of_plain, Video)
    assert isinstance(copy, Video)
    assert library.media.get_many([of_plain.id, copy.id]) == [of_plain, copy]
    assert (of_plain.processing_status, of_plain.hls_master_key) == ("pending", None)
    assert (copy.processing_status, copy.hls_master_key) == ("completed", key)


def test_what_is_not_there_cannot_be_copied(library: Library, other: Library, host: Host) -> None:
    deleted, expired, theirs = cat(library), cat(library), cat(other)
    library.media.delete(deleted)
    with host.transaction():
        host.execute("update mindia.images set expires_at = now() where id = %s", (expired.id,))

    for item in (deleted, expired, theirs):
        with pytest.raises(NotFoundError, match=str(item.id)):
            library.media.copy(item)
        with pytest.raises(NotFoundError, match=str(item.id)):
            library.media.copy(item.id, filename="cat.png")
    with pytest.raises(NotFoundError):
        library.media.copy(uuid7())

    assert not library.media.find()
    assert counted(host, library) == counted(host, other) == {}


def test_what_is_said_of_a_copy_is_held_to_the_limits(library: Library, host: Host) -> None:
    original = cat(library)

    with pytest.raises(TypeMismatchError, match=r"cat\.png"):
        library.media.copy(original, filename="cat.png")
    with pytest.raises(InvalidError, match="51 keys"):
        library.media.copy(original, metadata={str(number): number for number in range(51)})
    with pytest.raises(InvalidError, match="65537 bytes"):
        library.media.copy(original, description="a" * 65_537)
    with pytest.raises(InvalidError, match="time zone"):
        library.media.copy(original, expires_at=datetime(2999, 1, 1))  # noqa: DTZ001 - as hosts do

    assert list(library.media.find()) == [original]
    assert counted(host, library) == {}


def test_a_copy_that_is_rolled_back_has_not_happened(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    original = cat(library)
    before = rows(host, library)

    with rolled_back(library) as tx:
        copy = tx.media.copy(original)
        tx.media.delete(original)
        assert tx.media.read(copy) == CAT
        assert list(tx.media.find()) == [copy]

    assert rows(host, library) == before
    assert counted(host, library) == {}
    library.media.delete(original)
    assert check_bytes(app, library, storage, host) == []
    assert listed(storage, tenant.s3_bucket) == {}


# Deleting those that share


def test_each_is_read_until_it_is_deleted_in_whatever_order(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    for order in permutations(range(4)):
        first = cat(library)
        second = library.media.copy(first)
        items = [first, second, library.media.add(CAT, on_duplicate="link"), library.media.copy(second)]

        for number, which in enumerate(order, start=1):
            library.media.delete(items[which])
            app.maintenance.remove_deleted()
            for left in (items[each] for each in order[number:]):
                assert library.media.read(left) == CAT
            check_counts(host, library)

        assert listed(storage, tenant.s3_bucket) == {}
        assert counted(host, library) == {}
        assert rows(host, library) == {}


def test_a_batch_may_delete_some_or_all_of_those_that_share(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    first, other = cat(library), library.media.add(samples.wav(seconds=0.1), filename="bell.wav")
    copies = [library.media.copy(first) for _ in range(5)]
    others = [library.media.copy(other) for _ in range(2)]

    assert not library.media.delete_many([first, copies[0], other, copies[1]]).failed
    assert counted(host, library) == {first.s3_key: 3, other.s3_key: 2}
    assert len(check_bytes(app, library, storage, host)) == 5

    assert not library.media.delete_many([copies[3], *others, copies[2], copies[4]]).failed
    assert counted(host, library) == {}
    assert check_bytes(app, library, storage, host) == []
    assert listed(storage, tenant.s3_bucket) == {}


def test_those_that_share_may_expire_one_after_the_other(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    items = [cat(library)]
    items += [library.media.copy(items[0]) for _ in range(3)]

    for number in (1, 3, 4):
        with host.transaction():
            ids = [item.id for item in items[:number]]
            host.execute("update mindia.images set expires_at = now() where id = any(%s)", (ids,))
        app.maintenance.remove_expired()
        check_counts(host, library)
        assert {item.id for item in check_bytes(app, library, storage, host)} == {item.id for item in items[number:]}

    assert listed(storage, tenant.s3_bucket) == {}


CONTENTS = (CAT, samples.wav(seconds=0.1), samples.pdf(["about llamas"]))
ACTIONS = ("add", "link", "return", "copy", "delete", "delete many", "expire", "remove expired", "remove deleted")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 99), st.booleans()), max_size=25))
def test_after_any_history_items_have_their_bytes_and_bytes_have_their_items(
    app: Mindia, storage: LocalStorage, host: Host, steps: list[tuple[str, int, bool]]
) -> None:
    library = app.library(app.tenants.create("Acme"))
    known: dict[UUID, bytes] = {}

    def act(library: Library, action: str, number: int) -> dict[UUID, bytes]:
        media = library.media
        there = dict(known)
        which = sorted(there)[number % len(there)] if there else uuid7()
        content = CONTENTS[number % len(CONTENTS)]
        match action:
            case "add":
                there[media.add(content).id] = content
            case "link" | "return":
                there[media.add(content, on_duplicate=action).id] = content
            case "copy":
                with suppress(NotFoundError):
                    made = media.copy(which)
                    there[made.id] = there[which]
            case "delete":
                with suppress(NotFoundError):
                    media.delete(which)
                    del there[which]
            case "delete many":
                gone = random.Random(number).sample(sorted(there), k=len(there) // 2)
                assert set(media.delete_many([*gone, uuid7(), *gone[:1]]).deleted) == set(gone)
                for each in gone:
                    del there[each]
            case "expire":
                with suppress(NotFoundError):
                    media.update(which, expires_at=datetime.now(UTC) - timedelta(seconds=1))
                    del there[which]
        return there

    for action, number, rolls_back in steps:
        match action:
            case "remove expired":
                app.maintenance.remove_expired()
            case "remove deleted":
                app.maintenance.remove_deleted()
            case _ if rolls_back:
                with rolled_back(library) as tx:
                    act(tx, action, number)
            case _:
                known = act(library, action, number)
        for media_id, content in known.items():
            assert library.media.read(media_id) == content

    assert {item.id for item in check_bytes(app, library, storage, host)} == known.keys()


# At once

ROUNDS = 12

Act = Callable[[Library, Media, Media], object]
RACES: dict[str, tuple[Act, ...]] = {
    "both are deleted": (
        lambda library, one, _: library.media.delete(one),
        lambda library, _, other: library.media.delete(other),
    ),
    "one is deleted while it is copied": (
        lambda library, one, _: library.media.delete(one),
        lambda library, one, _: library.media.copy(one),
    ),
    "one is deleted while the other is copied": (
        lambda library, one, _: library.media.delete(one),
        lambda library, _, other: library.media.copy(other),
    ),
    "both are deleted while the same bytes come in": (
        lambda library, one, other: library.media.delete_many([one, other]),
        lambda library, *_: library.media.add(CAT, on_duplicate="link"),
        lambda library, *_: library.media.add(CAT, on_duplicate="return"),
    ),
    "all do everything": (
        lambda library, one, other: library.media.delete_many([other, one]),
        lambda library, one, other: library.media.delete_many([one, other]),
        lambda library, one, _: library.media.copy(one),
        lambda library, *_: library.media.add(CAT, on_duplicate="link"),
        lambda library, one, _: library.media.update(one, filename="tiger.jpg"),
    ),
}


@pytest.mark.parametrize("shared", [True, False], ids=["of two that share", "of two that do not share"])
@pytest.mark.parametrize("acts", RACES.values(), ids=RACES)
def test_no_row_is_left_without_bytes_and_no_bytes_without_row_when(
    app: Mindia, library: Library, storage: LocalStorage, host: Host, acts: tuple[Act, ...], shared: bool
) -> None:
    together = threading.Barrier(len(acts))
    maintain = [app.maintenance.remove_deleted] * 3

    def run(act: Act, one: Media, other: Media) -> None:
        together.wait(30)
        with suppress(NotFoundError):  # another one was faster
            act(library, one, other)

    with ThreadPoolExecutor(len(acts)) as pool:
        for _ in range(ROUNDS):
            one = library.media.add(CAT)
            other = library.media.copy(one) if shared else library.media.add(CAT)
            running = [pool.submit(run, act, one, other) for act in acts]
            for call in maintain:
                call()
            for future in running:
                future.result(30)

    check_bytes(app, library, storage, host)


def test_who_deletes_the_same_items_in_another_order_waits_and_is_not_refused(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    chance = random.Random(7)
    for _ in range(5):
        first = [cat(library), library.media.add(samples.wav(seconds=0.1))]
        items = first + [library.media.copy(item) for item in first for _ in range(12)]
        orders = [chance.sample(items, len(items)) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            reports = list(pool.map(library.media.delete_many, orders))

        deleted = [media_id for report in reports for media_id in report.deleted]
        assert sorted(deleted) == sorted(item.id for item in items), "each was deleted once"

    sweep_all(app)
    assert listed(storage, tenant.s3_bucket) == {}
    assert counted(host, library) == {}


def test_bytes_that_are_shared_are_not_discarded_although_the_first_item_has_gone(
    app: Mindia, library: Library, tenant: Tenant
) -> None:
    first = cat(library)
    copy = library.media.copy(first)
    library.media.delete(first)

    # As the call does that added the first item and was interrupted before it knew.
    slot = Slot(tenant_id=tenant.id, key=first.id, s3_bucket=tenant.s3_bucket)
    app._leases.discard(app.storage, slot, kind=first.kind)

    assert library.media.read(copy) == CAT


# Many


def test_each_of_many_has_a_result_in_its_place(library: Library, other: Library, host: Host) -> None:
    items, theirs, nobodys = four_kinds(library), cat(other), uuid7()
    register(host, library, ["*"])
    register(host, other, ["*"])

    wanted = [items[2], theirs, items[0].id, nobodys, items[2].id, items[1], items[0], nobodys, items[3]]
    report = library.media.delete_many(each for each in wanted)

    ids = [each if isinstance(each, UUID) else each.id for each in wanted]
    assert [result.media_id for result in report] == ids
    assert [type(result.error) for result in report] == [
        NotFoundError if media_id in (theirs.id, nobodys) else type(None) for media_id in ids
    ]
    assert report.deleted == tuple(media_id for media_id in ids if media_id not in (theirs.id, nobodys))
    assert [str(result.error) for result in report.failed] == [
        f"there is no media item {media_id}" for media_id in (theirs.id, nobodys, nobodys)
    ]
    assert not library.media.find()
    assert list(other.media.find()) == [theirs]
    assert sorted(told(host, library)) == sorted((f"{item.kind}.deleted", str(item.id)) for item in items)
    assert told(host, other) == []
    assert [type(result.error) for result in library.media.delete_many(items)] == [NotFoundError] * 4


def test_nothing_may_be_deleted(library: Library) -> None:
    report = library.media.delete_many([])

    assert len(report) == 0
    assert (report.deleted, report.failed) == ((), ())


def test_any_number_is_deleted_and_told_once_each(app: Mindia, library: Library, host: Host) -> None:
    register(host, library, ["image.deleted"])
    item = cat(library)
    ids = [item.id, *multiplied(host, item, 2_499)]
    unknown = [uuid7() for _ in range(10)]
    wanted = random.Random(7).sample([*ids, *unknown, *ids[:5], *ids[-5:]], 2_520)

    report = library.media.delete_many(wanted)

    assert [result.media_id for result in report] == wanted
    assert sorted(report.deleted) == sorted([*ids, *ids[:5], *ids[-5:]])
    assert {result.media_id for result in report.failed} == set(unknown)
    assert sorted(told(host, library)) == sorted(("image.deleted", str(media_id)) for media_id in ids)
    assert rows(host, library, "images", "search_documents", "tasks") == {}
    app.maintenance.remove_deleted()
    assert rows(host, library, "deleted_objects") == {}


def test_many_are_deleted_with_the_transaction_or_not_at_all(
    app: Mindia, library: Library, storage: LocalStorage, host: Host
) -> None:
    items = [*four_kinds(library), cat(library)]
    items.append(library.media.copy(items[-1]))
    register(host, library, ["*"])
    before = rows(host, library), counted(host, library)

    with rolled_back(library) as tx:
        assert not tx.media.delete_many(items).failed
        assert not tx.media.find()
        assert {type(result.error) for result in tx.media.delete_many(items)} == {NotFoundError}
    assert (rows(host, library), counted(host, library)) == before
    assert len(check_bytes(app, library, storage, host)) == 6
    assert told(host, library) == []

    with library.transaction() as tx:
        assert not tx.media.delete_many(items).failed
        assert rows(host, library, "images") == {"images": 3}
    assert check_bytes(app, library, storage, host) == []
    assert sorted(told(host, library)) == sorted((f"{item.kind}.deleted", str(item.id)) for item in items)
