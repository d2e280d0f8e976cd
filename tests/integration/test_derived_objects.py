"""Rows and objects of what is made of items go with their original, whatever happens to it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import attrs
import psycopg
import pytest
from psycopg import sql
from tests.integration.deleted_tenants import delete_whole
from tests.integration.media_rows import Host, rows, sweep_all
from tests.integration.shared_bytes import wait_for_a_lock

import mindia
from mindia import Library, LocalStorage, Media, Mindia, Settings, Tenant
from mindia.domain.derivatives import Derivative
from mindia.domain.maintenance import Problem, Repair
from mindia.repositories import derivatives
from mindia.repositories.derivatives import NewDerivative
from mindia.services.derived_place import DerivedPlace
from mindia.testing import samples
from mindia.testing.storage import listed

QUICK = Settings(isolate_parsers=False)
STREAM = {"master.m3u8": b"#EXTM3U", "360p/index.m3u8": b"#EXTM3U", "360p/segment_000.ts": b"G" * 188}


def put_stream(library: Library, item: Media, *, files: dict[str, bytes] = STREAM) -> DerivedPlace:
    place = DerivedPlace(library.media._context, item)
    for name, content in files.items():
        place.put(name, io.BytesIO(content), content_type="video/mp2t", size=len(content))
    return place


def of_place(place: DerivedPlace, item: Media) -> NewDerivative:
    return NewDerivative(
        id=place.id,
        media=item,
        operations="hls",
        s3_key=f"{place.prefix}master.m3u8",
        s3_prefix=place.prefix,
        content_type="application/vnd.apple.mpegurl",
        file_size=place.file_size,
        file_count=place.file_count,
    )


def make_stream(library: Library, item: Media) -> Derivative:
    place = put_stream(library, item)
    made = library.media._context.as_member.run(lambda session: derivatives.replace(session, of_place(place, item)))
    assert made is not None
    return made


def recorded(library: Library, item: Media) -> list[Derivative]:
    return library.media._context.as_viewer.run(
        lambda session: derivatives.of_items(session, library.tenant_id, [item]), single=True
    )


def keys(storage: LocalStorage, tenant: Tenant, *, area: str = "derived/") -> set[str]:
    return {key for key in listed(storage, tenant.s3_bucket) if key.startswith(area)}


def names_of(made: Derivative) -> set[str]:
    return {f"{made.s3_prefix}{name}" for name in STREAM}


@pytest.fixture
def app(database_url: str, storage: LocalStorage) -> Iterator[Mindia]:
    """An application in a database without what earlier tests have left to be done."""
    with psycopg.connect(database_url) as connection:
        for table in ("staged_objects", "deleted_objects", "tasks", "uploads"):
            connection.execute(sql.SQL("delete from mindia.{}").format(sql.Identifier(table)))
    with mindia.connect(database_url, storage=storage, settings=QUICK) as app:
        yield app


@pytest.fixture
def other(app: Mindia) -> Library:
    """Another tenant's library."""
    return app.library(app.tenants.create("Globex"))


@pytest.fixture
def item(library: Library) -> Media:
    return library.media.add(samples.image())


def test_it_is_found_once_it_is_recorded(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, item: Media
) -> None:
    made = make_stream(library, item)

    assert recorded(library, item) == [made]
    assert (made.file_count, made.file_size) == (3, sum(map(len, STREAM.values())))
    assert keys(storage, tenant) == names_of(made)
    report = app.maintenance.verify(tenant=tenant)
    assert report.is_clean
    assert (report.derivatives_checked, report.objects_checked) == (1, 4)
    usage = library.usage()
    assert (usage.derivative_count, usage.derivative_bytes) == (1, made.file_size)
    assert usage.total_bytes == item.file_size


def test_a_newer_one_takes_the_place_of_the_older(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, item: Media
) -> None:
    make_stream(library, item)
    newer = make_stream(library, item)

    assert recorded(library, item) == [newer]
    assert app.maintenance.verify(tenant=tenant).is_clean, "what is to be removed is on record"
    app.maintenance.remove_deleted()
    assert keys(storage, tenant) == names_of(newer)


def test_it_goes_with_its_original(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, item: Media, host: Host
) -> None:
    made = make_stream(library, item)
    library.media.delete(item)

    assert rows(host, library, "derivatives") == {}
    assert keys(storage, tenant) == names_of(made)
    assert app.maintenance.verify(tenant=tenant).is_clean
    app.maintenance.remove_deleted()
    assert listed(storage, tenant.s3_bucket) == {}


def test_it_stays_for_a_copy_until_the_last_one_goes(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, item: Media
) -> None:
    made = make_stream(library, item)
    copy = library.media.copy(item)
    assert recorded(library, copy) == [made]

    library.media.delete(item)
    app.maintenance.remove_deleted()
    assert recorded(library, copy) == [made]
    assert keys(storage, tenant) == names_of(made)
    of_copy = make_stream(library, copy)
    assert recorded(library, copy) == [of_copy]
    assert app.maintenance.verify(tenant=tenant).is_clean

    library.media.delete(copy)
    app.maintenance.remove_deleted()
    assert listed(storage, tenant.s3_bucket) == {}


def test_what_was_never_recorded_is_swept(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, item: Media
) -> None:
    put_stream(library, item)
    assert app.maintenance.verify(tenant=tenant).is_clean
    assert app.maintenance.sweep_staged(older_than=timedelta(days=1)).found == 0

    report = app.maintenance.sweep_staged(older_than=timedelta())

    assert report.removed >= 1
    assert keys(storage, tenant) == set()
    assert keys(storage, tenant, area="originals/") == {item.s3_key}


def test_what_was_swept_is_not_recorded(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, item: Media
) -> None:
    place = put_stream(library, item)
    app.maintenance.sweep_staged(older_than=timedelta())

    write = library.media._context.as_member.run
    assert write(lambda session: derivatives.record(session, of_place(place, item))) is None
    assert recorded(library, item) == []
    assert keys(storage, tenant) == set()


def test_what_is_discarded_is_gone_and_what_was_recorded_stays(
    library: Library, tenant: Tenant, storage: LocalStorage, item: Media
) -> None:
    put_stream(library, item).discard()
    assert keys(storage, tenant) == set()

    place = put_stream(library, item)
    library.media._context.as_member.run(lambda session: derivatives.record(session, of_place(place, item)))
    place.discard()
    assert len(keys(storage, tenant)) == 3


def test_of_two_that_are_recorded_at_once_there_is_one(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, item: Media
) -> None:
    first, second = put_stream(library, item), put_stream(library, item)
    write = library.media._context.as_member.run
    made = write(lambda session: derivatives.record(session, of_place(first, item)))

    assert write(lambda session: derivatives.record(session, of_place(second, item))) is None
    assert recorded(library, item) == [made]
    second.discard()
    first.discard()
    assert made is not None
    assert keys(storage, tenant) == names_of(made)
    assert app.maintenance.verify(tenant=tenant).is_clean


def test_nothing_is_recorded_for_an_item_that_is_gone(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, item: Media
) -> None:
    place = put_stream(library, item)
    library.media.delete(item)

    write = library.media._context.as_member.run
    assert write(lambda session: derivatives.record(session, of_place(place, item))) is None
    assert write(lambda session: derivatives.replace(session, of_place(place, item))) is None
    sweep_all(app)
    assert listed(storage, tenant.s3_bucket) == {}


def test_a_delete_that_waits_for_one_who_records_takes_that_along(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, item: Media, host: Host
) -> None:
    place = put_stream(library, item)
    with ThreadPoolExecutor(1) as threads:
        with library.transaction() as tx:
            made = tx.media._context.as_member.run(lambda session: derivatives.record(session, of_place(place, item)))
            assert made is not None
            deleting = threads.submit(library.media.delete, item)
            wait_for_a_lock(host)
        deleting.result()

    assert rows(host, library, "derivatives") == {}
    app.maintenance.remove_deleted()
    assert listed(storage, tenant.s3_bucket) == {}


def test_damage_is_found_and_removed_where_told(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, item: Media
) -> None:
    damaged, missing = (library.media.add(samples.image(color=color)) for color in ("red", "blue"))
    fine = make_stream(library, item)
    partly, gone = make_stream(library, damaged), make_stream(library, missing)
    storage.delete(tenant.s3_bucket, [f"{partly.s3_prefix}360p/segment_000.ts", gone.s3_key])

    report = app.maintenance.verify(tenant=tenant)
    assert {finding.s3_key: finding.problem for finding in report.findings} == {
        partly.s3_key: Problem.WRONG_SIZE,
        gone.s3_key: Problem.MISSING,
    }

    report = app.maintenance.verify(tenant=tenant, repair=[Repair.REMOVE_DERIVATIVES], limit=4)
    while report.next is not None:
        report = app.maintenance.verify(tenant=tenant, repair=[Repair.REMOVE_DERIVATIVES], after=report.next, limit=2)
    app.maintenance.remove_deleted()
    assert app.maintenance.verify(tenant=tenant).is_clean
    assert keys(storage, tenant) == names_of(fine)


def test_it_goes_with_its_tenant(app: Mindia, library: Library, tenant: Tenant, item: Media, host: Host) -> None:
    make_stream(library, item)
    report = delete_whole(app, tenant)

    assert report.is_complete
    assert ("derivatives", 1) in {(each.table, each.count) for each in report.rows}
    assert rows(host, library, "derivatives") == {}


def test_another_tenant_has_none_of_it(library: Library, other: Library, item: Media) -> None:
    make_stream(library, item)
    stolen = attrs.evolve(item, tenant_id=other.tenant_id)

    assert recorded(other, stolen) == []
    assert (
        other.media._context.as_member.run(
            lambda session: derivatives.remove_by_id(session, other.tenant_id, [UUID(int=1)])
        )
        == set()
    )
    assert len(recorded(library, item)) == 1
