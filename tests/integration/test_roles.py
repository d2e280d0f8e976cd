"""Roles of the server: what is granted to them, what `check()` says of ours, and what one that may not is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg_pool import ConnectionPool
from tests.integration.cluster import Cluster, empty_cluster, has_the_main_job_done
from tests.integration.library_calls import Known
from tests.integration.media_rows import Host

import mindia
from mindia import Settings
from mindia.db import migrator
from mindia.db.embedded import EmbeddedServer
from mindia.db.home import make_home
from mindia.db.migrator import Migration
from mindia.errors import DatabaseError, NotFoundError, RoleError
from mindia.testing import samples


@pytest.fixture
def empty(server_url: str) -> Iterator[Cluster]:
    with empty_cluster(server_url) as cluster:
        yield cluster


@pytest.fixture
def cluster(empty: Cluster) -> Cluster:
    empty.run("create extension vector")
    empty.set_up()
    return empty


# Whom row-level security holds.


def test_the_roles_of_the_docs_are_all_that_it_takes(cluster: Cluster) -> None:
    with cluster.app("app", worker_role="worker") as app:
        role = app.check().role
        assert (role.name, role.is_isolated, role.why_not_isolated) == (cluster.name("app"), True, None)
        assert (role.worker_role, role.may_be_worker, role.worker_sees_all) == (cluster.name("worker"), True, True)
        assert has_the_main_job_done(app)


@pytest.mark.parametrize("prepare_threshold", [None, 0, 5])
def test_prepared_statements_make_no_difference(cluster: Cluster, prepare_threshold: int | None) -> None:
    settings = Settings(worker_role=cluster.name("worker"), prepare_threshold=prepare_threshold)
    with mindia.connect(cluster.at("app"), storage=mindia.MemoryStorage(), settings=settings) as app:
        for _ in range(2):
            assert has_the_main_job_done(app)


@pytest.mark.parametrize("kwargs", [{}, {"autocommit": True}], ids=["the driver begins", "each statement commits"])
def test_a_pool_of_the_hosts_logs_in_as_the_application_does(cluster: Cluster, kwargs: dict[str, Any]) -> None:
    settings = Settings(worker_role=cluster.name("worker"))
    with (
        ConnectionPool(cluster.at("app"), min_size=0, max_size=2, kwargs=kwargs, open=True) as pool,
        mindia.connect(pool, storage=mindia.MemoryStorage(), settings=settings) as app,
    ):
        assert app.check().role.is_isolated
        assert has_the_main_job_done(app)


def _superuser(cluster: Cluster) -> None:
    cluster.create("other", "login superuser")


def _owner(cluster: Cluster) -> None:
    cluster.create("other")
    cluster.run("grant {} to {}", "owner", "other")


def _bypassing(cluster: Cluster) -> None:
    cluster.create("other", "login bypassrls")
    cluster.grant_role("other", "application")


def _inheriting(cluster: Cluster) -> None:
    cluster.create("other")
    cluster.grant_role("other", "application")
    cluster.run("grant {} to {}", "worker", "other")


def _worker(cluster: Cluster) -> None:
    cluster.create("other")
    cluster.grant_role("other", "worker")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_superuser, "is a superuser"),
        (_owner, "owns the tables"),
        (_bypassing, "has the attribute bypassrls"),
        (_inheriting, "has the rights of a worker"),
        (_worker, "has the rights of a worker"),
    ],
    ids=["superuser", "member of the owner", "bypassrls", "inherits from a worker", "worker"],
)
def test_a_role_that_row_level_security_does_not_hold_is_told_by_check(
    cluster: Cluster, make: Callable[[Cluster], None], reason: str
) -> None:
    make(cluster)
    with cluster.app("other") as app:
        role = app.check().role
        assert not role.is_isolated
        assert role.why_not_isolated is not None
        assert role.why_not_isolated.startswith(f"the role '{cluster.name('other')}' {reason}, so that")
        assert "docs/security.md" in role.why_not_isolated
    with cluster.app("worker") as app:
        app.tenants.create("Acme")
    with psycopg.connect(cluster.at("other")) as connection:
        assert connection.execute("select count(*) from mindia.tenants").fetchone() == (1,), "it sees all, indeed"


def test_the_owner_itself_is_told_too(cluster: Cluster) -> None:
    with cluster.app("owner") as app:
        assert "owns the tables" in (app.check().role.why_not_isolated or "")


def test_a_role_that_is_set_when_the_connection_begins_is_the_one_that_counts(cluster: Cluster) -> None:
    cluster.create("deploy", "login superuser")
    options = f"-c role={cluster.name('app')}"

    with cluster.app("deploy", worker_role="worker", options=options) as app:
        assert app.check().role.is_isolated
        assert app.check().role.name == cluster.name("app")
        assert has_the_main_job_done(app)
        with app.transaction() as tx:
            tx.tenants.create("Globex")
            row = tx.connection.execute("select current_user::text, count(*) from mindia.tenants").fetchone()
            assert row == (cluster.name("app"), 0), "a call across tenants has left its role"


def test_a_process_of_workers_may_log_in_as_the_worker(cluster: Cluster) -> None:
    with cluster.app("app", worker_role="worker") as app, cluster.app("worker") as workers:
        library = app.library(app.tenants.create("Acme"))
        item = library.media.add(samples.image(), filename="cat.jpg")

        assert workers.run_until_idle().completed == 1

        assert library.search("cat")[0].media == item
        assert library.search("cat")[0].vector_rank == 1


# What is granted, again and anew.


def rights(cluster: Cluster) -> list[Any]:
    """Return all rights on relations and columns, and all policies."""
    with psycopg.connect(cluster.url) as connection:
        return connection.execute(
            """
            select relname::text, relacl::text, '' from pg_class where relnamespace = 'mindia'::regnamespace
            union all
            select attrelid::regclass::text, attname::text, attacl::text from pg_attribute where attacl is not null
            union all
            select tablename::text, policyname::text, roles::text from pg_policies
            order by 1, 2, 3
            """
        ).fetchall()


def test_to_grant_a_role_again_changes_nothing(cluster: Cluster) -> None:
    before = rights(cluster)

    for _ in range(2):
        cluster.grant_role("app", "application")
        cluster.grant_role("worker", "worker")

    assert rights(cluster) == before


def test_a_worker_that_becomes_an_application_loses_its_rights_and_gets_them_back(cluster: Cluster) -> None:
    before = rights(cluster)
    with cluster.app("app", worker_role="worker") as app:
        tenant = app.tenants.create("Acme")
        app.library(tenant).media.add(samples.image())
    with psycopg.connect(cluster.at("worker"), autocommit=True) as worker:
        assert worker.execute("select count(*) from mindia.images").fetchone() == (1,)

        cluster.grant_role("worker", "application")

        assert worker.execute("select count(*) from mindia.images").fetchone() == (0,)
        for statement in ("delete from mindia.workers", "delete from mindia.tenants"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                worker.execute(statement.encode())
        cluster.grant_role("worker", "worker")
        assert worker.execute("select count(*) from mindia.images").fetchone() == (1,)
    assert rights(cluster) == before


def test_an_application_that_becomes_a_worker_sees_all(cluster: Cluster) -> None:
    cluster.grant_role("app", "worker")

    with cluster.app("app") as app:
        assert app.check().role.has_rights_of_worker
        assert has_the_main_job_done(app)


@pytest.mark.parametrize("purpose", ["reader", "", "Application"])
def test_a_role_is_of_an_application_or_of_a_worker(cluster: Cluster, purpose: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="database_roles_purpose_check"):
        cluster.grant_role("app", purpose)


def test_a_role_that_is_not_there_cannot_be_granted(cluster: Cluster) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject, match=r"there is no role mindia_test_\w+_nobody: create"):
        cluster.grant_role("nobody", "application")


def test_a_name_that_must_be_quoted_is_a_role_like_any_other(cluster: Cluster) -> None:
    for role in ('O\'Hara "app"', 'O\'Hara "worker"'):
        cluster.create(role, "login noinherit")
    cluster.run("grant {} to {}", 'O\'Hara "worker"', 'O\'Hara "app"')
    cluster.grant_role('O\'Hara "app"', "application")
    cluster.grant_role('O\'Hara "worker"', "worker")

    with cluster.app('O\'Hara "app"', worker_role='O\'Hara "worker"') as app:
        assert app.check().role.is_isolated
        assert has_the_main_job_done(app)


def test_several_applications_and_workers_may_share_the_tables(cluster: Cluster) -> None:
    for role, purpose in (("app2", "application"), ("worker2", "worker")):
        cluster.create(role, "login noinherit")
        cluster.grant_role(role, purpose)
    cluster.run("grant {} to {}", "worker2", "app2")

    for app_role, worker_role in (("app", "worker"), ("app2", "worker2")):
        with cluster.app(app_role, worker_role=worker_role) as app:
            assert app.check().role.is_isolated
            assert has_the_main_job_done(app)


def test_a_role_that_was_dropped_is_forgotten(cluster: Cluster) -> None:
    for role in ("worker", "app"):
        cluster.run("drop owned by {}", role)
        cluster.run("drop role {}", role)
    cluster.create("next", "login noinherit")
    cluster.create("next_worker", "nologin")
    cluster.run("grant {} to {}", "next_worker", "next")
    cluster.grant_role("next", "application")
    cluster.grant_role("next_worker", "worker")

    with psycopg.connect(cluster.url) as connection:
        found = connection.execute("select name from mindia.database_roles order by name").fetchall()
    assert found == [(cluster.name("next"),), (cluster.name("next_worker"),)]
    with cluster.app("next", worker_role="next_worker") as app:
        assert app.check().role.is_isolated
        assert has_the_main_job_done(app)


LATER = (
    "create table mindia.things (tenant_id uuid not null, id bigserial not null, "
    "constraint things_pkey primary key (tenant_id, id));\n"
    "create policy tenant_isolation on mindia.things "
    "using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);\n"
    "alter table mindia.things enable row level security;\n"
)


@pytest.mark.parametrize("by_script", [False, True], ids=["app.migrate()", "a DBA with the script"])
def test_tables_of_a_later_version_are_granted_when_they_are_made(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, by_script: bool
) -> None:
    own = migrator.migrations()
    monkeypatch.setattr(migrator, "migrations", lambda: (*own, Migration(len(own) + 1, "later", LATER)))

    with cluster.app("owner") as app:
        if by_script:
            with psycopg.connect(cluster.at("owner"), autocommit=True) as dba:
                dba.execute(app.migration_script().encode())
        else:
            app.migrate()

    with cluster.app("app", worker_role="worker") as app:
        tenant = app.tenants.create("Acme")
        assert app.check().role.is_isolated
    with psycopg.connect(cluster.at("app")) as connection:
        insert = "insert into mindia.things (tenant_id) values (%s)"
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"), connection.transaction():
            connection.execute(insert, (tenant.id,))
        connection.execute("select mindia.set_tenant(%s)", (tenant.id,))
        connection.execute(insert, (tenant.id,))
    for role, number in (("app", 0), ("worker", 1)):
        with psycopg.connect(cluster.at(role)) as connection:
            assert connection.execute("select count(*) from mindia.things").fetchone() == (number,)


def test_a_migration_whose_rights_cannot_be_granted_is_not_on_record_and_comes_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = migrator.migrations()
    later = Migration(len(own) + 1, "later", LATER)
    monkeypatch.setattr(migrator, "migrations", lambda: (*own, later))

    with cluster.app("owner", options="-c lock_timeout=100ms") as app, psycopg.connect(cluster.url) as blocker:
        blocker.execute("select * from mindia.images")
        with pytest.raises(DatabaseError, match="lock timeout"):
            app.migrate()
        assert app.pending_migrations() == [later]

        blocker.rollback()
        assert app.migrate() == [later]
    with psycopg.connect(cluster.at("worker")) as connection:
        assert connection.execute("select count(*) from mindia.things").fetchone() == (0,)


def test_a_database_that_is_migrated_before_there_are_roles_is_migrated_all_the_same(cluster: Cluster) -> None:
    with psycopg.connect(cluster.at("owner"), autocommit=True) as owner:
        owner.execute("delete from mindia.database_roles")
        owner.execute("select mindia.grant_roles()")
        assert owner.execute("select count(*) from pg_policies where policyname = 'across_tenants'").fetchone() == (0,)


def test_functions_that_not_everybody_may_call_are_granted_to_the_roles(cluster: Cluster) -> None:
    """Some servers take that from everybody, for all functions that are made."""
    cluster.run("revoke execute on all functions in schema mindia from public", role="owner")
    cluster.grant_role("app", "application")

    with cluster.app("app", worker_role="worker") as app:
        assert has_the_main_job_done(app)


def test_pgvector_in_a_schema_of_its_own_takes_the_right_to_use_that(empty: Cluster) -> None:
    empty.run("create schema extensions; create extension vector schema extensions")
    empty.run("grant usage on schema extensions to public")
    empty.set_up()

    with empty.app("app", worker_role="worker") as app:
        assert has_the_main_job_done(app)


# A transaction that the host has begun.


@pytest.mark.parametrize(("role", "is_held"), [("app", True), ("owner", False)])
def test_a_hosts_transaction_is_held_by_row_level_security_where_its_own_role_is(
    cluster: Cluster, role: str, is_held: bool
) -> None:
    with (
        cluster.app("app", worker_role="worker") as app,
        psycopg.connect(cluster.at(role)) as host,
    ):
        acme, globex = (app.library(app.tenants.create(name)) for name in ("Acme", "Globex"))
        known = Known.of(acme)
        with globex.transaction(connection=host) as tx:
            item = tx.media.add(samples.image(), filename="theirs.jpg")
            assert list(tx.media.find()) == [item]
            with pytest.raises(NotFoundError):
                tx.media.get(known.item.id)
            # Between calls a statement of the host's own sees no tenant, or all.
            (seen,) = host.execute("select count(*) from mindia.images").fetchone() or ()
            assert seen == (0 if is_held else 3)
        host.commit()
        assert list(globex.media.find()) == [item]
        assert acme.media.count() == 4


def test_a_hosts_transaction_of_a_role_without_rights_is_told_so(cluster: Cluster) -> None:
    cluster.create("stranger")
    with (
        cluster.app("app", worker_role="worker") as app,
        psycopg.connect(cluster.at("stranger")) as host,
    ):
        library = app.library(app.tenants.create("Acme"))
        with (
            pytest.raises(RoleError, match=r"permission denied for schema mindia; docs/security\.md"),
            library.transaction(connection=host),
        ):
            pytest.fail("a transaction was joined in which nothing may be done")


def test_a_role_that_the_host_has_taken_on_for_its_transaction_stays(cluster: Cluster) -> None:
    cluster.create("deploy", "login superuser")
    with (
        cluster.app("app", worker_role="worker") as app,
        psycopg.connect(cluster.at("deploy")) as host,
    ):
        library = app.library(app.tenants.create("Acme"))
        host.execute(sql.SQL("set local role {}").format(sql.Identifier(cluster.name("app"))))
        with library.transaction(connection=host) as tx:
            tx.media.add(samples.image())
            row = host.execute("select current_user::text, count(*) from mindia.images").fetchone()
            assert row == (cluster.name("app"), 0)


# The embedded server.


def test_an_embedded_application_is_isolated_and_may_have_tables_of_its_own(tmp_path: Path) -> None:
    with mindia.local(tmp_path / "home") as app:
        role = app.check().role
        assert (role.name, role.worker_role, role.why_not_isolated) == ("mindia_app", "mindia_worker", None)
        assert has_the_main_job_done(app)
        with app.transaction() as tx:
            tx.connection.execute("create table orders (id int)")
            tx.connection.execute("insert into orders values (1)")
    with mindia.local(tmp_path / "home") as app, app.transaction() as tx:
        assert tx.connection.execute("select * from orders").fetchall() == [(1,)]


@contextmanager
def opened_as_before_roles(home: Path) -> Iterator[Host]:
    """Open a home as versions did that knew two migrations and no roles: as the superuser."""
    make_home(home)
    server = EmbeddedServer(home)
    own = migrator.migrations()
    try:
        with pytest.MonkeyPatch.context() as patch, psycopg.connect(server.start(), autocommit=True) as connection:
            patch.setattr(migrator, "migrations", lambda: own[:2])
            patch.setattr(migrator, "_GRANTS", "")
            migrator.migrate(connection)
            yield connection
    finally:
        server.close()


def test_a_home_of_an_older_version_is_brought_up_to_date_with_all_that_is_in_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with opened_as_before_roles(home) as old:
        old.execute("insert into mindia.tenants (name, s3_bucket, s3_region) values ('Acme', 'acme', 'local')")
        old.execute(
            "insert into mindia.images (tenant_id, filename, original_filename, s3_key, s3_url, content_type, "
            "file_size, sha256) select id, 'cat.jpg', 'cat.jpg', 'k', 'u', 'image/jpeg', 1, sha256('a') "
            "from mindia.tenants"
        )
        old.execute(
            "insert into mindia.users (tenant_id, email, password_hash) select id, 'Ada@Acme.org', 'x' "
            "from mindia.tenants"
        )
        old.execute("create table public.orders (id serial)")
        old.execute("insert into public.orders default values")

    with mindia.local(home) as app:
        assert app.check().role.is_isolated
        (tenant,) = app.tenants.list()
        assert [item.filename for item in app.library(tenant).media.find()] == ["cat.jpg"]
        assert app.library(tenant).users.by_email("ada@acme.org").email == "Ada@Acme.org"
        assert has_the_main_job_done(app)
        with app.transaction() as tx:
            tx.connection.execute("insert into orders default values")
            assert tx.connection.execute("select count(*) from orders").fetchone() == (2,)


def test_a_home_is_opened_with_another_worker_role_if_it_is_named(tmp_path: Path) -> None:
    with mindia.local(tmp_path / "home") as app:
        assert has_the_main_job_done(app)
    with mindia.local(tmp_path / "home", settings=Settings(worker_role="our worker")) as app:
        assert app.check().role.worker_role == "our worker"
        assert app.check().role.is_isolated
        assert has_the_main_job_done(app)
