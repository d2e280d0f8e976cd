"""All rows of one tenant, of whichever table, and rows of every table for tests that walk them."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import attrs
import psycopg
from psycopg import sql
from psycopg.rows import scalar_row
from tests.integration.library_calls import TRANSCRIPT
from tests.integration.media_rows import four_kinds, register

from mindia import Library, UserRole
from mindia._ids import uuid7
from mindia.testing import samples

Connection = psycopg.Connection[Any]

_TABLES = """
select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
where c.relnamespace = 'mindia'::regnamespace and c.relkind = 'r' order by c.relname
"""


def owned_tables(connection: Connection) -> list[str]:
    """Return the tables whose rows belong to a tenant, as the catalogue has them."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_TABLES).fetchall()


@attrs.frozen
class TenantRows:
    """Reads all rows of a tenant, as one who sees them.

    Args:
        connection: As the owner of the tables, or a superuser.
    """

    connection: Connection
    _query: sql.Composed = attrs.field(init=False)

    @_query.default
    def _every_table(self) -> sql.Composed:
        one = sql.SQL("select {} as name, to_jsonb(r)::text from mindia.{} r where r.tenant_id = %(tenant)s")
        each = [one.format(name, sql.Identifier(name)) for name in owned_tables(self.connection)]
        tenant = sql.SQL("select 'tenants', to_jsonb(r)::text from mindia.tenants r where r.id = %(tenant)s")
        return sql.SQL("select * from ({}) as rows order by 1, 2").format(sql.SQL(" union all ").join([*each, tenant]))

    def of(self, tenant_id: UUID) -> list[tuple[str, str]]:
        """Return the name of the table and all columns, as text, of each row."""
        with self.connection.transaction(), self.connection.cursor() as cursor:
            return cursor.execute(self._query, {"tenant": tenant_id}).fetchall()


def add_user(host: Connection, library: Library, role: UserRole, *, is_active: bool = True) -> UUID:
    """Write a user of the tenant."""
    user_id = uuid7()
    with host.transaction():
        host.execute(
            "insert into mindia.users (id, tenant_id, email, password_hash, role, is_active) "
            "values (%s, %s, %s, 'x', %s::mindia.user_role, %s)",
            (user_id, library.tenant_id, f"{user_id}@example.org", role, is_active),
        )
    return user_id


def add_api_key(
    host: Connection,
    library: Library,
    role: UserRole,
    *,
    expires_at: datetime | None = None,
    revoked_at: datetime | None = None,
) -> UUID:
    """Write an API key of the tenant."""
    key_id = uuid7()
    with host.transaction():
        host.execute(
            "insert into mindia.api_keys (tenant_id, id, name, prefix, secret_hash, role, expires_at, revoked_at) "
            "values (%s, %s, 'robot', %s, %s, %s::mindia.user_role, %s, %s)",
            (
                library.tenant_id, key_id, secrets.token_hex(8), secrets.token_bytes(32), role,
                expires_at, revoked_at,
            ),
        )  # fmt: skip
    return key_id


def a_row_of_every_table(host: Connection, library: Library) -> None:
    """Write rows of the tenant into every table that belongs to one; tables that are added later need theirs here."""
    webhook_id = register(host, library, ["*"])
    items = four_kinds(library)
    library.media.copy(items[0])
    library.media.update(items[0], description="a harbour")  # words are learnt of it
    library.index.embed(items[0].id)
    library.index.set_transcript(items[2], TRANSCRIPT)
    library.media.stage(samples.image(color="teal"))
    library.media.delete(library.media.add(samples.image(color="pink")))
    add_user(host, library, UserRole.ADMIN)
    add_api_key(host, library, UserRole.ADMIN, expires_at=datetime.now(UTC) + timedelta(days=1))
    tenant = library.tenant_id
    with host.transaction():
        host.execute("insert into mindia.login_failures values (%s, 'a', 1, now())", (tenant,))
        host.execute(
            "insert into mindia.webhook_leases (tenant_id, webhook_event_id, webhook_id, token, leased_until) "
            "values (%s, 1, %s, %s, now())",
            (tenant, webhook_id, webhook_id),
        )
        host.execute("insert into mindia.webhook_states (tenant_id, webhook_id) values (%s, %s)", (tenant, webhook_id))
        host.execute("insert into mindia.vector_indexes values (%s, 7, 5, 5, 0.5)", (tenant,))
        host.execute("insert into mindia.quotas values (%s, 1000, null, 5, 5)", (tenant,))
        host.execute("insert into mindia.presets (tenant_id, name, operations) values (%s, 'card', 'blur')", (tenant,))
        host.execute(
            "insert into mindia.derivatives (tenant_id, id, source_id, operations, s3_key, content_type, file_size) "
            "select tenant_id, gen_random_uuid(), id, 'blur', 'derived/' || id, 'image/webp', 1 "
            "from mindia.images where tenant_id = %s and id = %s",
            (tenant, items[0].id),
        )
        host.execute(
            "insert into mindia.uploads (tenant_id, id, s3_bucket, filename, original_filename, max_bytes, expires_at, "
            "sweep_at) select id, gen_random_uuid(), s3_bucket, 'a', 'a', 1, now() - interval '1 hour', now() "
            "from mindia.tenants where id = %s",
            (tenant,),
        )
        host.execute(
            "insert into mindia.request_logs (tenant_id, method, path, status_code, response_time_ms) "
            "values (%s, 'GET', '/', 200, 1)",
            (tenant,),
        )
        host.execute(
            "insert into mindia.webhook_attempts (tenant_id, id, webhook_event_id, webhook_id, attempt, cause, "
            "started_at, duration_ms, outcome) "
            "select tenant_id, gen_random_uuid(), id, webhook_id, 1, 'event', now(), 1, 'delivered' "
            "from mindia.webhook_events where webhook_id = %s limit 1",
            (webhook_id,),
        )
        host.execute(
            "insert into mindia.task_errors (tenant_id, task_id, attempt, error_type, error_message) "
            "select tenant_id, id, 1, 'E', 'e' from mindia.tasks where tenant_id = %s",
            (tenant,),
        )
        host.execute(
            "insert into mindia.task_dependencies (tenant_id, task_id, depends_on_id) "
            "select tenant_id, max(id::text)::uuid, min(id::text)::uuid from mindia.tasks where tenant_id = %s "
            "group by tenant_id",
            (tenant,),
        )
