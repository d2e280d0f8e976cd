"""Row-level security as PostgreSQL carries it out: for statements of whatever origin, as the application's role."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import attrs
import psycopg
import pytest
from psycopg import sql
from psycopg.rows import scalar_row
from tests.conftest import Roles
from tests.integration.library_calls import SETTINGS
from tests.integration.media_rows import Host
from tests.integration.tenant_rows import a_row_of_every_table, owned_tables

import mindia
from mindia import Library, LocalStorage

IS_OURS = "tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid"

NOT_OF_TENANTS = {
    "database_roles": "which roles there are",
    "schema_migrations": "what was applied",
    "task_rates": "how much of its rate a type of task has left; the application has no right on it",
    "task_schedules": "which ticks have been fired; the application has no right on it",
    "workers": "who works; the application may read it",
}

REFUSES = {
    "search_words": "select entity_id from mindia.search_words(%s, 'b | c | d', null)",
    "items_with_metadata": "select unnest(mindia.items_with_metadata(%s, '{}', 1000))",
}
"""Functions with the rights of the owner that refuse a tenant other than that of the transaction; a call of each."""

OUT_OF_REACH = {"tenants", "quotas"}
"""Tables whose rows the application may read, lock and count up, and no more."""


def values(connection: Host, query: str, *parameters: object) -> list[Any]:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


def bind(connection: Host, tenant_id: UUID | str) -> None:
    connection.execute("select set_config('mindia.tenant_id', %s, true)", (str(tenant_id),))


@attrs.frozen
class Pair:
    """Two tenants that have a row in every table."""

    ours: Library
    theirs: Library


@pytest.fixture(scope="module")
def pair(application_url: str, database_url: str, roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    storage = LocalStorage(tmp_path_factory.mktemp("objects"))
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker)
    with (
        mindia.connect(application_url, storage=storage, settings=settings) as app,
        psycopg.connect(database_url) as owner,
    ):
        pair = Pair(app.library(app.tenants.create("Acme")), app.library(app.tenants.create("Globex")))
        for library in (pair.ours, pair.theirs):
            a_row_of_every_table(owner, library)
    return pair


@pytest.fixture
def application(application_url: str) -> Iterator[Host]:
    """A connection as the application's role, in a transaction that is rolled back."""
    with psycopg.connect(application_url) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def tables(host: Host) -> list[str]:
    return owned_tables(host)


# What the catalogue says.


def test_every_table_is_of_tenants_or_known_not_to_be(host: Host, tables: list[str]) -> None:
    every = values(
        host, "select relname::text from pg_class where relnamespace = 'mindia'::regnamespace and relkind = 'r'"
    )

    assert set(every) == {*tables, "tenants", *NOT_OF_TENANTS}


def test_every_table_of_tenants_has_row_security_with_one_policy_for_all_and_one_for_workers(
    host: Host, tables: list[str], roles: Roles, pair: Pair
) -> None:
    assert pair  # so that roles have been granted
    secured = values(
        host, "select relname::text from pg_class where relnamespace = 'mindia'::regnamespace and relrowsecurity"
    )
    policies = host.execute(
        "select tablename, policyname, permissive, roles, cmd, qual, with_check from pg_policies "
        "where schemaname = 'mindia' order by tablename, policyname"
    ).fetchall()

    assert sorted(secured) == sorted([*tables, "tenants"])
    found = {(table, name): rest for table, name, *rest in policies}
    assert found.keys() == {(table, name) for table in secured for name in ("tenant_isolation", "across_tenants")}
    for table in secured:
        permissive, of_roles, command, using, check = found[table, "tenant_isolation"]
        assert (permissive, of_roles, command) == ("PERMISSIVE", ["public"], "ALL"), table
        if table == "tenants":
            assert (_plain(using), check) == (_plain(IS_OURS.removeprefix("tenant_")), None)
        else:
            assert _plain(using) == _plain(check) == _plain(IS_OURS), table
        assert roles.worker in found[table, "across_tenants"][1]
        assert roles.application not in found[table, "across_tenants"][1]


def _plain(expression: str) -> str:
    return re.sub(r"::text|[()\s]", "", expression.lower())


def test_the_views_are_read_with_the_rights_of_who_reads_them(host: Host) -> None:
    views = host.execute(
        "select relname::text, reloptions from pg_class "
        "where relnamespace = 'mindia'::regnamespace and relkind in ('v', 'm')"
    ).fetchall()

    assert dict(views) == {"all_media": ["security_invoker=true"], "media": ["security_invoker=true"]}


def test_few_functions_run_with_the_rights_of_the_owner_and_they_have_a_search_path_of_their_own(host: Host) -> None:
    definers = host.execute(
        "select proname::text, proconfig from pg_proc where pronamespace = 'mindia'::regnamespace and prosecdef"
    ).fetchall()

    assert {name for name, _ in definers} == {"find_api_key", *REFUSES}
    for _, settings in definers:
        assert "search_path=pg_catalog, pg_temp" in settings


def test_the_application_has_the_rights_that_it_needs_and_no_more(
    host: Host, tables: list[str], roles: Roles, pair: Pair
) -> None:
    assert pair
    rights = {
        (table, right)
        for table, right in host.execute(
            "select c.relname::text, r from pg_class c, "
            "unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as r "
            "where c.relnamespace = 'mindia'::regnamespace and c.relkind in ('r', 'v') "
            "and has_table_privilege(%s, c.oid, r)",
            (roles.application,),
        )
    }
    columns = set(
        host.execute(
            "select c.relname::text, a.attname::text from pg_class c join pg_attribute a on a.attrelid = c.oid "
            "where c.relname = any(%s) and c.relnamespace = 'mindia'::regnamespace and a.attnum > 0 "
            "and has_column_privilege(%s, c.oid, a.attnum, 'update')",
            (sorted(OUT_OF_REACH), roles.application),
        )
    )

    changed = set(tables) - OUT_OF_REACH
    assert rights == {
        *((table, right) for table in changed for right in ("select", "insert", "update", "delete")),
        *((table, "select") for table in (*OUT_OF_REACH, "schema_migrations", "workers", "media", "all_media")),
    }
    assert columns == {("tenants", "updated_at"), ("quotas", "item_count"), ("quotas", "total_bytes")}


# What statements see and may do.


def test_there_is_a_row_of_every_table_to_be_found(host: Host, tables: list[str], pair: Pair) -> None:
    for table in tables:
        found = values(host, f"select distinct tenant_id from mindia.{table}")
        assert {pair.ours.tenant_id, pair.theirs.tenant_id} <= set(found), f"{table}: see a_row_of_every_table"


@pytest.mark.parametrize("setting", [None, ""], ids=["never set", "set to nothing"])
def test_without_a_tenant_there_are_no_rows_at_all(
    application: Host, tables: list[str], pair: Pair, setting: str | None
) -> None:
    assert pair
    if setting is not None:
        bind(application, setting)

    for table in (*tables, "tenants", "media", "all_media"):
        assert values(application, f"select count(*) from mindia.{table}") == [0], table
        if table in tables and table not in OUT_OF_REACH:
            assert application.execute(f"delete from mindia.{table}".encode()).rowcount == 0, table


def test_with_a_tenant_there_are_its_rows_alone(application: Host, host: Host, tables: list[str], pair: Pair) -> None:
    bind(application, pair.ours.tenant_id)

    for table in (*tables, "media", "all_media"):
        ours = values(host, f"select count(*) from mindia.{table} where tenant_id = %s", pair.ours.tenant_id)
        assert values(application, f"select distinct tenant_id from mindia.{table}") == [pair.ours.tenant_id], table
        assert values(application, f"select count(*) from mindia.{table}") == ours, table
    assert values(application, "select id from mindia.tenants") == [pair.ours.tenant_id]


def test_a_tenant_that_is_not_one_is_an_error_and_shows_nothing(application: Host, pair: Pair) -> None:
    assert pair
    bind(application, "not a uuid")

    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        application.execute("select * from mindia.images")


def test_no_row_can_be_given_to_another_tenant(application: Host, tables: list[str], pair: Pair) -> None:
    bind(application, pair.ours.tenant_id)

    for table in tables:
        with pytest.raises(psycopg.errors.InsufficientPrivilege), application.transaction():
            application.execute(f"update mindia.{table} set tenant_id = %s".encode(), (pair.theirs.tenant_id,))
    with pytest.raises(psycopg.errors.InsufficientPrivilege), application.transaction():
        application.execute("update mindia.tenants set id = %s", (uuid4(),))


def test_no_row_can_be_written_for_another_tenant(application: Host, tables: list[str], pair: Pair) -> None:
    bind(application, pair.ours.tenant_id)

    for table in tables:
        columns = values(
            application,
            "select attname::text from pg_attribute where attrelid = %s::regclass and attnum > 0 and attgenerated = '' "
            "and not attisdropped",
            f"mindia.{table}",
        )
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        insert = sql.SQL(
            "insert into mindia.{table} ({names}) select {names} from (select (jsonb_populate_record("
            "null::mindia.{table}, to_jsonb(r) || jsonb_build_object('tenant_id', %s::text))).* "
            "from mindia.{table} r) s"
        ).format(table=sql.Identifier(table), names=names)
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"row-level security|permission denied"),
            application.transaction(),
        ):
            application.execute(insert, (str(pair.theirs.tenant_id),))
    with pytest.raises(psycopg.errors.InsufficientPrivilege), application.transaction():
        application.execute("insert into mindia.tenants (name, s3_bucket, s3_region) values ('a', 'b', 'c')")


def test_a_conflict_with_a_row_of_another_tenant_neither_shows_nor_changes_it(
    application: Host, host: Host, pair: Pair
) -> None:
    (theirs,) = values(host, "select id from mindia.images where tenant_id = %s limit 1", pair.theirs.tenant_id)
    bind(application, pair.ours.tenant_id)
    with pytest.raises(psycopg.errors.InsufficientPrivilege), application.transaction():
        application.execute(
            "insert into mindia.images (id, tenant_id, filename, original_filename, s3_key, s3_url, content_type, "
            "file_size, sha256) values (%s, %s, 'a', 'a', 'a', 'a', 'image/png', 1, sha256('a')) "
            "on conflict (id) do update set filename = 'mine' returning *",
            (theirs, pair.ours.tenant_id),
        )

    assert values(host, "select filename from mindia.images where id = %s", theirs) != ["mine"]


@pytest.mark.parametrize(
    "statement",
    [
        "truncate mindia.images",
        "alter table mindia.images disable row level security",
        "alter table mindia.images no force row level security",
        "drop policy tenant_isolation on mindia.images",
        "create policy mine on mindia.images using (true)",
        "create view mindia.mine as select * from mindia.images",
        "create table mindia.mine (id int)",
        "insert into mindia.workers (id, hostname, pid) values (gen_random_uuid(), 'x', 1)",
        "update mindia.workers set is_idle = true",
        "delete from mindia.workers",
        "select * from mindia.task_rates",
        "select * from mindia.task_schedules",
        "select * from mindia.database_roles",
        "insert into mindia.schema_migrations (version, name, checksum) values (9999, 'x', 'x')",
        "select mindia.grant_role(current_user::text, 'worker')",
        "select mindia.grant_roles()",
    ],
)
def test_the_application_cannot_give_itself_more(application: Host, pair: Pair, statement: str) -> None:
    bind(application, pair.ours.tenant_id)

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        application.execute(statement.encode())


@pytest.mark.parametrize("value", ["off", "on"])
def test_to_turn_row_security_off_shows_an_error_and_no_row(application: Host, pair: Pair, value: str) -> None:
    bind(application, pair.ours.tenant_id)
    application.execute(f"set local row_security = {value}".encode())

    if value == "off":
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="would be affected by row-level security"):
            application.execute("select * from mindia.images")
    else:
        assert values(application, "select distinct tenant_id from mindia.images") == [pair.ours.tenant_id]


def test_a_function_that_is_no_leakproof_one_is_not_given_the_rows_of_others(application: Host, pair: Pair) -> None:
    """Whatever a condition raises or notes, it is asked about rows that may be seen, and no others."""
    application.execute(
        "create function pg_temp.tell(seen uuid) returns boolean language plpgsql cost 0.0000001 as "
        "$$ begin raise notice '%', seen; return true; end $$"
    )
    bind(application, pair.ours.tenant_id)
    noticed: list[str] = []
    application.add_notice_handler(lambda notice: noticed.append(notice.message_primary or ""))

    application.execute("select * from mindia.images where pg_temp.tell(tenant_id)")

    assert set(noticed) == {str(pair.ours.tenant_id)}


def test_what_counts_and_binds_does_so_within_the_tenant_alone(application: Host, host: Host, pair: Pair) -> None:
    before = host.execute("select * from mindia.quotas where tenant_id = %s", (pair.theirs.tenant_id,)).fetchone()
    bind(application, pair.ours.tenant_id)

    application.execute("select mindia.use_quota(%s, 1, 1)", (pair.theirs.tenant_id,))
    application.execute("commit")

    assert before
    host.rollback()
    after = host.execute("select * from mindia.quotas where tenant_id = %s", (pair.theirs.tenant_id,)).fetchone()
    assert after == before


@pytest.mark.parametrize("call", REFUSES.values(), ids=REFUSES)
def test_a_function_with_the_rights_of_the_owner_finds_what_is_the_tenants_and_refuses_another_one(
    application: Host, host: Host, pair: Pair, call: str
) -> None:
    """Whatever is in its arguments: the tenant is that of the transaction."""
    texts = "select entity_id from mindia.search_documents where tenant_id = %s"
    for tenant in (pair.ours.tenant_id, pair.theirs.tenant_id):
        for bound in (None, "", pair.ours.tenant_id, pair.theirs.tenant_id):
            with application.transaction(force_rollback=True):
                if bound is not None:
                    bind(application, bound)
                if bound == tenant:
                    found = values(application, call, tenant)
                    assert found
                    assert set(found) <= set(values(host, texts, tenant))
                else:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="is not that of the transaction"):
                        application.execute(call.encode(), (tenant,))
    assert values(application, call, None) == []


@pytest.mark.parametrize("role", ["viewer", "member", "admin"])
def test_binding_to_a_tenant_with_a_user_of_another_one_is_denied(
    application: Host, host: Host, pair: Pair, role: str
) -> None:
    (admin,) = values(host, "select id from mindia.users where tenant_id = %s limit 1", pair.theirs.tenant_id)
    with pytest.raises(psycopg.Error) as caught:
        application.execute(
            "select mindia.set_initiator(%s, %s, %s::mindia.user_role)", (pair.ours.tenant_id, admin, role)
        )
    assert caught.value.sqlstate == "MI003"


def test_an_api_key_is_looked_up_by_its_prefix_whosever_it_is_and_by_nothing_else(
    application: Host, host: Host, pair: Pair
) -> None:
    (prefix,) = values(host, "select prefix from mindia.api_keys where tenant_id = %s limit 1", pair.theirs.tenant_id)
    assert values(application, "select tenant_id from mindia.find_api_key(%s)", prefix) == [pair.theirs.tenant_id]
    for pattern in ("%", "", prefix[:-1], f"{prefix[:-1]}_", None):
        assert values(application, "select tenant_id from mindia.find_api_key(%s)", pattern) == []
    assert values(application, "select count(*) from mindia.api_keys") == [0]
