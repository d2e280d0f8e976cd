"""One PostgreSQL server for all tests: the embedded one, or the one that MINDIA_TEST_DATABASE_URL names."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.integration.library_calls import SETTINGS

import mindia
from mindia import Library, LocalStorage, Mindia, Tenant
from mindia.db.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server, as one who may make databases."""
    if url := os.environ.get("MINDIA_TEST_DATABASE_URL"):
        yield url
        return
    server = EmbeddedServer(tmp_path_factory.mktemp("server"))
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="session")
def database_url(server_url: str) -> Iterator[str]:
    """A database with Mindia's tables, shared by the tests: each makes tenants of its own."""
    with _database(server_url) as url:
        with mindia.connect(url, storage=mindia.MemoryStorage()) as app:
            app.migrate()
        yield url


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """A database without Mindia's tables, for one test."""
    with _database(server_url) as url:
        yield url


@pytest.fixture
def fresh_database_url(empty_database_url: str) -> str:
    """A database with Mindia's tables and nothing in them, for one test: for those that count what there is."""
    with mindia.connect(empty_database_url, storage=mindia.MemoryStorage()) as app:
        app.migrate()
    return empty_database_url


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "objects")


@pytest.fixture
def app(database_url: str, storage: LocalStorage) -> Iterator[Mindia]:
    with mindia.connect(database_url, storage=storage, settings=SETTINGS) as app:
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
def _database(server_url: str) -> Iterator[str]:
    name = f"mindia_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            yield make_conninfo(server_url, dbname=name)
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
