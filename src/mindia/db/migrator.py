"""Migrations: plain SQL files, applied in order, each once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import attrs
from psycopg import errors as pg

from mindia.db._cursor import own_cursor
from mindia.db.server import ServerFacts
from mindia.errors import DatabaseError, MigrationDriftError, SchemaOutOfDateError, SchemaTooNewError

if TYPE_CHECKING:
    from psycopg import Connection

_LOCK = int.from_bytes(b"mindia")
"""Key of the advisory lock: one process migrates at a time."""

_NO_TRANSACTION = "-- mindia: no transaction"
"""First line of a file whose statements cannot run in a transaction (`create index concurrently`)."""

_LEDGER = """
create schema if not exists mindia;
create table if not exists mindia.schema_migrations (
    version integer not null,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default now(),
    constraint schema_migrations_pkey primary key (version)
);
"""

_RECORD = "insert into mindia.schema_migrations (version, name, checksum) values ({}, '{}', '{}');\n"


@attrs.frozen
class Migration:
    """One file of the schema's history.

    Attributes:
        version: Its number; files are applied in this order.
        name: What it does, from its filename.
        source: Its statements, with `{vector}` for the schema of pgvector.
    """

    version: int
    name: str
    source: str = attrs.field(repr=False)

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, by which an edited one is noticed."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        """Whether the file is applied in one transaction together with its record."""
        return not self.source.startswith(_NO_TRANSACTION)

    def sql(self, *, vector_schema: str = "public") -> str:
        """Return the statements as they are run, the one that records them included."""
        statements = self.source.replace("{vector}", vector_schema)
        return statements + _RECORD.format(self.version, self.name, self.checksum)


@cache
def migrations() -> tuple[Migration, ...]:
    """Return the migrations of this version of Mindia, in order."""
    found = [
        Migration(int(match[1]), match[2], file.read_text("utf-8"))
        for file in files("mindia.db").joinpath("migrations").iterdir()
        if (match := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name))
    ]
    return tuple(sorted(found, key=lambda migration: migration.version))


def script(pending: list[Migration], *, vector_schema: str = "public") -> str:
    """Return all that `migrate` would run as one script, for a DBA to read and run."""
    parts = [_LEDGER, f"create extension if not exists vector schema {vector_schema};\n"]
    for migration in pending:
        body = migration.sql(vector_schema=vector_schema)
        parts.append(f"begin;\n{body}commit;\n" if migration.in_transaction else body)
    return "\n".join(parts).lstrip()


def pending(connection: Connection[Any]) -> list[Migration]:
    """Return the migrations that were not applied yet.

    Raises:
        SchemaTooNewError: A newer version of Mindia was here.
        MigrationDriftError: An applied migration is not the one of this version.
    """
    applied = _applied(connection)
    known = {migration.version: migration for migration in migrations()}
    newer = sorted(set(applied) - set(known))
    if newer:
        raise SchemaTooNewError(
            f"the database has migration {newer[-1]:04}, this version of Mindia knows up to {max(known):04}: "
            "update the mindia package"
        )
    for version, checksum in applied.items():
        if known[version].checksum != checksum:
            raise MigrationDriftError(
                f"migration {version:04}_{known[version].name} was applied with other content "
                f"({checksum[:12]}… there, {known[version].checksum[:12]}… in this version): "
                "use the version of Mindia that applied it, or restore the file"
            )
    return [migration for migration in migrations() if migration.version not in applied]


def check(connection: Connection[Any]) -> None:
    """Raise unless the tables are those of this version.

    Raises:
        SchemaOutOfDateError: There are migrations to apply.
        SchemaTooNewError: A newer version of Mindia was here.
        MigrationDriftError: An applied migration is not the one of this version.
    """
    missing = pending(connection)
    if missing:
        names = ", ".join(f"{migration.version:04}_{migration.name}" for migration in missing)
        raise SchemaOutOfDateError(
            f"the database lacks the migrations {names}: call app.migrate(), or have a DBA run app.migration_script()"
        )


def migrate(connection: Connection[Any]) -> list[Migration]:
    """Apply what is missing and return it. Two at once wait for each other.

    Args:
        connection: A direct one in autocommit mode: behind a transaction-pooling proxy the lock would not hold.
    """
    facts = ServerFacts.read(connection)
    facts.check()
    with _locked(connection):
        missing = pending(connection)
        if not missing:
            return []
        connection.execute(_LEDGER)
        vector_schema = facts.vector_schema or _create_vector(connection)
        for migration in missing:
            statements = migration.sql(vector_schema=vector_schema).encode()
            if migration.in_transaction:
                with connection.transaction():
                    connection.execute(statements)
            else:
                _execute_one_by_one(connection, statements.decode())
    return missing


def _execute_one_by_one(connection: Connection[Any], statements: str) -> None:
    # Several statements sent at once are one implicit transaction.
    for statement in re.split(r";\s*\n", statements):
        if statement.strip():
            connection.execute(statement.encode())


def _create_vector(connection: Connection[Any]) -> str:
    try:
        connection.execute("create extension if not exists vector schema public")
    except pg.InsufficientPrivilege as error:
        raise DatabaseError(
            "this role may not create the extension vector: have a superuser run "
            "'create extension vector' in the database, then migrate again"
        ) from error
    return "public"


def _applied(connection: Connection[Any]) -> dict[int, str]:
    with own_cursor(connection, bool) as cursor:
        cursor.execute("select to_regclass('mindia.schema_migrations') is not null")
        if not cursor.fetchone():
            return {}
    with own_cursor(connection, lambda version, checksum: (version, checksum)) as cursor:
        cursor.execute("select version, checksum from mindia.schema_migrations order by version")
        return dict(cursor.fetchall())


@contextmanager
def _locked(connection: Connection[Any]) -> Iterator[None]:
    connection.execute("select pg_advisory_lock(%s)", (_LOCK,))
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("select pg_advisory_unlock(%s)", (_LOCK,))
