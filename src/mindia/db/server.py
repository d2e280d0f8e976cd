"""What a server must be for Mindia to work on it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from mindia.db._cursor import own_cursor
from mindia.errors import DatabaseTooOldError

if TYPE_CHECKING:
    from psycopg import Connection

MINIMUM_POSTGRESQL = 150000
"""`nulls not distinct` and `security_invoker` came with PostgreSQL 15."""

MINIMUM_PGVECTOR = (0, 8, 4)
"""Earlier releases have known faults in parallel index builds and vacuum."""

_FACTS = """
select current_setting('server_version_num')::int, current_database(),
       (select extversion from pg_extension where extname = 'vector'),
       (select quote_ident(nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace
         where e.extname = 'vector'),
       (select default_version from pg_available_extensions where name = 'vector')
"""


@attrs.frozen
class ServerFacts:
    """What a server says about itself.

    Attributes:
        postgresql: As in `server_version_num`, 180004 for 18.4.
        database: The name of the database.
        pgvector: The version of the extension in this database, or None.
        vector_schema: The schema that the extension is in, quoted where needed, or None.
        pgvector_available: The version that `create extension` would make, or None.
    """

    postgresql: int
    database: str
    pgvector: str | None
    vector_schema: str | None
    pgvector_available: str | None

    @classmethod
    def read(cls, connection: Connection[Any]) -> ServerFacts:
        """Ask the server."""
        with own_cursor(connection, cls) as cursor:
            cursor.execute(_FACTS)
            facts = cursor.fetchone()
        assert facts is not None
        return facts

    def check(self) -> None:
        """Raise where the server cannot serve Mindia.

        Raises:
            DatabaseTooOldError: PostgreSQL or pgvector is too old, or pgvector is not there.
        """
        if self.postgresql < MINIMUM_POSTGRESQL:
            raise DatabaseTooOldError(
                f"PostgreSQL is {self.postgresql // 10000}.{self.postgresql % 10000}; Mindia needs "
                f"{MINIMUM_POSTGRESQL // 10000} or newer"
            )
        wanted = ".".join(map(str, MINIMUM_PGVECTOR))
        version = self.pgvector or self.pgvector_available
        if version is None:
            raise DatabaseTooOldError(
                f"the PostgreSQL server of database {self.database!r} does not have pgvector: install {wanted} or "
                "newer on it (https://github.com/pgvector/pgvector#installation)"
            )
        if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < MINIMUM_PGVECTOR:
            way_out = (
                "run: alter extension vector update"
                if self.pgvector and self.pgvector_available not in (None, self.pgvector)
                else "update the package on the server, then run: alter extension vector update"
            )
            raise DatabaseTooOldError(f"pgvector is {version}; Mindia needs {wanted} or newer: {way_out}")
