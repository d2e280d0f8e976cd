"""What a server must be for Mindia to work on it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from mindia.db._cursor import own_cursor
from mindia.db.role_facts import RoleFacts
from mindia.errors import DatabaseTooOldError

if TYPE_CHECKING:
    from psycopg import Connection

MINIMUM_POSTGRESQL = 150000
"""`nulls not distinct` and `security_invoker` came with PostgreSQL 15."""

MINIMUM_PGVECTOR = (0, 8, 4)
"""Earlier releases have known faults in parallel index builds and vacuum."""

# Whether a role sees the rows of all tenants: as a superuser, by a right of its own, as the owner, or by a policy.
_FACTS = """
with tables as (
    select oid, relowner from pg_class where oid = to_regclass('mindia.images')
), across as (
    select unnest(p.polroles) as member from pg_policy p join tables t on t.oid = p.polrelid
    where p.polname = 'across_tenants'
)
select current_setting('server_version_num')::int, current_database(),
       (select extversion from pg_extension where extname = 'vector'),
       (select quote_ident(nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace
         where e.extname = 'vector'),
       (select default_version from pg_available_extensions where name = 'vector'),
       (select quote_ident(nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace
         where e.extname = 'pg_trgm' and has_schema_privilege(n.oid, 'usage')),
       r.rolname, current_setting('role'), r.rolsuper, r.rolbypassrls,
       coalesce((select pg_has_role(r.oid, relowner, 'usage') from tables), false),
       coalesce((select bool_or(pg_has_role(r.oid, member, 'usage')) from across), false),
       %(worker_role)s::text,
       (select pg_has_role(r.oid, oid, case when current_setting('server_version_num')::int < 160000 then 'member'
                                            else 'set' end)
        from pg_roles where rolname = %(worker_role)s),
       coalesce((select w.rolsuper or w.rolbypassrls
                        or exists (select from tables where pg_has_role(w.oid, relowner, 'usage'))
                        or exists (select from across where pg_has_role(w.oid, member, 'usage'))
                 from pg_roles w where w.rolname = %(worker_role)s), false)
from pg_roles r
where r.rolname = current_user
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
        trigram_schema: The schema that pg_trgm is in, quoted where needed, or None where it is not there for us.
        role: The role that we are on it.
    """

    postgresql: int
    database: str
    pgvector: str | None
    vector_schema: str | None
    pgvector_available: str | None
    trigram_schema: str | None
    role: RoleFacts

    @classmethod
    def read(cls, connection: Connection[Any], *, worker_role: str | None) -> ServerFacts:
        """Ask the server."""
        with own_cursor(connection, cls._of) as cursor:
            cursor.execute(_FACTS, {"worker_role": worker_role})
            facts = cursor.fetchone()
        assert facts is not None
        return facts

    @classmethod
    def _of(
        cls,
        postgresql: int,
        database: str,
        pgvector: str | None,
        vector_schema: str | None,
        pgvector_available: str | None,
        trigram_schema: str | None,
        *role: Any,
    ) -> ServerFacts:
        return cls(postgresql, database, pgvector, vector_schema, pgvector_available, trigram_schema, RoleFacts(*role))

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
