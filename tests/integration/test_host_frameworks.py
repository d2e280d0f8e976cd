"""Hosts with SQLAlchemy or Django: Mindia's rows commit and roll back with theirs, on the connection that they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy
from django import setup
from django.conf import settings
from django.db import connection as django_connection
from django.db import models, transaction
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from tests.integration.host_rows import Observer, orders

from mindia import Library, Media, Mindia, Tenant
from mindia.domain.media import Metadata
from mindia.errors import NotFoundError, TransactionError
from mindia.testing import samples

METADATA: Metadata = {"place": "Łódź", "year": 2024, "tags": ["猫", None, True]}
ONE_OF_EACH = {"orders": 1, "images": 1, "search_documents": 1, "tasks": 1}


class HostError(Exception):
    """Something of the host's own."""


class Base(DeclarativeBase):
    """Tables of a host with SQLAlchemy."""


class Order(Base):
    """A row of the host's own."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture(autouse=True)
def host_table(database_url: str) -> Iterator[None]:
    with orders(database_url):
        yield


@pytest.fixture
def others(database_url: str, tenant: Tenant) -> Observer:
    return Observer(database_url, tenant)


def _use(library: Library, connection: psycopg.Connection[Any]) -> Media:
    """Do on the host's connection what its adapters and row factories could spoil."""
    with library.transaction(connection=connection) as tx:
        item = tx.media.add(samples.image(), filename="cat.jpg", metadata=METADATA)
        assert tx.media.get(item.id) == item
        assert item.metadata == METADATA
        assert [result.media for result in tx.search("cat")] == [item]
        with pytest.raises(NotFoundError):
            tx.media.get(uuid4())
    return item


# SQLAlchemy


@pytest.fixture
def engine(database_url: str) -> Iterator[sqlalchemy.Engine]:
    parameters = conninfo_to_dict(database_url)
    engine = sqlalchemy.create_engine("postgresql+psycopg://", connect_args=parameters)
    yield engine
    engine.dispose()


def _of_session(session: Session) -> psycopg.Connection[Any]:
    return _of_connection(session.connection())


def _of_connection(connection: sqlalchemy.Connection) -> psycopg.Connection[Any]:
    driver_connection = connection.connection.driver_connection
    assert isinstance(driver_connection, psycopg.Connection)
    return driver_connection


def test_a_session_of_sqlalchemy_commits_both(engine: sqlalchemy.Engine, library: Library, others: Observer) -> None:
    with Session(engine) as session:
        session.add(Order(id=1))
        session.flush()
        item = _use(library, _of_session(session))
        assert others.counts() == {}
        session.commit()

    assert others.counts() == ONE_OF_EACH
    assert library.media.get(item.id) == item


def test_a_session_of_sqlalchemy_that_begins_with_mindia_commits_both(
    engine: sqlalchemy.Engine, library: Library, others: Observer
) -> None:
    with Session(engine) as session, session.begin():
        _use(library, _of_session(session))
        session.add(Order(id=1))

    assert others.counts() == ONE_OF_EACH


def test_a_session_of_sqlalchemy_rolls_back_both(engine: sqlalchemy.Engine, library: Library, others: Observer) -> None:
    with Session(engine) as session:
        session.add(Order(id=1))
        session.flush()
        _use(library, _of_session(session))
        session.rollback()
        assert others.counts() == {}

        session.add(Order(id=1))  # the session goes on, on the same connection
        session.flush()
        _use(library, _of_session(session))
        session.commit()

    assert others.counts() == ONE_OF_EACH


def test_an_exception_in_a_session_of_sqlalchemy_takes_both_back(
    engine: sqlalchemy.Engine, library: Library, others: Observer
) -> None:
    thrown = HostError()

    def work() -> None:
        with Session(engine) as session, session.begin():
            session.add(Order(id=1))
            session.flush()
            with library.transaction(connection=_of_session(session)) as tx:
                tx.media.add(samples.image())
                raise thrown

    with pytest.raises(HostError) as caught:
        work()

    assert caught.value is thrown
    assert others.counts() == {}


def test_a_nested_transaction_of_sqlalchemy_takes_back_its_part_only(
    engine: sqlalchemy.Engine, library: Library, others: Observer
) -> None:
    with Session(engine) as session, session.begin():
        session.add(Order(id=1))
        kept = _use(library, _of_session(session))
        with session.begin_nested() as nested:
            session.add(Order(id=2))
            session.flush()
            with library.transaction(connection=_of_session(session)) as tx:
                tx.media.delete(kept)
                tx.media.add(samples.image())
            nested.rollback()

    assert others.counts() == ONE_OF_EACH
    assert library.media.get(kept.id) == kept


def test_an_error_of_sqlalchemys_own_statement_passes_through_untouched(
    engine: sqlalchemy.Engine, library: Library, others: Observer
) -> None:
    def work() -> None:
        with (
            Session(engine) as session,
            session.begin(),
            library.transaction(connection=_of_session(session)) as tx,
        ):
            tx.media.add(samples.image())
            session.execute(sqlalchemy.insert(Order).values(id=1))
            session.execute(sqlalchemy.insert(Order).values(id=1))

    with pytest.raises(sqlalchemy.exc.IntegrityError):
        work()

    assert others.counts() == {}


@pytest.mark.parametrize("commits", [True, False])
def test_a_core_connection_of_sqlalchemy_decides_over_both(
    engine: sqlalchemy.Engine, library: Library, others: Observer, commits: bool
) -> None:
    with engine.connect() as connection:
        connection.execute(sqlalchemy.insert(Order).values(id=1))
        _use(library, _of_connection(connection))
        if commits:
            connection.commit()

    assert others.counts() == (ONE_OF_EACH if commits else {})


def test_sqlalchemy_reads_its_own_types_as_before(engine: sqlalchemy.Engine, library: Library) -> None:
    query = sqlalchemy.text("select '[1, 2]'::jsonb, timestamptz '2024-02-29 12:00+01', 'text'::text, '\\x00ff'::bytea")
    with Session(engine) as session:
        before = session.execute(query).one()
        _use(library, _of_session(session))
        assert session.execute(query).one() == before


def test_sqlalchemy_in_autocommit_is_refused(engine: sqlalchemy.Engine, library: Library, others: Observer) -> None:
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(TransactionError, match="commits each statement by itself"),
    ):
        _use(library, _of_connection(connection))
    assert others.counts() == {}


def test_what_is_not_yet_the_drivers_connection_is_refused_with_the_way_to_it(
    engine: sqlalchemy.Engine, library: Library
) -> None:
    with Session(engine) as session:
        wrappers: list[Any] = [session, session.connection(), session.connection().connection]
        for wrapper in wrappers:
            with pytest.raises(TransactionError, match=r"session\.connection\(\)\.connection\.driver_connection"):
                _use(library, wrapper)


# Django


@pytest.fixture(scope="module")
def django(database_url: str) -> Iterator[Any]:
    """The model of a host with Django, whose settings are those of the process."""
    parameters = conninfo_to_dict(database_url)
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": parameters.pop("dbname"),
                "OPTIONS": parameters,
            }
        },
        USE_TZ=True,
        TIME_ZONE="Asia/Tokyo",
        LOGGING_CONFIG=None,
    )
    setup()

    class DjangoOrder(models.Model):  # type: ignore[misc]  # Django ships no types
        id = models.IntegerField(primary_key=True)

        class Meta:
            app_label = "host"
            db_table = "orders"

    yield DjangoOrder
    django_connection.close()


def test_atomic_of_django_commits_both(django: Any, library: Library, others: Observer) -> None:
    with transaction.atomic():
        django.objects.create(id=1)
        item = _use(library, django_connection.connection)
        assert others.counts() == {}

    assert others.counts() == ONE_OF_EACH
    assert library.media.get(item.id) == item


def test_atomic_of_django_that_begins_with_mindia_commits_both(django: Any, library: Library, others: Observer) -> None:
    with transaction.atomic():
        _use(library, django_connection.connection)
        django.objects.create(id=1)

    assert others.counts() == ONE_OF_EACH


def test_an_exception_in_atomic_of_django_takes_both_back(django: Any, library: Library, others: Observer) -> None:
    thrown = HostError()

    def work() -> None:
        with transaction.atomic():
            django.objects.create(id=1)
            with library.transaction(connection=django_connection.connection) as tx:
                tx.media.add(samples.image())
                raise thrown

    with pytest.raises(HostError) as caught:
        work()

    assert caught.value is thrown
    assert others.counts() == {}


def test_a_nested_atomic_of_django_takes_back_its_own_part_only(
    django: Any, library: Library, others: Observer
) -> None:
    def work(kept: Media) -> None:
        with transaction.atomic():
            django.objects.create(id=2)
            with library.transaction(connection=django_connection.connection) as tx:
                tx.media.delete(kept)
                tx.media.add(samples.image())
            raise HostError

    with transaction.atomic():
        django.objects.create(id=1)
        kept = _use(library, django_connection.connection)
        with pytest.raises(HostError):
            work(kept)

    assert others.counts() == ONE_OF_EACH
    assert library.media.get(kept.id) == kept


def test_atomic_inside_a_block_of_mindia_is_a_savepoint_of_the_same_transaction(
    django: Any, library: Library, others: Observer
) -> None:
    def fail(tx: Library) -> None:
        with transaction.atomic():
            tx.media.add(samples.image())
            raise HostError

    with transaction.atomic(), library.transaction(connection=django_connection.connection) as tx:
        tx.media.add(samples.image())
        with pytest.raises(HostError):
            fail(tx)
        django.objects.create(id=1)

    assert others.counts() == ONE_OF_EACH


def test_an_error_that_is_caught_leaves_atomic_of_django_usable(
    django: Any, app: Mindia, library: Library, others: Observer
) -> None:
    nobody = app.library(uuid4())
    with transaction.atomic():
        django.objects.create(id=1)
        # The database itself raises this one.
        with pytest.raises(NotFoundError), nobody.transaction(connection=django_connection.connection):
            pass
        assert django.objects.count() == 1
        _use(library, django_connection.connection)

    assert others.counts() == ONE_OF_EACH


@pytest.mark.usefixtures("django")
def test_django_reads_its_own_types_as_before(library: Library) -> None:
    query = "select '[1, 2]'::jsonb, timestamptz '2024-02-29 12:00+01', 'text'::text, '\\x00ff'::bytea"
    with transaction.atomic(), django_connection.cursor() as cursor:
        cursor.execute(query)
        before = cursor.fetchall()
        _use(library, django_connection.connection)
        cursor.execute(query)
        assert cursor.fetchall() == before
        assert before[0][0] == "[1, 2]"  # Django takes jsonb as text, and loads it in its own field


def test_django_outside_of_atomic_is_refused(django: Any, library: Library, others: Observer) -> None:
    django.objects.count()
    with pytest.raises(TransactionError, match=r"atomic\(\)"):
        _use(library, django_connection.connection)
    with pytest.raises(TransactionError, match=r"django\.db\.connection\.connection"):
        _use(library, django_connection)
    assert others.counts() == {}
