"""Migrations: plain SQL files, applied in order, each once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, LiteralString

import attrs
import psycopg
from psycopg import errors as pg

from mindia.db._cursor import own_cursor
from mindia.db._translate import translate
from mindia.db.server import ServerFacts
from mindia.errors import DatabaseError, MigrationDriftError, SchemaOutOfDateError, SchemaTooNewError

if TYPE_CHECKING:
    from psycopg import Connection

_LOCK = int.from_bytes(b"mindia")
"""Key of the advisory lock: one process migrates at a time."""

_NO_TRANSACTION = "-- mindia: no transaction"
"""First line of a file whose statements cannot run in a transaction (`create index concurrently`)."""

_SCHEMA = "create schema if not exists mindia;\n"

# Asked for first: `if not exists` wants the right to create a schema even where it is there.
_HAS_SCHEMA: LiteralString = "select to_regnamespace('mindia') is not null"

_EXTENSION = "create extension if not exists vector schema public;\n"

_LEDGER = """\
create table if not exists mindia.schema_migrations (
    version integer not null,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default now(),
    constraint schema_migrations_pkey primary key (version)
);
"""

_GRANTS = "select mindia.grant_roles();\n"

# Says the same where a table cannot be made with it; what has landed is not edited.
_STORAGE_IN_TABLE = 160000
_STORAGE = " storage plain"
_SET_STORAGE = "alter table mindia.embeddings alter column embedding set storage plain;\n"

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

    def __str__(self) -> str:
        return f"{self.version:04}_{self.name}"

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, by which an edited one is noticed."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        """Whether the file is applied in one transaction together with its record."""
        return not self.source.startswith(_NO_TRANSACTION)

    def sql(self, *, vector_schema: str, postgresql: int) -> str:
        """Return the statements as they are run, the one that records them included.

        Args:
            vector_schema: Where pgvector is.
            postgresql: The server's version, as in `server_version_num`.
        """
        statements = self.source.replace("{vector}", vector_schema)
        if postgresql < _STORAGE_IN_TABLE and _STORAGE in statements:
            statements = statements.replace(_STORAGE, "") + _SET_STORAGE
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
                f"migration {known[version]} was applied with other content "
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
        names = ", ".join(map(str, missing))
        raise SchemaOutOfDateError(
            f"the database lacks the migrations {names}: call app.migrate(), or have a DBA run app.migration_script()"
        )


def migrate(connection: Connection[Any]) -> list[Migration]:
    """Apply what is missing and return it. Two at once wait for each other.

    Args:
        connection: A direct one in autocommit mode: behind a transaction-pooling proxy the lock would not hold.

    Raises:
        DatabaseError: A file failed, or the role may not make what is needed.
    """
    with locked(connection):
        facts = ServerFacts.read(connection, worker_role=None)
        facts.check()
        missing = pending(connection)
        if not missing:
            return []
        vector_schema = facts.vector_schema or _create_vector(connection)
        _create_ledger(connection)
        for migration in missing:
            _apply(connection, migration, vector_schema, facts.postgresql, grants=_grants_after(migration, missing))
    return missing


def script(connection: Connection[Any]) -> str:
    """Return all that `migrate` would run, as one script for a DBA to read and run; empty where nothing is missing."""
    facts = ServerFacts.read(connection, worker_role=None)
    facts.check()
    missing = pending(connection)
    if not missing:
        return ""
    parts = [_LEDGER if _is_there(connection, _HAS_SCHEMA) else _SCHEMA + _LEDGER]
    if facts.vector_schema is None:
        parts.append(_EXTENSION)
    for migration in missing:
        body = migration.sql(
            vector_schema=facts.vector_schema or "public", postgresql=facts.postgresql
        ) + _grants_after(migration, missing)
        parts.append(f"begin;\n{body}commit;\n" if migration.in_transaction else body)
    return "\n".join(parts)


def _grants_after(migration: Migration, missing: list[Migration]) -> str:
    """Return what gives roles their rights on new tables: within the last transaction, so that its record covers it."""
    in_transaction = [each for each in missing if each.in_transaction]
    return _GRANTS if in_transaction and migration == in_transaction[-1] else ""


def _apply(
    connection: Connection[Any], migration: Migration, vector_schema: str, postgresql: int, *, grants: str
) -> None:
    statements = migration.sql(vector_schema=vector_schema, postgresql=postgresql) + grants
    try:
        if migration.in_transaction:
            with connection.transaction():
                connection.execute(statements.encode())
            return
        # Several statements sent at once would be one implicit transaction.
        for statement in re.split(r";\s*\n", statements):
            connection.execute(statement.encode())
    except psycopg.Error as error:
        failure = translate(error)
        if failure.retryable:
            raise
        kept = "nothing of it was kept" if migration.in_transaction else "what it did before that was kept"
        reason = (error.diag.message_primary or str(error)).strip()
        raise DatabaseError(f"migration {migration} failed, {kept}: {reason}") from error


def _create_vector(connection: Connection[Any]) -> str:
    try:
        connection.execute(_EXTENSION.encode())
    except (pg.InsufficientPrivilege, pg.InvalidSchemaName) as error:
        raise DatabaseError(
            f"the extension vector cannot be created ({error.diag.message_primary}): have a superuser run "
            "'create extension vector' in the database, in whichever schema, then migrate again"
        ) from error
    return "public"


def _create_ledger(connection: Connection[Any]) -> None:
    try:
        if not _is_there(connection, _HAS_SCHEMA):
            connection.execute(_SCHEMA.encode())
        connection.execute(_LEDGER.encode())
    except pg.InsufficientPrivilege as error:
        raise DatabaseError(
            f"this role may not create Mindia's tables ({error.diag.message_primary}): have the database's owner run "
            "'create schema mindia authorization <this role>', then migrate again"
        ) from error


def _applied(connection: Connection[Any]) -> dict[int, str]:
    if not _is_there(connection, "select to_regclass('mindia.schema_migrations') is not null"):
        return {}
    with own_cursor(connection, lambda version, checksum: (version, checksum)) as cursor:
        cursor.execute("select version, checksum from mindia.schema_migrations order by version")
        return dict(cursor.fetchall())


def _is_there(connection: Connection[Any], query: LiteralString) -> bool:
    with own_cursor(connection, bool) as cursor:
        cursor.execute(query)
        return bool(cursor.fetchone())


@contextmanager
def locked(connection: Connection[Any]) -> Iterator[None]:
    """Hold up others that migrate the database; on a direct connection in autocommit mode."""
    connection.execute("select pg_advisory_lock(%s)", (_LOCK,))
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("select pg_advisory_unlock(%s)", (_LOCK,))
