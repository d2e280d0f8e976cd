"""One connection serves all tenants and both roles: nothing of a call stays on it, and no plan shows others' rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import attrs
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import scalar_row
from psycopg_pool import ConnectionPool
from tests.conftest import Roles
from tests.integration.library_calls import CALLS, SETTINGS, Known
from tests.integration.media_rows import Host, four_kinds

import mindia
from mindia import Library, LocalStorage, Media, Mindia, Tenant
from mindia.errors import NotFoundError, TenantInactiveError
from mindia.testing import samples


@attrs.frozen
class Pooled:
    """An application on a pool of the host's with one connection, which so serves every call."""

    app: Mindia
    pool: ConnectionPool[Any]

    def check_clean(self) -> None:
        """Assert that nothing of a call is left on the connection."""
        with self.pool.connection() as connection:
            check_unbound(connection)


def check_unbound(connection: Host) -> None:
    row = connection.execute(
        "select coalesce(current_setting('mindia.tenant_id', true), ''), current_setting('role'), "
        "current_user = session_user, (select count(*) from mindia.tenants)"
    ).fetchone()
    assert row == ("", "none", True, 0)


@contextmanager
def pooled(url: str, storage: LocalStorage, worker_role: str, **kwargs: Any) -> Iterator[Pooled]:
    settings = attrs.evolve(SETTINGS, worker_role=worker_role)
    with (
        ConnectionPool(url, min_size=1, max_size=1, kwargs=kwargs, open=True) as pool,
        mindia.connect(pool, storage=storage, settings=settings) as app,
    ):
        yield Pooled(app, pool)


@pytest.fixture(params=[True, False], ids=["each statement commits", "the driver begins"])
def one_connection(
    request: pytest.FixtureRequest, application_url: str, storage: LocalStorage, roles: Roles
) -> Iterator[Pooled]:
    with pooled(application_url, storage, roles.worker, autocommit=request.param) as on_one:
        yield on_one


def test_no_call_leaves_its_tenant_or_its_role_on_the_connection(one_connection: Pooled) -> None:
    app = one_connection.app
    library, nobody = app.library(app.tenants.create("Acme")), app.library(uuid4())
    one_connection.check_clean()
    known = Known.of(library)

    for call in CALLS.values():
        call(library, known)
        one_connection.check_clean()
    for call in CALLS.values():
        with pytest.raises(NotFoundError):
            call(nobody, known)
        one_connection.check_clean()
    calls: list[Callable[[], object]] = [
        app.run_until_idle, app.maintenance.sweep_staged, app.maintenance.remove_expired,
        app.maintenance.remove_deleted, lambda: list(app.tenants.list()), lambda: app.tenants.get(library.tenant_id),
        lambda: app.tenants.suspend(library.tenant_id),
    ]  # fmt: skip
    for across in calls:
        across()
        one_connection.check_clean()
    with pytest.raises(NotFoundError):
        app.tenants.get(uuid4())
    one_connection.check_clean()
    with pytest.raises(TenantInactiveError):
        library.media.find()
    one_connection.check_clean()


def test_within_a_transaction_too_the_tenant_is_that_of_a_call_and_not_longer(one_connection: Pooled) -> None:
    app = one_connection.app
    library = app.library(app.tenants.create("Acme"))
    known = Known.of(library)

    with library.transaction() as tx:
        check_unbound(tx.connection)
        for call in CALLS.values():
            call(tx, known)
            check_unbound(tx.connection)
    one_connection.check_clean()


def test_a_transaction_of_two_tenants_shows_each_its_own_and_the_host_nothing(one_connection: Pooled) -> None:
    app = one_connection.app
    with app.transaction() as tx:
        check_unbound(tx.connection)
        acme, globex = (tx.library(tx.tenants.create(name)) for name in ("Acme", "Globex"))
        check_unbound(tx.connection)
        items: dict[Library, list[Media]] = {}
        for library in (acme, globex, acme, globex):
            items.setdefault(library, []).append(library.media.add(samples.image(), filename="cat.jpg"))
            check_unbound(tx.connection)
        for library in (acme, globex):
            assert set(library.media.find()) == set(items[library])
        with pytest.raises(NotFoundError):
            acme.media.delete(items[globex][0])
        check_unbound(tx.connection)
        with pytest.raises(NotFoundError):
            tx.tenants.get(uuid4())
        check_unbound(tx.connection)
    one_connection.check_clean()


def test_the_connections_apart_from_the_pool_are_left_clean_too(app: Mindia, library: Library) -> None:
    library.media.add(samples.image())
    app.run_until_idle()

    for pool in (app._database._here.pool, app._database._here.side_pool):
        assert pool is not None
        with pool.connection() as connection:
            check_unbound(connection)


def test_a_transaction_that_fails_leaves_nothing_either(one_connection: Pooled) -> None:
    app = one_connection.app
    tenant = app.tenants.create("Acme")

    def fail_in_a_statement_of_the_host() -> None:
        with app.library(tenant).transaction() as tx:
            tx.media.find()
            tx.connection.execute("select 1 / 0")

    def fail_in_a_call() -> None:
        with app.transaction() as tx:
            tx.tenants.suspend(tenant.id)
            tx.library(tenant).media.find()

    with pytest.raises(psycopg.errors.DivisionByZero):
        fail_in_a_statement_of_the_host()
    one_connection.check_clean()
    with pytest.raises(TenantInactiveError):
        fail_in_a_call()
    one_connection.check_clean()
    assert app.library(tenant).media.count() == 0


@pytest.mark.parametrize("plans", ["auto", "force_generic_plan", "force_custom_plan"])
def test_a_prepared_statement_shows_each_tenant_and_each_role_its_own(
    app: Mindia, application_url: str, roles: Roles, plans: str
) -> None:
    ours, theirs = (app.tenants.create(name).id for name in ("Acme", "Globex"))
    for tenant_id in (ours, theirs):
        app.library(tenant_id).media.add(samples.image())
    url = make_conninfo(application_url, options=f"-c plan_cache_mode={plans}")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("prepare everything as select distinct tenant_id from mindia.media")

        def seen(tenant_id: UUID | None, *, as_worker: bool = False) -> set[UUID]:
            with connection.transaction():
                if tenant_id is not None:
                    connection.execute("select set_config('mindia.tenant_id', %s, true)", (str(tenant_id),))
                if as_worker:
                    connection.execute("select set_config('role', %s, true)", (roles.worker,))
                with connection.cursor(row_factory=scalar_row) as cursor:
                    return set(cursor.execute("execute everything").fetchall())

        for _ in range(8):  # PostgreSQL goes over to one plan for all after five
            assert seen(ours) == {ours}
            assert seen(theirs) == {theirs}
            assert seen(None) == set()
            assert {ours, theirs} <= seen(None, as_worker=True)
            assert {ours, theirs} <= seen(ours, as_worker=True)


def test_statements_that_the_driver_prepares_show_each_tenant_its_own(
    application_url: str, storage: LocalStorage, roles: Roles
) -> None:
    with pooled(application_url, storage, roles.worker, autocommit=True, prepare_threshold=0) as on_one:
        app = on_one.app
        libraries = [app.library(app.tenants.create(name)) for name in ("Acme", "Globex")]
        items = {library: four_kinds(library) for library in libraries}
        app.run_until_idle()
        for _ in range(8):
            for library, other in (libraries, libraries[::-1]):
                assert set(library.media.find()) == set(items[library])
                assert library.media.get(items[library][0].id) == items[library][0]
                assert library.media.get_many([item.id for item in items[other]]) == []
                found = {result.media for result in library.search("b or c or d")}
                assert set(items[library][1:]) <= found <= set(items[library])
                app.tenants.get(other.tenant_id)
                app.maintenance.remove_deleted()
        with on_one.pool.connection() as connection:
            assert len(connection.execute("select name from pg_prepared_statements").fetchall()) > 5


def test_a_tenant_that_is_unknown_or_suspended_is_told_apart_as_before(app: Mindia, tenant: Tenant) -> None:
    """Although its row cannot be seen but through the setting."""
    with pytest.raises(NotFoundError, match="there is no tenant"):
        app.library(uuid4()).media.find()
    app.tenants.suspend(tenant.id)
    with pytest.raises(TenantInactiveError, match="suspended"):
        app.library(tenant).media.find()


@pytest.mark.parametrize("uses", range(8))
def test_a_call_that_fails_while_its_statement_is_being_prepared_is_in_no_other_ones_way(
    application_url: str, storage: LocalStorage, roles: Roles, uses: int
) -> None:
    with pooled(application_url, storage, roles.worker, autocommit=True, prepare_threshold=5) as on_one:
        app = on_one.app
        library = app.library(app.tenants.create("Acme"))
        item = library.media.add(samples.image())
        for _ in range(uses):
            assert library.media.count() == 1

        for _ in range(2):
            with pytest.raises(NotFoundError):
                app.library(uuid4()).media.count()

        assert library.media.count() == 1
        assert library.media.get(item.id) == item
