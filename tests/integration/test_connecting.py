"""`mindia.connect()`: what it refuses, what it opens and when, and what it does about a server that went away."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from tests.integration.processes import wait_until

import mindia
from mindia import Library, LocalStorage, Settings, TenantStatus
from mindia.db import _account
from mindia.db.role_facts import RoleFacts
from mindia.db.server import ServerFacts
from mindia.errors import (
    ClosedError,
    DatabaseTooOldError,
    DatabaseUnavailableError,
    InvalidError,
    MigrationDriftError,
    SchemaOutOfDateError,
    SchemaTooNewError,
)
from mindia.testing import samples

_PASSWORD = "correct-horse-battery-staple"


def test_none_is_an_error_and_not_an_embedded_database_by_surprise(storage: LocalStorage) -> None:
    with pytest.raises(InvalidError, match=r"None.*mindia\.local"):
        mindia.connect(None, storage=storage)  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("database", [5432, b"postgresql:///db", ("host", "db"), ...], ids=repr)
def test_anything_but_a_connection_string_or_a_pool_is_refused(database: Any, storage: LocalStorage) -> None:
    with pytest.raises(InvalidError, match=type(database).__name__):
        mindia.connect(database, storage=storage)


def test_an_async_pool_is_refused(storage: LocalStorage) -> None:
    pool: Any = AsyncConnectionPool("", open=False)
    with pytest.raises(InvalidError, match="AsyncConnectionPool"):
        mindia.connect(pool, storage=storage)


@pytest.mark.parametrize("wrong", [None, "./objects", LocalStorage], ids=["None", "a path", "a class"])
def test_anything_but_a_storage_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidError, match="storage must be a mindia Storage"):
        mindia.connect("", storage=wrong)


@pytest.mark.parametrize("argument", ["embedder", "describer", "settings"])
@pytest.mark.parametrize("wrong", ["text", {"a": 1}, mindia.LexicalEmbedder], ids=["text", "dict", "class"])
def test_every_part_is_checked_when_it_is_handed_in(argument: str, wrong: object, storage: LocalStorage) -> None:
    arguments: dict[str, Any] = {argument: wrong}
    with pytest.raises(InvalidError, match=f"{argument} must be a mindia"):
        mindia.connect("", storage=storage, **arguments)


def test_a_secret_key_is_taken_as_an_argument_too(storage: LocalStorage) -> None:
    with mindia.connect("", storage=storage, secret_key=_PASSWORD, settings=Settings(pool_size=3)) as app:
        assert (app.settings.secret_key, app.settings.pool_size) == (_PASSWORD, 3)


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://user:{_PASSWORD}@[::1/db",
        f"host=db password={_PASSWORD} nonsense",
        f"host=db password='{_PASSWORD}",
        f"mysql://user:{_PASSWORD}@host/db",
        f"postgresql://user:{_PASSWORD}@\udcff/db",
    ],
    ids=["open bracket", "no equals sign", "open quote", "another scheme", "not encodable"],
)
def test_a_connection_string_that_cannot_be_parsed_is_an_error_without_the_password(
    dsn: str, storage: LocalStorage
) -> None:
    with pytest.raises(InvalidError, match=r"postgresql://user@host:5432/database") as raised:
        mindia.connect(dsn, storage=storage)
    assert _PASSWORD not in _all_that_it_says(raised.value)


def test_no_handle_shows_the_password_or_the_secret_key(storage: LocalStorage) -> None:
    dsn = f"postgresql://user:{_PASSWORD}@127.0.0.1/db"
    with mindia.connect(dsn, storage=storage, secret_key=f"key-{_PASSWORD}") as app:
        library = app.library(uuid.uuid4())
        for handle in (app, app.settings, app.tenants, app.tasks, app.maintenance, library, library.media):
            assert _PASSWORD not in f"{handle!r} {handle!s}"


def test_an_unreachable_server_is_an_error_at_once(storage: LocalStorage) -> None:
    settings = Settings(pool_timeout_s=3600)  # who waited for the pool would run into the time limit of the test
    with _unused_port() as port:
        dsn = f"postgresql://user:{_PASSWORD}@127.0.0.1:{port}/db"
        with mindia.connect(dsn, storage=storage, settings=settings) as app:
            for call in (app.check, app.migrate, lambda: app.tenants.create("Acme")):
                with pytest.raises(DatabaseUnavailableError, match="cannot be reached") as raised:
                    call()
                assert type(raised.value) is DatabaseUnavailableError
                assert raised.value.retryable
                assert raised.value.http_status == 503
                assert _PASSWORD not in _all_that_it_says(raised.value)


def test_a_database_that_is_not_there_is_named(server_url: str, storage: LocalStorage) -> None:
    with (
        mindia.connect(make_conninfo(server_url, dbname="not_there"), storage=storage) as app,
        pytest.raises(DatabaseUnavailableError, match="not_there"),
    ):
        app.check()


_FIT = ServerFacts(
    postgresql=150000,
    database="db",
    pgvector="0.8.4",
    vector_schema="public",
    pgvector_available="0.8.4",
    trigram_schema=None,
    role=RoleFacts(
        name="app",
        role_setting="none",
        is_superuser=False,
        bypasses_row_security=False,
        owns_tables=True,
        has_rights_of_worker=False,
        worker_role=None,
        may_be_worker=None,
        worker_sees_all=False,
    ),
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"postgresql": 180004},
        {"pgvector": "0.8.10"},
        {"pgvector": "0.9"},
        {"pgvector": "0.10.0"},
        {"pgvector": "1.0.0"},
        {"pgvector_available": None},
        {"pgvector": None, "vector_schema": None},
    ],
    ids=str,
)
def test_a_server_that_is_new_enough_is_fit(changes: dict[str, Any]) -> None:
    attrs.evolve(_FIT, **changes).check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"postgresql": 149999}, r"PostgreSQL is 14\.9999; Mindia needs 15"),
        ({"postgresql": 140012}, r"PostgreSQL is 14\.12; Mindia needs 15"),
        ({"pgvector": None, "vector_schema": None, "pgvector_available": None}, r"'db' does not have pgvector.*github"),
        ({"pgvector": None, "pgvector_available": "0.7.4"}, r"pgvector is 0\.7\.4; Mindia needs 0\.8\.4"),
        ({"pgvector": "0.8.3", "pgvector_available": "0.8.3"}, r"0\.8\.3.*update the package on the server"),
        ({"pgvector": "0.8"}, r"pgvector is 0\.8; Mindia needs"),
        ({"pgvector": "0.8.1"}, r"pgvector is 0\.8\.1; .* or newer: run: alter extension vector update$"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_server_that_is_too_old_is_refused_and_told_what_to_do(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatabaseTooOldError, match=message) as raised:
        attrs.evolve(_FIT, **changes).check()
    assert not raised.value.retryable


def test_a_server_without_pgvector_is_refused_and_left_as_it_was(server_url: str, storage: LocalStorage) -> None:
    with _server_without_pgvector() as url:
        if url is None:
            # No such server on this machine: then at least what a real one says of itself, less pgvector.
            with psycopg.connect(server_url) as connection:
                facts = attrs.evolve(
                    ServerFacts.read(connection, worker_role=None), pgvector=None, pgvector_available=None
                )
            with pytest.raises(DatabaseTooOldError, match="does not have pgvector"):
                facts.check()
            return
        with mindia.connect(url, storage=storage) as app:
            for call in (app.check, app.migrate, app.migration_script, lambda: app.tenants.create("Acme")):
                with pytest.raises(DatabaseTooOldError, match="does not have pgvector"):
                    call()
        with psycopg.connect(url) as connection:
            assert connection.execute("select to_regnamespace('mindia')").fetchone() == (None,)


def test_a_missing_schema_is_an_error_that_names_the_way_out_and_nothing_is_migrated_unasked(
    empty_database_url: str, storage: LocalStorage
) -> None:
    with mindia.connect(empty_database_url, storage=storage) as app:
        for call in (app.check, lambda: app.tenants.create("Acme"), lambda: app.library(uuid.uuid4()).media.find()):
            with pytest.raises(SchemaOutOfDateError, match=r"0001_foundation.*app\.migrate\(\)"):
                call()
        with psycopg.connect(empty_database_url) as connection:
            assert connection.execute("select to_regnamespace('mindia')").fetchone() == (None,)

        app.migrate()

        assert app.pending_migrations() == []
        assert app.tenants.create("Acme").status is TenantStatus.ACTIVE


def test_a_schema_that_lacks_a_migration_is_out_of_date(fresh_database_url: str, storage: LocalStorage) -> None:
    _execute(fresh_database_url, "delete from mindia.schema_migrations where version = 1")
    with (
        mindia.connect(fresh_database_url, storage=storage) as app,
        pytest.raises(SchemaOutOfDateError, match=r"lacks the migrations.*0001_foundation") as raised,
    ):
        app.check()
    assert not raised.value.retryable


def test_a_schema_of_a_newer_version_is_refused(fresh_database_url: str, storage: LocalStorage) -> None:
    _execute(
        fresh_database_url,
        "insert into mindia.schema_migrations (version, name, checksum) values (9999, 'of_tomorrow', 'x')",
    )
    with mindia.connect(fresh_database_url, storage=storage) as app:
        for call in (app.check, app.migrate, lambda: app.tenants.create("Acme")):
            with pytest.raises(SchemaTooNewError, match=r"9999.*update the mindia package"):
                call()


def test_a_schema_that_was_made_from_other_files_is_refused(fresh_database_url: str, storage: LocalStorage) -> None:
    _execute(fresh_database_url, "update mindia.schema_migrations set checksum = 'ba5eba11' where version = 1")
    with mindia.connect(fresh_database_url, storage=storage) as app:
        for call in (app.check, app.migrate, lambda: app.tenants.create("Acme")):
            with pytest.raises(MigrationDriftError, match=r"0001_foundation.*ba5eba11"):
                call()


def test_nothing_is_opened_before_first_use(database_url: str, storage: LocalStorage) -> None:
    url, name = _named(database_url)
    threads = threading.enumerate()

    with mindia.connect(url, storage=storage) as app:
        app.library(uuid.uuid4())
        assert threading.enumerate() == threads
        assert _backends(database_url, name) == set()

        app.tenants.create("Acme")
        assert _backends(database_url, name)

    wait_until(lambda: not _backends(database_url, name))
    assert threading.enumerate() == threads


def test_a_pool_that_was_handed_in_is_used_and_left_open(database_url: str, storage: LocalStorage) -> None:
    url, name = _named(database_url)
    with _pool(url, max_size=1, kwargs={"row_factory": dict_row}) as pool:
        with mindia.connect(pool, storage=storage) as app:
            library = app.library(app.tenants.create("Acme"))
            with library.transaction() as tx:
                assert tx.media.find().items == ()
                with pytest.raises(psycopg.OperationalError, match="couldn't get a connection"):
                    pool.getconn(timeout=0.01)  # its only connection is that of the transaction

        assert not pool.closed
        with pool.connection() as connection:
            assert connection.execute("select 1 as one").fetchone() == {"one": 1}
            wait_until(lambda: _backends(database_url, name) == {connection.info.backend_pid})


def test_a_pool_that_the_host_has_closed_is_an_error_of_ours(database_url: str, storage: LocalStorage) -> None:
    with _pool(database_url) as pool:
        app = mindia.connect(pool, storage=storage)
        app.tenants.create("Acme")
    with app, pytest.raises(ClosedError, match="pool"):
        app.tenants.create("Globex")


def test_a_pool_that_the_host_has_not_opened_is_an_error_of_ours(database_url: str, storage: LocalStorage) -> None:
    pool = ConnectionPool(database_url, open=False)
    with mindia.connect(pool, storage=storage) as app, pytest.raises(ClosedError, match="not open"):
        app.tenants.create("Acme")


@pytest.mark.parametrize("handed_in", [False, True], ids=["own pool", "pool of the host"])
def test_the_next_call_just_works_after_the_server_dropped_all_connections(
    handed_in: bool, database_url: str, storage: LocalStorage
) -> None:
    url, name = _named(database_url)
    with ExitStack() as stack:
        database = stack.enter_context(_pool(url, max_size=4)) if handed_in else url
        app = stack.enter_context(mindia.connect(database, storage=storage))
        library = app.library(app.tenants.create("Acme"))
        calls: list[Callable[[], object]] = [
            lambda: library.media.add(samples.image(), filename="cat.jpg"),
            lambda: library.media.find(),
            lambda: library.search("cat"),
            lambda: app.tenants.create("Globex"),
            lambda: app.maintenance.sweep_staged(),
            lambda: app.run_until_idle(),
        ]
        for call in calls:
            _fill_pool(library, 4)
            before = _backends(database_url, name)
            assert len(before) >= 4
            _terminate(database_url, before)

            call()

            assert before.isdisjoint(_backends(database_url, name))
        assert [item.filename for item in library.media.find()] == ["cat.jpg"]


def _all_that_it_says(error: BaseException) -> str:
    """Return all texts of an error and of what it was raised from and during, shown or not."""
    said = [str(error), repr(error), repr(error.args)]
    if isinstance(error, UnicodeError):
        said.append(repr(getattr(error, "object", "")))
    said += [_all_that_it_says(other) for other in (error.__cause__, error.__context__) if other is not None]
    return "\n".join(said)


def _named(url: str) -> tuple[str, str]:
    """Return a connection string whose connections can be told from others, and their name."""
    name = f"mindia-{uuid.uuid4().hex[:12]}"
    return make_conninfo(url, application_name=name), name


def _pool(
    url: str, *, max_size: int = 2, kwargs: dict[str, Any] | None = None
) -> ConnectionPool[psycopg.Connection[Any]]:
    return ConnectionPool(url, min_size=0, max_size=max_size, kwargs=kwargs, open=True)


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())


def _backends(url: str, name: str) -> set[int]:
    with psycopg.connect(url) as connection:
        found = connection.execute("select pid from pg_stat_activity where application_name = %s", (name,))
        return {pid for (pid,) in found}


def _terminate(url: str, pids: set[int]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_terminate_backend(pid) from unnest(%s::int[]) pid", (list(pids),))
        left = "select count(*) = 0 from pg_stat_activity where pid = any(%s)"
        wait_until(lambda: connection.execute(left, (list(pids),)).fetchone() == (True,))


def _fill_pool(library: Library, size: int) -> None:
    """Have so many connections of the pool open, all idle."""
    together = threading.Barrier(size)

    def hold(_: int) -> None:
        with library.transaction():
            together.wait(30)

    with ThreadPoolExecutor(size) as threads:
        list(threads.map(hold, range(size)))


@contextmanager
def _unused_port() -> Iterator[int]:
    """Yield a port that nobody listens on, kept from others meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def _server_without_pgvector() -> Iterator[str | None]:
    """Start a PostgreSQL of this machine that has no pgvector, and yield its connection string; None without one."""
    binaries = _binaries_without_pgvector()
    if binaries is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp())
    try:
        account = _account.for_folder(folder)
        account.give(folder)
        data = folder / "data"

        def run(program: str, *arguments: str) -> None:
            command = account.command([str(binaries / program), "-D", str(data), *arguments], reach=(folder,))
            subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL)

        run("initdb", "--auth=trust", "--username=mindia", "--no-sync", "--no-locale", "--encoding=UTF8")
        run("pg_ctl", "start", "--wait", "-l", str(folder / "log"), "-o", f"-h '' -k {folder} -F")
        try:
            yield make_conninfo(host=str(folder), user="mindia", dbname="postgres")
        finally:
            run("pg_ctl", "stop", "--mode=immediate")
    finally:
        shutil.rmtree(folder)


def _binaries_without_pgvector() -> Path | None:
    """Return where the programs of such a PostgreSQL are, as Debian, Homebrew or a hand puts them."""
    candidates = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/opt/homebrew/opt").glob("postgresql*/bin")]
    if on_path := shutil.which("initdb"):
        candidates.append(Path(on_path).resolve().parent)
    for candidate in candidates:
        if not all((candidate / program).exists() for program in ("initdb", "pg_ctl", "pg_config")):
            continue
        asked = [str(candidate / "pg_config"), "--sharedir", "--version"]
        share, version = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()
        if not Path(share, "extension", "vector.control").exists() and int(version.split()[1].split(".")[0]) >= 15:
            return candidate
    return None
