"""A library moves to another store while it is in use: all of it, whole, and nothing that was deleted meanwhile."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psycopg
import pytest
from psycopg import sql

import mindia
from mindia import CopyReport, Library, LocalStorage, Media, MemoryStorage, Mindia, MovingStorage, Settings, Tenant
from mindia._ids import uuid7
from mindia.errors import InvalidError, NotFoundError, StorageError, StorageUnavailableError
from mindia.storage.base import Storage
from mindia.testing import samples
from mindia.testing.storage import listed, put, read

SETTINGS = Settings(isolate_parsers=False)


@pytest.fixture
def url(database_url: str) -> str:
    with psycopg.connect(database_url) as connection:
        for table in ("staged_objects", "deleted_objects", "tasks", "uploads"):
            connection.execute(sql.SQL("delete from mindia.{}").format(sql.Identifier(table)))
    return database_url


@pytest.fixture
def old(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "old")


@pytest.fixture
def new() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def app(url: str, old: Storage) -> Iterator[Mindia]:
    with mindia.connect(url, storage=old, settings=SETTINGS) as app:
        yield app


@pytest.fixture
def items(library: Library) -> list[Media]:
    return [library.media.add(samples.image(), filename=f"{number}.jpg") for number in range(7)]


def test_all_objects_are_copied_and_are_the_same(
    app: Mindia, library: Library, tenant: Tenant, old: Storage, new: Storage, items: list[Media]
) -> None:
    put(old, tenant.s3_bucket, f"derived/{items[0].id}/thumbnail.jpg", b"content")
    put(old, tenant.s3_bucket, "notes/of-the-host.txt", b"notes")
    library.media.copy(items[0])
    library.media.delete(items[0])

    report = app.maintenance.copy_objects(old, new, tenant=tenant)

    assert report.is_complete
    assert (report.copied, report.already_there, report.failed) == (9, 0, 0)
    assert {key: read(new, tenant.s3_bucket, key) for key in listed(new, tenant.s3_bucket)} == {
        key: read(old, tenant.s3_bucket, key) for key in listed(old, tenant.s3_bucket)
    }
    again = app.maintenance.copy_objects(old, new, tenant=tenant)
    assert (again.copied, again.already_there) == (0, 9)


def test_a_dry_run_copies_nothing(app: Mindia, tenant: Tenant, old: Storage, new: Storage, items: list[Media]) -> None:
    report = app.maintenance.copy_objects(old, new, tenant=tenant, dry_run=True)
    assert (report.copied, report.is_dry_run, report.bytes_copied) == (7, True, sum(item.file_size for item in items))
    assert listed(new, tenant.s3_bucket) == {}


@pytest.mark.parametrize("limit", [1, 3])
def test_stopped_at_any_place_it_goes_on_where_it_was(
    app: Mindia, tenant: Tenant, old: Storage, new: Storage, items: list[Media], limit: int
) -> None:
    parts: list[CopyReport] = []
    while not parts or not parts[-1].is_complete:
        parts.append(
            app.maintenance.copy_objects(old, new, tenant=tenant, limit=limit, after=parts[-1].next if parts else None)
        )
        assert len(parts) < 20

    assert sum(part.copied for part in parts) == len(items)
    assert all(part.copied <= limit and not part.already_there for part in parts)


def test_a_damaged_object_is_told_and_not_passed_on(
    app: Mindia, tenant: Tenant, old: Storage, new: Storage, items: list[Media]
) -> None:
    put(old, tenant.s3_bucket, items[3].s3_key, b"something else")

    report = app.maintenance.copy_objects(old, new, tenant=tenant)

    assert (report.copied, report.failed, report.is_complete) == (6, 1, False)
    (problem,) = report.problems
    assert problem.s3_key == items[3].s3_key
    assert items[3].sha256 in problem.detail
    assert items[3].s3_key not in listed(new, tenant.s3_bucket)


class Forgetful(MemoryStorage):
    """Keeps something else than it was given."""

    def put(self, bucket: str, key: str, source: BinaryIO, **arguments: Any) -> None:
        super().put(bucket, key, io.BytesIO(source.read()[:-1]), **arguments)


def test_what_the_new_store_has_is_read_again(app: Mindia, tenant: Tenant, old: Storage, items: list[Media]) -> None:
    new = Forgetful()
    report = app.maintenance.copy_objects(old, new, tenant=tenant)
    assert (report.copied, report.failed) == (0, len(items))
    assert listed(new, tenant.s3_bucket) == {}


class Down(MemoryStorage):
    """Fails after some objects, in one way or the other."""

    def __init__(self, error: Exception, good: int) -> None:
        super().__init__()
        self.error = error
        self.good = good

    def put(self, bucket: str, key: str, source: BinaryIO, **arguments: Any) -> None:
        self.good -= 1
        if self.good < 0:
            raise self.error
        super().put(bucket, key, source, **arguments)


def test_an_outage_ends_it_and_the_next_run_goes_on(
    app: Mindia, tenant: Tenant, old: Storage, items: list[Media]
) -> None:
    new = Down(StorageUnavailableError("no space left on device"), good=3)

    report = app.maintenance.copy_objects(old, new, tenant=tenant, concurrency=1)

    assert isinstance(report.error, StorageUnavailableError)
    assert not report.is_complete
    new.good = 100
    rest = app.maintenance.copy_objects(old, new, tenant=tenant, after=report.next)
    assert (rest.copied + rest.already_there, rest.is_complete) == (len(items), True)


def test_an_object_that_a_store_fails_over_is_in_nobodys_way(
    app: Mindia, tenant: Tenant, old: Storage, items: list[Media]
) -> None:
    report = app.maintenance.copy_objects(old, Down(StorageError("refused"), good=5), tenant=tenant)
    assert (report.copied, report.failed) == (5, len(items) - 5)


def test_what_is_deleted_while_it_is_copied_is_in_neither_store(
    url: str, old: LocalStorage, tenant: Tenant, items: list[Media]
) -> None:
    class Deleting(MemoryStorage):
        """Has an object deleted as soon as it is there."""

        def put(self, bucket: str, key: str, source: BinaryIO, **arguments: Any) -> None:
            super().put(bucket, key, source, **arguments)
            if key == items[2].s3_key:
                moving.delete(bucket, [key])
            if key == items[4].s3_key:
                old.delete(bucket, [key])

    new = Deleting()
    moving = MovingStorage(old, new)
    with mindia.connect(url, storage=moving, settings=SETTINGS) as app:
        report = app.maintenance.copy_objects(old, new, tenant=tenant)

    assert report.copied == len(items) - 2
    assert listed(new, tenant.s3_bucket).keys() == {item.s3_key for item in items} - {items[2].s3_key, items[4].s3_key}


def test_a_library_is_in_use_while_it_moves(url: str, old: LocalStorage, new: MemoryStorage) -> None:
    with mindia.connect(url, storage=old, settings=SETTINGS) as app:
        tenant = app.tenants.create("Acme")
        library = app.library(tenant)
        kept = [library.media.add(samples.image(), filename=f"{number}.jpg") for number in range(20)]
        gone = [library.media.add(samples.image(), filename=f"gone {number}.jpg") for number in range(10)]

    with mindia.connect(url, storage=MovingStorage(old, new), settings=SETTINGS) as app:
        library = app.library(tenant)
        added: list[Media] = []
        done = threading.Event()

        def use() -> None:
            for item in gone:
                library.media.delete(item)
                app.maintenance.remove_deleted()
                added.append(library.media.add(samples.image(color="gold"), filename="added.jpg"))
                assert library.media.read(kept[0]) == samples.image()
            done.set()

        using = threading.Thread(target=use)
        using.start()
        report = app.maintenance.copy_objects(old, new, tenant=tenant, concurrency=2)
        using.join(60)
        assert done.is_set()
        app.maintenance.remove_deleted()
        assert report.is_complete

    with mindia.connect(url, storage=new, settings=SETTINGS) as app:
        library = app.library(tenant)
        assert {item.id for item in library.media.iterate()} == {item.id for item in (*kept, *added)}
        assert app.maintenance.verify(tenant=tenant).is_clean
        assert listed(new, tenant.s3_bucket).keys() == {item.s3_key for item in (*kept, *added)}


def test_the_region_is_that_of_the_new_store_afterwards(
    app: Mindia, tenant: Tenant, old: Storage, items: list[Media]
) -> None:
    class Elsewhere(MemoryStorage):
        region = "eu-west-1"

    assert len(items) == 7
    app.maintenance.copy_objects(old, Elsewhere(), tenant=tenant)
    assert app.tenants.get(tenant.id).s3_region == "eu-west-1"


@pytest.mark.parametrize(
    "arguments",
    [{"limit": 0}, {"concurrency": 0}, {"after": "junk"}, {"after": "W10"}, {"new": None}, {"tenant": uuid7()}],
    ids=["limit", "concurrency", "junk", "empty place", "no store", "no tenant"],
)
def test_arguments_that_are_not_allowed_are_refused(
    app: Mindia, old: Storage, new: Storage, arguments: dict[str, Any]
) -> None:
    with pytest.raises((InvalidError, NotFoundError)):
        app.maintenance.copy_objects(**{"old": old, "new": new} | arguments)
    with pytest.raises(InvalidError, match="same store"):
        app.maintenance.copy_objects(old, old)
