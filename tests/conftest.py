"""One PostgreSQL server for all tests: the embedded one, or the one that MINDIA_TEST_DATABASE_URL names.

And one S3 server for those that want it: see `tests.s3.fixtures`.
"""

from __future__ import annotations

import gc
import os
import uuid
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import hypothesis
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.integration.library_calls import SETTINGS
from tests.s3.fixtures import pytest_report_header, pytest_terminal_summary, s3_server

import mindia
from mindia import Library, LocalStorage, Mindia, Settings, Tenant
from mindia.db.embedded import EmbeddedServer
from mindia.db.roles import set_up
from mindia.errors import ClosedError
from mindia.media.isolation import ParserPool
from mindia.media.probe import Prober

_UNSHARED = mindia.app._prober

__all__ = ["pytest_report_header", "pytest_terminal_summary", "s3_server"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let half characters that a test has logged not break the report, which goes from one process to another."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "replace").decode()) for name, text in report.sections]
    return report


def pytest_configure() -> None:
    """Have no property be wrong for the time that an example takes."""
    hypothesis.settings.register_profile("mindia", deadline=None)
    hypothesis.settings.load_profile("mindia")


def pytest_collection_finish() -> None:
    """Keep the collector of garbage off what has been imported by now, which stays: looking at it takes long."""
    gc.collect()
    gc.freeze()


class _SharedParsers(ParserPool):
    """The parsers of one application, whose children others use as well."""

    def __init__(self, pool: ParserPool) -> None:
        super().__init__(Settings())
        self._pool = pool

    def _begin(self, *args: Any, **options: Any) -> Any:
        if self._closed:
            raise ClosedError("this application is closed")
        return self._pool._begin(*args, **options)


@pytest.fixture(scope="session", autouse=True)
def _parsers() -> Iterator[None]:
    """Let the applications of all tests share their parsers: starting children takes longer than most tests."""
    default = Settings()

    def shared(settings: Settings) -> Prober:
        is_usual = settings.isolate_parsers and all(
            getattr(settings, name) == getattr(default, name)
            for name in ("parser_processes", "parser_timeout", "parser_memory_bytes")
        )
        return _SharedParsers(pool) if is_usual else _UNSHARED(settings)

    with closing(ParserPool(default)) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(mindia.app, "_prober", shared)
        yield


@contextmanager
def own_parsers() -> Iterator[None]:
    """Give applications parsers of their own, as they have elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mindia.app, "_prober", _UNSHARED)
        yield


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server, as one who may make databases."""
    if url := os.environ.get("MINDIA_TEST_DATABASE_URL"):
        yield url
        return
    server = EmbeddedServer(tmp_path_factory.mktemp("server"))
    try:
        url = server.start()
        with psycopg.connect(url, autocommit=True) as connection:
            # No test pulls the plug: what is written need not reach the disk before the next one begins.
            connection.execute("alter system set fsync = off")
            connection.execute("alter system set full_page_writes = off")
            connection.execute("select pg_reload_conf()")
        yield url
    finally:
        server.close()


@attrs.frozen
class Roles:
    """The roles that an application of the tests logs in as, and takes on to go across tenants."""

    application: str
    worker: str


@pytest.fixture(scope="session")
def roles(server_url: str) -> Iterator[Roles]:
    """Names of roles, which are dropped after the databases that know them."""
    suffix = uuid.uuid4().hex[:12]
    roles = Roles(f"mindia_app_{suffix}", f"mindia_worker_{suffix}")
    yield roles
    with psycopg.connect(server_url, autocommit=True) as connection:
        for name in (roles.application, roles.worker):
            connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def application_url(database_url: str, roles: Roles) -> str:
    """The database that the tests share, as a role that row-level security holds to one tenant."""
    return as_application(database_url, roles)


def as_application(url: str, roles: Roles) -> str:
    """Give the roles what they need on a database, and return it as the application's role."""
    with psycopg.connect(url, autocommit=True) as connection:
        set_up(connection, application=roles.application, worker=roles.worker)
        if password := conninfo_to_dict(url).get("password"):
            connection.execute(
                sql.SQL("alter role {} password {}").format(sql.Identifier(roles.application), sql.Literal(password))
            )
    return make_conninfo(url, user=roles.application)


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """The name of a database with Mindia's tables and nothing in them, which others are copies of."""
    with database(server_url) as url:
        with mindia.connect(url, storage=mindia.MemoryStorage()) as app:
            app.migrate()
        yield str(conninfo_to_dict(url)["dbname"])


@pytest.fixture(scope="session")
def database_url(server_url: str, template: str, roles: Roles) -> Iterator[str]:  # noqa: ARG001 - dropped before the roles
    """A database with Mindia's tables, shared by the tests: each makes tenants of its own."""
    with database(server_url, template=template) as url:
        yield url


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """A database without Mindia's tables, for one test."""
    with database(server_url) as url:
        yield url


@pytest.fixture
def fresh_database_url(server_url: str, template: str) -> Iterator[str]:
    """A database with Mindia's tables and nothing in them, for one test: for those that count what there is."""
    with database(server_url, template=template) as url:
        yield url


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "objects")


@pytest.fixture
def app(application_url: str, roles: Roles, storage: LocalStorage) -> Iterator[Mindia]:
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker)
    with mindia.connect(application_url, storage=storage, settings=settings) as app:
        yield app


@pytest.fixture
def tenant(app: Mindia) -> Tenant:
    return app.tenants.create("Acme")


@pytest.fixture
def library(app: Mindia, tenant: Tenant) -> Library:
    return app.library(tenant)


@pytest.fixture
def host(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A connection of the host's own."""
    with psycopg.connect(database_url) as connection:
        yield connection


@contextmanager
def database(server_url: str, *, template: str = "template1") -> Iterator[str]:
    """A database that is there for as long as the block runs: empty, or a copy of another one."""
    name = f"mindia_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        try:
            yield make_conninfo(server_url, dbname=name)
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
