"""A queue of a module's own, used as the application's role and the worker's, under row-level security."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.conftest import Roles, as_application, database
from tests.integration.queue_jobs import SETTINGS, Handler, Job, Owner

import mindia
from mindia import Library, MemoryStorage, Mindia, Settings


@pytest.fixture(scope="module")
def _queue_owner_url(server_url: str, template: str, roles: Roles) -> Iterator[str]:
    with database(server_url, template=template) as url:
        as_application(url, roles)
        yield url


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
