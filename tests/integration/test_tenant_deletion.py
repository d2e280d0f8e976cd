"""A tenant that is deleted is refused at once, and then nothing of it stays, whatever is under way meanwhile."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any

import attrs
import psycopg
import pytest
from psycopg import sql
from tests.conftest import Roles
from tests.integration.deleted_tenants import AT_ONCE, contents, delete_whole, fill, remove
from tests.integration.library_calls import CALLS, SETTINGS, Known
from tests.integration.media_rows import Host
from tests.integration.processes import wait_until
from tests.integration.shared_bytes import multiplied
from tests.integration.tenant_rows import TenantRows, owned_tables

import mindia
from mindia import (
    Library,
    LocalStorage,
    MediaLimits,
    MemoryStorage,
    Mindia,
    Quota,
    Tenant,
    TenantDeletionProgress,
    TenantDeletionReport,
    TenantStatus,
)
from mindia.errors import (
    BucketNotEmptyError,
    InvalidError,
    NotFoundError,
    StorageUnavailableError,
    TenantInactiveError,
)
from mindia.repositories import tenant_deletion as repository
from mindia.services import tenant_deletion as service
from mindia.storage.base import StoredObject
from mindia.testing import samples
from mindia.testing.storage import listed, put
from mindia.worker import housekeeping
from mindia.worker.housekeeping import Housekeeping

_WAIT_S = 30.0


@pytest.fixture
def host(database_url: str) -> Iterator[Host]:
    """A connection of the host's own, each of whose statements sees what is committed."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


# The mark


def test_every_call_for_a_deleted_tenant_is_refused_at_once(app: Mindia, library: Library, tenant: Tenant) -> None:
    known = Known.of(library)

    app.tenants.delete(tenant.id)

    assert app.tenants.get(tenant.id).status is TenantStatus.DELETED
    assert tenant.id not in {each.id for each in app.tenants.list()}
    for call in CALLS.values():
        with pytest.raises(TenantInactiveError, match=str(tenant.id)):
            call(library, known)
    with pytest.raises(TenantInactiveError), library.transaction():
        pass


def test_a_deleted_tenant_stays_deleted(app: Mindia, tenant: Tenant) -> None:
    app.tenants.delete(tenant.id)
    marked = app.tenants.get(tenant.id)
    changes: list[Callable[[], object]] = [
        lambda: app.tenants.reactivate(tenant.id),
        lambda: app.tenants.suspend(tenant.id),
        lambda: app.tenants.rename(tenant.id, "Acme again"),
        lambda: app.tenants.set_limits(tenant.id, MediaLimits(max_image_bytes=1)),
        lambda: app.tenants.set_quota(tenant.id, Quota(max_items=1)),
    ]

    for change in changes:
        with pytest.raises(NotFoundError, match=str(tenant.id)):
            change()
    app.tenants.delete(tenant.id)

    assert app.tenants.get(tenant.id) == marked


def test_a_suspended_tenant_can_be_deleted(app: Mindia, tenant: Tenant) -> None:
    app.tenants.suspend(tenant.id)

    assert delete_whole(app, tenant).is_complete


def test_a_tenant_that_is_not_there_cannot_be_deleted(app: Mindia, tenant: Tenant) -> None:
    assert delete_whole(app, tenant).is_complete
    for call in (app.tenants.delete, app.tenants.get):
        with pytest.raises(NotFoundError, match=str(tenant.id)):
            call(tenant.id)


def test_a_tenant_is_deleted_by_a_transaction_or_not_at_all(app: Mindia, library: Library, tenant: Tenant) -> None:
    item = library.media.add(samples.image())

    class Undone(Exception):  # noqa: N818 - what happens
        pass

    with suppress(Undone), app.transaction() as tx:
        tx.tenants.delete(tenant.id)
        with pytest.raises(TenantInactiveError):
            tx.library(tenant).media.get(item.id)
        assert not [each for each in app.maintenance.remove_deleted_tenants() if each.tenant_id == tenant.id]
        raise Undone
    assert library.media.get(item.id) == item

    with app.transaction() as tx:
        tx.tenants.delete(tenant.id)
    with pytest.raises(TenantInactiveError):
        library.media.get(item.id)


# The removal


def test_nothing_of_a_deleted_tenant_stays_and_the_others_stay_as_they_are(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    globex = app.tenants.create("Globex")
    for each in (tenant, globex):
        fill(host, app.library(each), storage, each)
    rows = TenantRows(host)
    all_tables = {*owned_tables(host), "tenants"}
    before = rows.of(tenant.id)
    objects = contents(storage, tenant)
    others, other_objects = rows.of(globex.id), contents(storage, globex)
    assert {table for table, _ in before} == {table for table, _ in others} == all_tables

    report = delete_whole(app, tenant)

    assert rows.of(tenant.id) == []
    assert not (storage.root / tenant.s3_bucket).exists()
    assert rows.of(globex.id) == others
    assert contents(storage, globex) == other_objects
    assert {each.table: each.count for each in report.rows} == Counter(table for table, _ in before)
    assert report.objects_removed == len(objects)
    assert report.bytes_removed == sum(map(len, objects.values()))
    assert report == TenantDeletionReport(
        tenant_id=tenant.id,
        rows=report.rows,
        objects_removed=report.objects_removed,
        bytes_removed=report.bytes_removed,
        is_complete=True,
    )
    assert pickle.loads(pickle.dumps(report)) == report
    assert not [each for each in app.maintenance.remove_deleted_tenants() if each.tenant_id == tenant.id]

    again = app.tenants.create("Acme", s3_bucket=tenant.s3_bucket)
    item = app.library(again).media.add(samples.image())
    assert app.library(again).media.read(item) == samples.image()
    with pytest.raises(NotFoundError):
        library.media.get(item.id)


def test_every_table_with_rows_of_tenants_is_emptied(host: Host) -> None:
    assert sorted(repository.TABLES) == owned_tables(host)


def test_no_table_is_emptied_before_those_that_refer_to_it(host: Host) -> None:
    references = host.execute(
        "select child.relname::text, parent.relname::text, r.confdeltype::text from pg_constraint r "
        "join pg_class child on child.oid = r.conrelid join pg_class parent on parent.oid = r.confrelid "
        "where r.contype = 'f' and r.connamespace = 'mindia'::regnamespace"
    ).fetchall()
    order = {table: number for number, table in enumerate([*repository.TABLES, "tenants"])}
    assert len(references) > 20

    for referring, referred, on_delete in references:
        if referring in order:
            assert order[referring] < order[referred], f"{referring} refers to {referred}"
        else:
            assert on_delete == "c", f"{referring} hangs on {referred}, and would stay"


def test_a_table_that_is_not_empty_is_seen_to_be_left(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(host, library, storage, tenant)
    app.tenants.delete(tenant.id)
    monkeypatch.setattr(service, "TABLES", ())

    report = remove(app, tenant)

    assert sorted(report.tables_left) == owned_tables(host)
    assert not report.is_complete
    assert report.rows == ()


def test_a_large_tenant_is_removed_in_small_transactions(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    item = library.media.add(samples.image())
    multiplied(host, item, 2500)
    for number in range(250):
        put(storage, tenant.s3_bucket, f"derived/{number}", b"content")
    app.tenants.delete(tenant.id)
    progress: list[TenantDeletionProgress] = []

    report = remove(app, tenant, staged_older_than=AT_ONCE, progress=progress.append)

    assert report.is_complete
    assert {each.table: each.count for each in report.rows}["images"] == 2501
    assert report.objects_removed == 251
    mine = [each for each in progress if each.tenant_id == tenant.id]
    steps = [
        (later.rows_removed - earlier.rows_removed, later.objects_removed - earlier.objects_removed)
        for earlier, later in zip([TenantDeletionProgress(tenant_id=tenant.id), *mine], mine, strict=False)
    ]
    assert max(rows for rows, _ in steps) == service.ROWS == 1000
    assert max(objects for _, objects in steps) == service.OBJECTS == 100
    assert all((rows > 0) != (objects > 0) for rows, objects in steps)
    assert mine[-1].rows_removed == report.rows_removed - 1  # the tenant itself


def test_what_progress_raises_ends_the_work_and_the_next_call_goes_on(
    app: Mindia,
    library: Library,
    tenant: Tenant,
    storage: LocalStorage,
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(host, library, storage, tenant)
    monkeypatch.setattr(service, "ROWS", 4)
    monkeypatch.setattr(service, "OBJECTS", 2)
    rows = Counter(table for table, _ in TenantRows(host).of(tenant.id))
    objects = len(contents(storage, tenant))
    app.tenants.delete(tenant.id)
    done: list[TenantDeletionProgress] = []

    def stop(progress: TenantDeletionProgress) -> None:
        done.append(progress)
        raise KeyError("of the host")

    for _ in range(100):
        try:
            report = remove(app, tenant, staged_older_than=AT_ONCE, progress=stop)
        except KeyError:
            continue
        break

    assert report.is_complete
    assert sum((Counter({row.table: row.count for row in each.rows}) for each in (*done, report)), Counter()) == rows
    assert sum(each.objects_removed for each in done) == objects
    assert len(done) > 10


def test_an_index_for_the_tenant_alone_is_reported(app: Mindia, library: Library, tenant: Tenant, host: Host) -> None:
    name = sql.Identifier(f"idx_of_{tenant.id.hex}")
    library.media.add(samples.image())
    host.execute(
        sql.SQL("create index {} on mindia.embeddings (entity_id) where tenant_id = {}").format(name, tenant.id)
    )
    try:
        report = delete_whole(app, tenant)
    finally:
        host.execute(sql.SQL("drop index mindia.{}").format(name))

    assert report.is_complete
    assert report.indexes_left == (f"idx_of_{tenant.id.hex}",)


@pytest.mark.parametrize(
    "arguments", [{"staged_older_than": timedelta(seconds=-1)}, {"max_batches": 0}, {"max_batches": -1}]
)
def test_arguments_that_make_no_sense_are_refused(app: Mindia, arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(InvalidError, match=name):
        app.maintenance.remove_deleted_tenants(**arguments)


# By workers


def test_running_until_idle_removes_deleted_tenants(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host
) -> None:
    library.media.add(samples.image())
    host.execute("delete from mindia.staged_objects where tenant_id = %s", (tenant.id,))
    app.tenants.delete(tenant.id)

    assert app.run_until_idle().objects_removed >= 1

    assert TenantRows(host).of(tenant.id) == []
    assert not (storage.root / tenant.s3_bucket).exists()


def test_a_worker_removes_a_large_tenant_part_by_part_and_does_its_other_work_in_between(
    application_url: str,
    roles: Roles,
    storage: LocalStorage,
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker, maintenance=timedelta(hours=1))
    with mindia.connect(application_url, storage=storage, settings=settings) as app:
        app.maintenance.remove_deleted_tenants(staged_older_than=AT_ONCE)
        tenant = app.tenants.create("Acme")
        multiplied(host, app.library(tenant).media.add(samples.image()), 40)
        host.execute("delete from mindia.staged_objects where tenant_id = %s", (tenant.id,))
        app.tenants.delete(tenant.id)
        monkeypatch.setattr(service, "ROWS", 10)
        monkeypatch.setattr(housekeeping, "_BATCHES_OF_TENANTS", 1)
        monkeypatch.setattr(housekeeping, "_TICK_S", 0.01)
        parts: list[int] = []
        fired_after: set[int] = set()
        remove_deleted = app.maintenance.remove_deleted_tenants

        def remove_part(**arguments: Any) -> Sequence[TenantDeletionReport]:
            parts.append(1)
            return remove_deleted(**arguments)

        def fire(_: Housekeeping) -> None:
            fired_after.add(len(parts))

        monkeypatch.setattr(app.maintenance, "remove_deleted_tenants", remove_part)
        monkeypatch.setattr(Housekeeping, "fire", fire)
        worker = app.worker()

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(worker.run)
            try:
                wait_until(lambda: not TenantRows(host).of(tenant.id))
            finally:
                worker.stop()
            report = running.result(_WAIT_S)

    assert report.objects_removed == 1
    assert len(fired_after) >= 8, "periodic tasks were fired after each part"


# An object store that fails


class Failing(MemoryStorage):
    """Fails for as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.fails_at = ""

    def _fail(self, what: str) -> None:
        if self.error is not None and what == self.fails_at:
            raise self.error

    def list(self, bucket: str, *, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        self._fail("list")
        yield from super().list(bucket, prefix=prefix, after=after)

    def delete(self, bucket: str, keys: Any) -> None:
        self._fail("delete")
        super().delete(bucket, keys)

    def delete_bucket(self, bucket: str) -> None:
        self._fail("delete_bucket")
        super().delete_bucket(bucket)


@pytest.mark.parametrize("fails_at", ["list", "delete", "delete_bucket"])
@pytest.mark.parametrize("error", [StorageUnavailableError("later"), RuntimeError("nul \0 and half \ud800"), OSError()])
def test_a_store_that_fails_keeps_the_tenant_and_is_tried_again(
    application_url: str,
    roles: Roles,
    host: Host,
    caplog: pytest.LogCaptureFixture,
    fails_at: str,
    error: Exception,
) -> None:
    storage = Failing()
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker)
    with mindia.connect(application_url, storage=storage, settings=settings) as app:
        tenant = app.tenants.create("Acme")
        app.library(tenant).media.add(samples.image())
        app.tenants.delete(tenant.id)
        storage.error, storage.fails_at = error, fails_at

        with caplog.at_level(logging.WARNING, "mindia.maintenance"):
            report = remove(app, tenant, staged_older_than=AT_ONCE)
        assert (report.is_complete, report.error, report.tables_left) == (False, error, ())
        assert tenant.s3_bucket in caplog.text
        assert [table for table, _ in TenantRows(host).of(tenant.id)] == ["tenants"]

        storage.error = None
        assert remove(app, tenant).is_complete
        assert listed(storage, tenant.s3_bucket) == {}


def test_a_bucket_that_cannot_be_removed_is_not_in_the_way_of_other_tenants(
    app: Mindia, tenant: Tenant, storage: LocalStorage, caplog: pytest.LogCaptureFixture
) -> None:
    globex = app.tenants.create("Globex")
    for each in (tenant, globex):
        app.library(each).media.add(samples.image())
        app.tenants.delete(each.id)
    (storage.root / tenant.s3_bucket / "link").symlink_to(storage.root)  # is no object, and not ours to remove

    with caplog.at_level(logging.CRITICAL, "mindia.maintenance"):
        reports = {
            report.tenant_id: report for report in app.maintenance.remove_deleted_tenants(staged_older_than=AT_ONCE)
        }

    assert isinstance(reports[tenant.id].error, BucketNotEmptyError)
    assert not reports[tenant.id].is_complete
    assert reports[globex.id].is_complete
    (storage.root / tenant.s3_bucket / "link").unlink()
    assert remove(app, tenant).is_complete
