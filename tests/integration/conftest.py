"""A queue of a module's own, used as the application's role and the worker's, under row-level security."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import attrs
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.conftest import Roles
from tests.integration.queue_jobs import SETTINGS, Handler, Job, Owner

import mindia
from mindia import Library, MemoryStorage, Mindia, Settings
from mindia.db.roles import set_up


@pytest.fixture(scope="module")
def _queue_owner_url(server_url: str, roles: Roles) -> Iterator[str]:
    name = f"mindia_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        url = make_conninfo(server_url, dbname=name)
        with mindia.connect(url, storage=MemoryStorage()) as app:
            app.migrate()
        with psycopg.connect(url, autocommit=True) as owner:
            set_up(owner, application=roles.application, worker=roles.worker)
            if password := conninfo_to_dict(url).get("password"):
                owner.execute(
                    sql.SQL("alter role {} password {}").format(
                        sql.Identifier(roles.application), sql.Literal(password)
                    )
                )
        yield url
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def owner(_queue_owner_url: str) -> Iterator[Owner]:
    """A connection of the owner's, which sees all rows and commits each statement by itself."""
    with psycopg.connect(_queue_owner_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def queue_url(_queue_owner_url: str, owner: Owner, roles: Roles) -> str:
    """A database with nothing to do, as the application's role."""
    for table in ("tasks", "workers", "task_rates", "task_schedules"):
        owner.execute(sql.SQL("delete from mindia.{}").format(sql.Identifier(table)))
    return make_conninfo(_queue_owner_url, user=roles.application)


@pytest.fixture
def queue_settings(roles: Roles) -> Settings:
    return attrs.evolve(SETTINGS, worker_role=roles.worker)


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def queue_app(queue_url: str, queue_settings: Settings, handler: Handler) -> Iterator[Mindia]:
    with mindia.connect(queue_url, storage=MemoryStorage(), settings=queue_settings) as app:
        app.register_task("job", Job, handler)
        yield app


@pytest.fixture
def queue(queue_app: Mindia) -> Library:
    return queue_app.library(queue_app.tenants.create("Acme"))
