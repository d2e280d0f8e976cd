"""Tenants: made, changed, refused when they are not active, and kept apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.integration.library_calls import CALLS, SETTINGS, Known, public_calls

import mindia
from mindia import Library, LocalStorage, Mindia, Tenant, TenantStatus
from mindia.errors import AlreadyExistsError, InvalidError, NotFoundError, TenantInactiveError
from mindia.testing import samples


def test_a_tenant_is_made_active_with_a_bucket_of_its_own(app: Mindia) -> None:
    before = datetime.now(UTC) - timedelta(minutes=5)

    acme, globex = app.tenants.create("  Acme "), app.tenants.create("Globex")

    assert acme.name == "Acme"
    assert acme.status is TenantStatus.ACTIVE
    assert acme.s3_region == "local"
    assert acme.s3_bucket != globex.s3_bucket
    assert acme.id.version == 7
    assert before < acme.created_at == acme.updated_at
    assert acme.created_at.tzinfo is UTC
    assert app.tenants.get(acme.id) == acme


def test_bucket_and_region_can_be_chosen(app: Mindia) -> None:
    bucket = f"acme.media-{uuid4().hex[:8]}"

    tenant = app.tenants.create("Acme", s3_bucket=bucket, s3_region="eu-central-1")

    assert (tenant.s3_bucket, tenant.s3_region) == (bucket, "eu-central-1")


def test_two_tenants_may_have_one_name_but_not_one_bucket(app: Mindia, tenant: Tenant) -> None:
    assert app.tenants.create(tenant.name).id != tenant.id
    with pytest.raises(AlreadyExistsError, match="another tenant uses this bucket") as caught:
        app.tenants.create("Globex", s3_bucket=tenant.s3_bucket)
    assert isinstance(caught.value.__cause__, psycopg.errors.UniqueViolation)


@pytest.mark.parametrize("name", ["", "   ", "x" * 256, "a\0b", "\ud800"])
def test_a_name_has_1_to_255_characters_that_can_be_stored(app: Mindia, tenant: Tenant, name: str) -> None:
    with pytest.raises(InvalidError, match="name"):
        app.tenants.create(name)
    with pytest.raises(InvalidError, match="name"):
        app.tenants.rename(tenant.id, name)
    assert app.tenants.get(tenant.id) == tenant


def test_a_name_may_have_255_characters_of_any_script(app: Mindia) -> None:
    name = "猫" * 255

    assert app.tenants.get(app.tenants.create(name).id).name == name


@pytest.mark.parametrize(
    "bucket", ["", "ab", "x" * 64, "Acme", "acme_media", "-acme", "acme.", "ac..me", "../etc", "a/b", "acme\n", "äcme"]
)
def test_a_bucket_is_named_as_on_s3(app: Mindia, bucket: str) -> None:
    with pytest.raises(InvalidError, match="s3_bucket"):
        app.tenants.create("Acme", s3_bucket=bucket)


def test_a_region_that_does_not_fit_is_invalid(app: Mindia) -> None:
    with pytest.raises(InvalidError):
        app.tenants.create("Acme", s3_region="x" * 51)


def test_an_unknown_tenant_is_not_found(app: Mindia) -> None:
    nobody = uuid4()
    for call in (app.tenants.get, app.tenants.suspend, app.tenants.reactivate):
        with pytest.raises(NotFoundError, match=str(nobody)):
            call(nobody)
    with pytest.raises(NotFoundError, match=str(nobody)):
        app.tenants.rename(nobody, "Nobody")


def test_renaming_changes_the_name_and_when_it_was_updated(app: Mindia, tenant: Tenant) -> None:
    renamed = app.tenants.rename(tenant.id, " Acme Media ")

    assert renamed.name == "Acme Media"
    assert renamed.updated_at > tenant.updated_at
    assert renamed.created_at == tenant.created_at
    assert app.tenants.get(tenant.id) == renamed


def test_a_suspended_tenant_is_served_again_once_reactivated(app: Mindia, library: Library, tenant: Tenant) -> None:
    item = library.media.add(samples.image())

    assert app.tenants.suspend(tenant.id).status is TenantStatus.SUSPENDED
    assert app.tenants.get(tenant.id).status is TenantStatus.SUSPENDED
    with pytest.raises(TenantInactiveError):
        library.media.get(item.id)
    assert app.tenants.reactivate(tenant.id).status is TenantStatus.ACTIVE
    assert library.media.get(item.id) == item


def test_suspending_and_reactivating_twice_changes_nothing_more(app: Mindia, tenant: Tenant) -> None:
    for change, status in (
        (app.tenants.suspend, TenantStatus.SUSPENDED),
        (app.tenants.reactivate, TenantStatus.ACTIVE),
    ):
        change(tenant.id)
        assert change(tenant.id).status is status


def test_a_deleted_tenant_is_still_shown_but_neither_listed_nor_reactivated(fresh_database_url: str) -> None:
    with mindia.connect(fresh_database_url, storage=mindia.MemoryStorage()) as app:
        kept, deleted = app.tenants.create("Kept"), app.tenants.create("Deleted")
        _mark_deleted(fresh_database_url, deleted)

        assert app.tenants.get(deleted.id).status is TenantStatus.DELETED
        assert list(app.tenants.list()) == [kept]
        for change in (app.tenants.reactivate, app.tenants.suspend):
            with pytest.raises(NotFoundError):
                change(deleted.id)
        assert app.tenants.get(deleted.id).status is TenantStatus.DELETED


def test_all_tenants_are_listed_once_and_the_oldest_first_however_many(fresh_database_url: str) -> None:
    with mindia.connect(fresh_database_url, storage=mindia.MemoryStorage()) as app:
        assert list(app.tenants.list()) == []
        first = app.tenants.create("First")
        with psycopg.connect(fresh_database_url) as connection:
            # More than two pages, with ids of a far future.
            connection.execute(
                "insert into mindia.tenants (id, name, s3_bucket, s3_region, status) "
                "select ('ffff0000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid, number::text, "
                "'bucket-' || number, 'local', case number % 3 when 0 then 'suspended' else 'active' end"
                "::mindia.tenant_status from generate_series(1, 1000) as number"
            )

        listed = list(app.tenants.list())

    assert listed[0] == first
    assert [tenant.name for tenant in listed[1:]] == [str(number) for number in range(1, 1001)]


@pytest.fixture
def known(library: Library) -> Known:
    return Known.of(library)


@pytest.fixture(params=[TenantStatus.SUSPENDED, TenantStatus.DELETED])
def inactive(request: pytest.FixtureRequest, app: Mindia, tenant: Tenant, known: Known, database_url: str) -> Known:
    if request.param is TenantStatus.SUSPENDED:
        app.tenants.suspend(tenant.id)
    else:
        _mark_deleted(database_url, tenant)
    return known


def test_every_public_call_of_a_library_is_tried_below(library: Library) -> None:
    assert set(CALLS) == public_calls(library)


def test_every_call_succeeds_for_an_active_tenant(library: Library, known: Known) -> None:
    for call in CALLS.values():
        call(library, known)


def test_every_call_is_refused_for_a_tenant_that_is_not_active(
    library: Library, tenant: Tenant, storage: LocalStorage, inactive: Known
) -> None:
    stored = list(storage.list(tenant.s3_bucket))
    for call in CALLS.values():
        with pytest.raises(TenantInactiveError, match=str(tenant.id)):
            call(library, inactive)
    with pytest.raises(TenantInactiveError):
        library.media.add(samples.image())
    assert list(storage.list(tenant.s3_bucket)) == stored


def test_every_call_is_refused_inside_a_transaction_too(
    app: Mindia, tenant: Tenant, storage: LocalStorage, inactive: Known
) -> None:
    stored = list(storage.list(tenant.s3_bucket))
    with app.transaction() as several:
        tx = several.library(tenant)
        for call in CALLS.values():
            with pytest.raises(TenantInactiveError, match=str(tenant.id)):
                call(tx, inactive)
        with pytest.raises(TenantInactiveError):
            tx.media.add(samples.image())
    assert list(storage.list(tenant.s3_bucket)) == stored


def test_a_transaction_refuses_a_tenant_that_it_has_suspended_itself(app: Mindia, tenant: Tenant, known: Known) -> None:
    with app.transaction() as tx:
        library = tx.library(tenant)
        library.media.get(known.item.id)
        tx.tenants.suspend(tenant.id)
        for call in CALLS.values():
            with pytest.raises(TenantInactiveError):
                call(library, known)
        tx.tenants.reactivate(tenant.id)
        library.media.get(known.item.id)


def test_other_tenants_are_served_while_one_is_suspended(app: Mindia, tenant: Tenant) -> None:
    other = app.library(app.tenants.create("Globex"))
    app.tenants.suspend(tenant.id)

    assert other.media.add(samples.image())


def test_every_call_for_an_unknown_tenant_is_not_found(app: Mindia, known: Known) -> None:
    nobody = uuid4()

    for call in CALLS.values():
        with pytest.raises(NotFoundError):
            call(app.library(nobody), known)
    with app.transaction() as tx:
        for call in CALLS.values():
            with pytest.raises(NotFoundError):
                call(tx.library(nobody), known)


@pytest.mark.parametrize("tenant_id", ["acme", None, 7])
def test_a_library_is_of_a_tenant_or_its_id_and_of_nothing_else(app: Mindia, tenant_id: UUID) -> None:
    with pytest.raises(InvalidError, match="tenant must be"):
        app.library(tenant_id)
    with app.transaction() as tx, pytest.raises(InvalidError, match="tenant must be"):
        tx.library(tenant_id)


def test_a_task_with_another_tenants_id_does_not_reach_its_item(fresh_database_url: str) -> None:
    with mindia.connect(fresh_database_url, storage=mindia.MemoryStorage(), settings=SETTINGS) as app:
        acme, globex = app.library(app.tenants.create("Acme")), app.library(app.tenants.create("Globex"))
        known = Known.of(acme)
        app.run_until_idle()

        CALLS["tasks.enqueue"](globex, known)
        app.run_until_idle()

        with psycopg.connect(fresh_database_url) as connection:
            (vectors,) = (
                connection.execute("select array_agg(distinct tenant_id) from mindia.embeddings").fetchone() or ()
            )
        assert vectors == [acme.tenant_id]


def test_tasks_of_the_system_and_of_a_tenant_do_not_find_each_other(
    app: Mindia, library: Library, known: Known
) -> None:
    with pytest.raises(NotFoundError, match=str(known.task.id)):
        app.tasks.get(known.task.id)
    with app.transaction() as tx, pytest.raises(NotFoundError, match=str(known.task.id)):
        tx.tasks.get(known.task.id)
    assert library.tasks.get(known.task.id) == known.task


def _mark_deleted(url: str, tenant: Tenant) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("update mindia.tenants set status = 'deleted' where id = %s", (tenant.id,))
