"""Rows against bytes and bytes against rows: what is wrong is found, nothing else is, and what is told is repaired."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

import mindia
from mindia import Library, LocalStorage, Media, MemoryStorage, Mindia, Settings, Tenant
from mindia._ids import uuid7
from mindia.domain.maintenance import Problem, Repair, VerifyReport, VerifyStorage
from mindia.errors import InvalidError, NotFoundError, StorageUnavailableError
from mindia.storage.base import StoredObject
from mindia.testing import samples
from mindia.testing.storage import listed, put

Host = psycopg.Connection[tuple[Any, ...]]

ALL = tuple(Repair)


@pytest.fixture
def idle_database_url(database_url: str) -> str:
    """The shared database without what earlier tests have left to be done."""
    with psycopg.connect(database_url) as connection:
        for table in ("staged_objects", "deleted_objects", "tasks", "uploads"):
            connection.execute(sql.SQL("delete from mindia.{}").format(sql.Identifier(table)))
    return database_url


@pytest.fixture
def app(idle_database_url: str, storage: LocalStorage) -> Iterator[Mindia]:
    with mindia.connect(idle_database_url, storage=storage, settings=Settings(isolate_parsers=False)) as app:
        yield app


@pytest.fixture
def items(library: Library) -> list[Media]:
    return [
        library.media.add(samples.image(color=color), filename=f"{color}.jpg") for color in ("navy", "gold", "plum")
    ]


def problems(report: VerifyReport) -> dict[str, Problem]:
    return {finding.s3_key: finding.problem for finding in report.findings}


def spoil(storage: LocalStorage, tenant: Tenant, item: Media, content: Callable[[bytes], bytes]) -> None:
    with storage.open(tenant.s3_bucket, item.s3_key) as file:
        before = file.read()
    put(storage, tenant.s3_bucket, item.s3_key, content(before))


def test_nothing_is_wrong_with_what_is_in_order(
    app: Mindia, library: Library, tenant: Tenant, items: list[Media]
) -> None:
    library.media.copy(items[0])
    library.media.delete(items[0])  # the copy keeps the bytes
    library.media.delete(items[1])  # whose bytes are to be removed
    library.media.stage(samples.image(), filename="staged.jpg")

    report = app.maintenance.verify(tenant=tenant)

    assert report.is_complete
    assert report.is_clean
    assert report.findings == ()
    assert (report.items_checked, report.items_hashed) == (2, 2)
    assert report.bytes_hashed == items[0].file_size + items[2].file_size
    assert (report.objects_checked, report.objects_foreign) == (4, 0)


def test_each_kind_of_damage_is_found_and_only_that(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, items: list[Media]
) -> None:
    missing, short, changed = items
    fine = library.media.add(samples.image(color="teal"), filename="teal.jpg")
    storage.delete(tenant.s3_bucket, [missing.s3_key])
    spoil(storage, tenant, short, lambda content: content[:-1])
    spoil(storage, tenant, changed, lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    orphans = [f"originals/{uuid7()}", f"derived/{uuid7()}/thumbnail.jpg", f"uploads/{uuid7()}/whole"]
    orphans.append(f"derived/{fine.id}/thumbnail.jpg")
    for key in (*orphans, "notes/of-the-host.txt", "originals/not-an-id"):
        put(storage, tenant.s3_bucket, key, b"content")

    report = app.maintenance.verify(tenant=tenant)

    assert problems(report) == {
        missing.s3_key: Problem.MISSING,
        short.s3_key: Problem.WRONG_SIZE,
        changed.s3_key: Problem.WRONG_HASH,
        **dict.fromkeys(orphans, Problem.ORPHAN),
    }
    assert {count.problem: (count.found, count.repaired) for count in report.counts} == {
        "missing": (1, 0), "wrong_size": (1, 0), "wrong_hash": (1, 0), "orphan": (4, 0),
    }  # fmt: skip
    assert report.objects_foreign == 2
    assert not report.is_clean
    assert len(list(listed(storage, tenant.s3_bucket))) == 9, "looking changes nothing"


def test_without_hashing_a_changed_byte_is_not_found(
    app: Mindia, tenant: Tenant, storage: LocalStorage, items: list[Media]
) -> None:
    spoil(storage, tenant, items[0], lambda content: content[:-1] + bytes([content[-1] ^ 1]))

    report = app.maintenance.verify(tenant=tenant, hash_fraction=0)

    assert (report.items_checked, report.items_hashed, report.bytes_hashed) == (3, 0, 0)
    assert report.is_clean


def test_orphans_are_removed_where_told_and_nothing_else(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, items: list[Media]
) -> None:
    staged = library.media.stage(samples.image(), filename="staged.jpg")
    for key in (f"originals/{uuid7()}", f"derived/{uuid7()}/thumbnail.jpg"):
        put(storage, tenant.s3_bucket, key, b"content")
    put(storage, tenant.s3_bucket, "notes/of-the-host.txt", b"content")

    report = app.maintenance.verify(tenant=tenant, repair=["remove_orphans"])

    assert [(count.problem, count.found, count.repaired) for count in report.counts] == [(Problem.ORPHAN, 2, 2)]
    assert report.is_clean
    assert set(listed(storage, tenant.s3_bucket)) == {
        "notes/of-the-host.txt", f"originals/{staged.id}", *(item.s3_key for item in items)
    }  # fmt: skip
    assert library.media.add(staged).id == staged.id
    assert app.maintenance.verify(tenant=tenant).is_clean


def test_bytes_are_restored_from_an_item_that_has_the_same(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage
) -> None:
    content = samples.image()
    lost, twin = (library.media.add(content, filename=f"{number}.jpg") for number in range(2))
    storage.delete(tenant.s3_bucket, [lost.s3_key])

    (finding,) = app.maintenance.verify(tenant=tenant, repair=ALL).findings

    assert (finding.media_id, finding.problem, finding.repair) == (lost.id, Problem.MISSING, Repair.RESTORE)
    assert library.media.read(lost) == library.media.read(twin) == content


def test_a_twin_that_is_damaged_itself_restores_nothing(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage
) -> None:
    lost, twin = (library.media.add(samples.image(), filename=f"{number}.jpg") for number in range(2))
    storage.delete(tenant.s3_bucket, [lost.s3_key])
    spoil(storage, tenant, twin, lambda content: content[:-1])

    report = app.maintenance.verify(tenant=tenant, repair=[Repair.RESTORE])

    assert [(finding.problem, finding.repair) for finding in report.findings] == [
        (Problem.MISSING, None), (Problem.WRONG_SIZE, None)
    ]  # fmt: skip


def test_items_without_bytes_are_deleted_where_told(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, items: list[Media]
) -> None:
    storage.delete(tenant.s3_bucket, [items[0].s3_key])

    report = app.maintenance.verify(tenant=tenant, repair=[Repair.DELETE_ITEMS])

    assert [finding.repair for finding in report.findings] == [Repair.DELETE_ITEMS]
    with pytest.raises(NotFoundError):
        library.media.get(items[0].id)
    assert {item.id for item in library.media.find()} == {items[1].id, items[2].id}


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_stopped_at_any_place_it_goes_on_where_it_was(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, limit: int
) -> None:
    for number in range(7):
        item = library.media.add(samples.image(), filename=f"{number}.jpg")
        if number % 2:
            storage.delete(tenant.s3_bucket, [item.s3_key])
        put(storage, tenant.s3_bucket, f"originals/{uuid7()}", b"content")
    whole = app.maintenance.verify(tenant=tenant)

    parts: list[VerifyReport] = []
    after = None
    while not parts or not parts[-1].is_complete:
        parts.append(app.maintenance.verify(tenant=tenant, after=after, limit=limit))
        after = parts[-1].next
        assert len(parts) <= 20

    assert [finding for part in parts for finding in part.findings] == list(whole.findings)
    assert sum(part.items_checked for part in parts) == whole.items_checked == 7
    assert sum(part.objects_checked for part in parts) == whole.objects_checked == 11
    assert all(part.items_checked + part.objects_checked <= limit for part in parts)


def test_what_progress_was_told_is_a_place_to_go_on_from(
    app: Mindia, library: Library, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mindia.services.verification._BATCH", 2)
    for number in range(5):
        library.media.add(samples.image(), filename=f"{number}.jpg")
    told: list[VerifyReport] = []

    def stop(report: VerifyReport) -> None:
        told.append(report)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        app.maintenance.verify(tenant=tenant, progress=stop)
    rest = app.maintenance.verify(tenant=tenant, after=told[-1].next)

    assert told[-1].items_checked == 4
    assert (rest.items_checked, rest.objects_checked) == (1, 5)


def test_it_ends_when_it_is_called_off(app: Mindia, library: Library, tenant: Tenant) -> None:
    library.media.add(samples.image())
    cancel = threading.Event()
    cancel.set()

    report = app.maintenance.verify(tenant=tenant, cancel=cancel)

    assert report.items_checked == 0
    assert not report.is_complete
    assert app.maintenance.verify(tenant=tenant, after=report.next).items_checked == 1


def test_a_part_is_drawn_anew_for_each_run_and_kept_within_one(app: Mindia, library: Library, tenant: Tenant) -> None:
    library.media.add_many([samples.image()] * 40)
    hashed = [app.maintenance.verify(tenant=tenant, hash_fraction=0.5).items_hashed for _ in range(4)]
    assert all(5 < count < 35 for count in hashed)

    first = app.maintenance.verify(tenant=tenant, hash_fraction=0.5, limit=1)
    again = [app.maintenance.verify(tenant=tenant, hash_fraction=0.5, after=first.next) for _ in range(2)]
    assert again[0].items_hashed == again[1].items_hashed


def test_all_tenants_are_looked_at_one_after_the_other(fresh_database_url: str) -> None:
    storage = MemoryStorage()
    with mindia.connect(fresh_database_url, storage=storage, settings=Settings(isolate_parsers=False)) as app:
        tenants = [app.tenants.create(name) for name in ("Acme", "Globex", "Initech")]
        items = [app.library(tenant).media.add(samples.image()) for tenant in tenants]
        app.tenants.delete(tenants[1].id)
        app.tenants.suspend(tenants[2].id)
        storage.delete(tenants[2].s3_bucket, [items[2].s3_key])

        report = app.maintenance.verify()
        parts = [app.maintenance.verify(limit=1)]
        while not parts[-1].is_complete:
            parts.append(app.maintenance.verify(limit=1, after=parts[-1].next))

    assert [finding.tenant_id for finding in report.findings] == [tenants[2].id]
    assert report.items_checked == 2
    assert [finding for part in parts for finding in part.findings] == list(report.findings)


class Lazy(MemoryStorage):
    """Tells how many objects of a listing were asked for."""

    listed = 0

    def list(self, bucket: str, *, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        for found in super().list(bucket, prefix=prefix, after=after):
            self.listed += 1
            yield found


def test_its_memory_does_not_grow_with_what_is_stored(idle_database_url: str) -> None:
    """Listings are read a batch at a time, and of many findings the first are kept."""
    storage = Lazy()
    with mindia.connect(idle_database_url, storage=storage, settings=Settings(isolate_parsers=False)) as app:
        tenant = app.tenants.create("Acme")
        for _ in range(1_600):
            put(storage, tenant.s3_bucket, f"originals/{uuid7()}", b"content")
        ahead: list[int] = []

        report = app.maintenance.verify(
            tenant=tenant, progress=lambda report: ahead.append(storage.listed - report.objects_checked)
        )

    assert ahead == [0, 0, 0, 0]
    assert [(count.problem, count.found) for count in report.counts] == [(Problem.ORPHAN, 1_600)]
    assert len(report.findings) == 1_000


class Failing(MemoryStorage):
    """Cannot be reached once it is told so."""

    is_down = False

    def open(self, bucket: str, key: str) -> BinaryIO:
        if self.is_down:
            raise StorageUnavailableError("the store is down")
        return super().open(bucket, key)


def test_an_outage_is_not_taken_for_damage(idle_database_url: str) -> None:
    storage = Failing()
    with mindia.connect(idle_database_url, storage=storage, settings=Settings(isolate_parsers=False)) as app:
        tenant = app.tenants.create("Acme")
        app.library(tenant).media.add(samples.image())
        storage.is_down = True

        report = app.maintenance.verify(tenant=tenant, repair=ALL)

        assert isinstance(report.error, StorageUnavailableError)
        assert (report.findings, report.is_complete) == ((), False)
        storage.is_down = False
        assert app.maintenance.verify(tenant=tenant, after=report.next).is_complete


def test_what_is_deleted_meanwhile_is_not_missing(app: Mindia, library: Library, tenant: Tenant) -> None:
    class Deleting(LocalStorage):
        def open(self, bucket: str, key: str) -> BinaryIO:
            library.media.delete(item)
            app.maintenance.remove_deleted()
            return super().open(bucket, key)

    item = library.media.add(samples.image())
    app.maintenance._storage = Deleting(app.storage.root)  # type: ignore[attr-defined]  # the store is a folder here

    assert app.maintenance.verify(tenant=tenant, concurrency=1).findings == ()


@pytest.mark.parametrize(
    "arguments",
    [
        {"hash_fraction": 1.1}, {"hash_fraction": -0.1}, {"limit": 0}, {"concurrency": 0}, {"concurrency": 65},
        {"repair": ["everything"]}, {"repair": "restore"}, {"after": "junk"}, {"after": ""}, {"after": "W10"},
        {"after": "WzEsMiwzLDRd"}, {"after": "é"},
    ],
    ids=str,
)  # fmt: skip
def test_arguments_that_are_not_allowed_are_refused(app: Mindia, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        app.maintenance.verify(**arguments)


def test_a_tenant_that_is_not_there_is_not_found(app: Mindia) -> None:
    with pytest.raises(NotFoundError):
        app.maintenance.verify(tenant=uuid4())


def test_a_worker_does_it_part_by_part(app: Mindia, tenant: Tenant, storage: LocalStorage, items: list[Media]) -> None:
    storage.delete(tenant.s3_bucket, [items[0].s3_key])
    put(storage, tenant.s3_bucket, f"originals/{uuid7()}", b"content")
    app.run_until_idle()
    app.tasks.enqueue(VerifyStorage(tenant_id=tenant.id, hash_fraction=1.0, repair=(Repair.REMOVE_ORPHANS,), objects=2))

    report = app.run_until_idle()

    assert (report.completed, report.failed) == (4, 0)
    assert set(listed(storage, tenant.s3_bucket)) == {item.s3_key for item in items[1:]}
    results = [task.result for task in app.tasks.list() if task.kind == "verify_storage"]
    assert sum(result["items_checked"] for result in results if isinstance(result, dict)) == 3
    assert sum(len(result["problems"]) for result in results if isinstance(result, dict)) == 2
