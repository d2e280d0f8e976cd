"""Fixtures for pytest; a host names them in its `conftest.py`: `pytest_plugins = ["mindia.testing.fixtures"]`.

Each test has an application of its own, on an empty database. The server is embedded and lasts as long as the session,
unless `MINDIA_TEST_DATABASE_URL` names one, as somebody who may make databases.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from mindia.app import Mindia, connect
from mindia.embedding.lexical import LexicalEmbedder
from mindia.library import Library
from mindia.storage.memory import MemoryStorage
from mindia.testing.clock import Clock


@pytest.fixture(scope="session")
def mindia_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server, as somebody who may make databases."""
    if url := os.environ.get("MINDIA_TEST_DATABASE_URL"):
        yield url
        return
    from mindia.db.embedded import EmbeddedServer

    server = EmbeddedServer(tmp_path_factory.mktemp("mindia"))
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="session")
def mindia_template(mindia_server: str) -> Iterator[str]:
    """The name of a database with Mindia's tables, which those of the tests are copies of."""
    name = f"mindia_template_{uuid.uuid4().hex}"
    with psycopg.connect(mindia_server, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        with connect(make_conninfo(mindia_server, dbname=name), storage=MemoryStorage()) as app:
            app.migrate()
        yield name
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def mindia_database_url(mindia_server: str, mindia_template: str) -> Iterator[str]:
    """An empty database for one test."""
    name = f"mindia_test_{uuid.uuid4().hex}"
    with psycopg.connect(mindia_server, autocommit=True) as connection:
        connection.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(mindia_template))
        )
        try:
            yield make_conninfo(mindia_server, dbname=name)
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def mindia_app(mindia_database_url: str) -> Iterator[Mindia]:
    """An application with an embedder that needs no model, objects in memory, and nothing in it.

    A host whose application has types, events or settings of its own overrides this one, and connects to
    `mindia_database_url` itself.
    """
    with connect(
        mindia_database_url,
        storage=MemoryStorage(),
        embedder=LexicalEmbedder(),
        secret_key=uuid.uuid4().hex,
    ) as app:
        yield app


@pytest.fixture
def mindia_library(mindia_app: Mindia) -> Library:
    """The library of a tenant."""
    return mindia_app.library(mindia_app.tenants.create("Test"))


@pytest.fixture
def mindia_clock(mindia_app: Mindia) -> Clock:
    """A clock that the test can move: `mindia_clock.advance(timedelta(hours=2))`."""
    return Clock(mindia_app)
