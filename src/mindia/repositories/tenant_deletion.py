"""Removing all rows of a tenant that is marked as deleted. A migration that adds a table adds it here."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum, auto
from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session

# Marking again waits for nobody who is removing the tenant at the moment.
_MARK = """
with marked as (
    update mindia.tenants set status = 'deleted', updated_at = now() where id = %(tenant_id)s and status <> 'deleted'
)
select true from mindia.tenants where id = %(tenant_id)s
"""

_MARKED = "select id, s3_bucket from mindia.tenants where status = 'deleted' order by updated_at, id"

# Who adds a row that refers to the tenant is let through: waiting for all of them would have no end.
_DELETED: LiteralString = "select true from mindia.tenants where id = %s and status = 'deleted'"
_LOCK: LiteralString = _DELETED + " for no key update"
_LOCK_UNLESS_HELD: LiteralString = _LOCK + " skip locked"
_LOCK_ALONE: LiteralString = _DELETED + " for update skip locked"

_IS_THERE = "select true from mindia.tenants where id = %s"

# What refers to others comes before them. They stay where some of it does, since an open transaction holds it: that is
# left for later. An array, or what is materialized, since it is made once, so that the limit holds whatever the plan.
_REMOVE: dict[str, LiteralString] = {
    "webhook_leases": """
        delete from mindia.webhook_leases where tenant_id = %(tenant_id)s and webhook_event_id = any(array(
            select webhook_event_id from mindia.webhook_leases where tenant_id = %(tenant_id)s
            limit %(limit)s for update skip locked
        ))
    """,
    "webhook_states": """
        delete from mindia.webhook_states where tenant_id = %(tenant_id)s and webhook_id = any(array(
            select webhook_id from mindia.webhook_states where tenant_id = %(tenant_id)s
            limit %(limit)s for update skip locked
        ))
    """,
    "webhook_attempts": """
        delete from mindia.webhook_attempts where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.webhook_attempts where tenant_id = %(tenant_id)s
            limit %(limit)s for update skip locked
        ))
    """,
    "webhook_events": """
        delete from mindia.webhook_events where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.webhook_events e where e.tenant_id = %(tenant_id)s and not exists (
                select from mindia.webhook_attempts a where a.tenant_id = %(tenant_id)s and a.webhook_event_id = e.id
            )
            limit %(limit)s for update of e skip locked
        ))
    """,
    "webhooks": """
        delete from mindia.webhooks where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.webhooks w where w.tenant_id = %(tenant_id)s and not exists (
                select from mindia.webhook_events e where e.tenant_id = %(tenant_id)s and e.webhook_id = w.id
            )
            limit %(limit)s for update of w skip locked
        ))
    """,
    "task_errors": """
        with chosen as materialized (
            select task_id, attempt from mindia.task_errors where tenant_id = %(tenant_id)s
            limit %(limit)s for update skip locked
        )
        delete from mindia.task_errors e using chosen
        where e.tenant_id = %(tenant_id)s and e.task_id = chosen.task_id and e.attempt = chosen.attempt
    """,
    "task_dependencies": """
        with chosen as materialized (
            select task_id, depends_on_id from mindia.task_dependencies where tenant_id = %(tenant_id)s
            limit %(limit)s for update skip locked
        )
        delete from mindia.task_dependencies d using chosen
        where d.tenant_id = %(tenant_id)s and d.task_id = chosen.task_id and d.depends_on_id = chosen.depends_on_id
    """,
    "tasks": """
        delete from mindia.tasks where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.tasks t where t.tenant_id = %(tenant_id)s and not exists (
                select from mindia.task_errors e where e.tenant_id = %(tenant_id)s and e.task_id = t.id
            ) and not exists (
                select from mindia.task_dependencies d where d.tenant_id = %(tenant_id)s and d.task_id = t.id
            ) and not exists (
                select from mindia.task_dependencies d where d.tenant_id = %(tenant_id)s and d.depends_on_id = t.id
            )
            limit %(limit)s for update of t skip locked
        ))
    """,
    "passages": """
        with chosen as materialized (
            select entity_id, passage from mindia.passages where tenant_id = %(tenant_id)s
            limit %(limit)s for update skip locked
        )
        delete from mindia.passages p using chosen
        where p.tenant_id = %(tenant_id)s and p.entity_id = chosen.entity_id and p.passage = chosen.passage
    """,
    "vector_indexes": """
        delete from mindia.vector_indexes where tenant_id = %(tenant_id)s and space_id = any(array(
            select space_id from mindia.vector_indexes where tenant_id = %(tenant_id)s
            limit %(limit)s for update skip locked
        ))
    """,
    "search_vocabulary": """
        delete from mindia.search_vocabulary where tenant_id = %(tenant_id)s and word = any(array(
            select word from mindia.search_vocabulary where tenant_id = %(tenant_id)s
            limit %(limit)s for update skip locked
        ))
    """,
    "embeddings": """
        delete from mindia.embeddings where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.embeddings where tenant_id = %(tenant_id)s limit %(limit)s for update skip locked
        ))
    """,
    "embedding_spaces": """
        delete from mindia.embedding_spaces where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.embedding_spaces s where s.tenant_id = %(tenant_id)s and not exists (
                select from mindia.embeddings e where e.tenant_id = %(tenant_id)s and e.space_id = s.id
            )
            limit %(limit)s for update of s skip locked
        ))
    """,
    "search_documents": """
        delete from mindia.search_documents where tenant_id = %(tenant_id)s and entity_id = any(array(
            select entity_id from mindia.search_documents d where d.tenant_id = %(tenant_id)s and not exists (
                select from mindia.embeddings e where e.tenant_id = %(tenant_id)s and e.entity_id = d.entity_id
            ) and not exists (
                select from mindia.passages p where p.tenant_id = %(tenant_id)s and p.entity_id = d.entity_id
            )
            limit %(limit)s for update of d skip locked
        ))
    """,
    "images": """
        delete from mindia.images where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.images where tenant_id = %(tenant_id)s limit %(limit)s for update skip locked
        ))
    """,
    "videos": """
        delete from mindia.videos where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.videos where tenant_id = %(tenant_id)s limit %(limit)s for update skip locked
        ))
    """,
    "audios": """
        delete from mindia.audios where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.audios where tenant_id = %(tenant_id)s limit %(limit)s for update skip locked
        ))
    """,
    "documents": """
        delete from mindia.documents where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.documents where tenant_id = %(tenant_id)s limit %(limit)s for update skip locked
        ))
    """,
    "derivatives": """
        delete from mindia.derivatives where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.derivatives where tenant_id = %(tenant_id)s limit %(limit)s for update skip locked
        ))
    """,
    "presets": """
        delete from mindia.presets where tenant_id = %(tenant_id)s and name = any(array(
            select name from mindia.presets where tenant_id = %(tenant_id)s limit %(limit)s for update skip locked
        ))
    """,
    "shared_objects": """
        delete from mindia.shared_objects where tenant_id = %(tenant_id)s and s3_key = any(array(
            select s3_key from mindia.shared_objects where tenant_id = %(tenant_id)s
            limit %(limit)s for update skip locked
        ))
    """,
    "deleted_objects": """
        delete from mindia.deleted_objects where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.deleted_objects where tenant_id = %(tenant_id)s
            limit %(limit)s for update skip locked
        ))
    """,
    "staged_objects": """
        delete from mindia.staged_objects where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.staged_objects
            where tenant_id = %(tenant_id)s and leased_at < now() - %(older_than)s::interval
            limit %(limit)s for update skip locked
        ))
    """,
    "uploads": """
        delete from mindia.uploads where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.uploads
            where tenant_id = %(tenant_id)s and expires_at < now() - %(older_than)s::interval
            limit %(limit)s for update skip locked
        ))
    """,
    "request_logs": """
        delete from mindia.request_logs where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.request_logs where tenant_id = %(tenant_id)s limit %(limit)s for update skip locked
        ))
    """,
    "api_keys": """
        delete from mindia.api_keys where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.api_keys where tenant_id = %(tenant_id)s limit %(limit)s for update skip locked
        ))
    """,
    "login_failures": """
        delete from mindia.login_failures where tenant_id = %(tenant_id)s and email_hash = any(array(
            select email_hash from mindia.login_failures where tenant_id = %(tenant_id)s
            limit %(limit)s for update skip locked
        ))
    """,
    "users": """
        delete from mindia.users where tenant_id = %(tenant_id)s and id = any(array(
            select id from mindia.users where tenant_id = %(tenant_id)s limit %(limit)s for update skip locked
        ))
    """,
    "quotas": """
        delete from mindia.quotas where tenant_id = %(tenant_id)s and tenant_id = any(array(
            select tenant_id from mindia.quotas where tenant_id = %(tenant_id)s limit %(limit)s for update skip locked
        ))
    """,
}

TABLES = tuple(_REMOVE)
"""All that have rows of tenants, in the order in which they are emptied."""

_TABLES_LEFT = """
select name from (
    select 'webhook_leases' as name,
           exists (select from mindia.webhook_leases where tenant_id = %(tenant_id)s) as has_rows
    union all select 'webhook_states', exists (select from mindia.webhook_states where tenant_id = %(tenant_id)s)
    union all select 'webhook_attempts', exists (select from mindia.webhook_attempts where tenant_id = %(tenant_id)s)
    union all select 'webhook_events', exists (select from mindia.webhook_events where tenant_id = %(tenant_id)s)
    union all select 'webhooks', exists (select from mindia.webhooks where tenant_id = %(tenant_id)s)
    union all select 'task_errors', exists (select from mindia.task_errors where tenant_id = %(tenant_id)s)
    union all select 'task_dependencies', exists (select from mindia.task_dependencies where tenant_id = %(tenant_id)s)
    union all select 'tasks', exists (select from mindia.tasks where tenant_id = %(tenant_id)s)
    union all select 'passages', exists (select from mindia.passages where tenant_id = %(tenant_id)s)
    union all select 'vector_indexes', exists (select from mindia.vector_indexes where tenant_id = %(tenant_id)s)
    union all select 'search_vocabulary', exists (select from mindia.search_vocabulary where tenant_id = %(tenant_id)s)
    union all select 'embeddings', exists (select from mindia.embeddings where tenant_id = %(tenant_id)s)
    union all select 'embedding_spaces', exists (select from mindia.embedding_spaces where tenant_id = %(tenant_id)s)
    union all select 'search_documents', exists (select from mindia.search_documents where tenant_id = %(tenant_id)s)
    union all select 'images', exists (select from mindia.images where tenant_id = %(tenant_id)s)
    union all select 'videos', exists (select from mindia.videos where tenant_id = %(tenant_id)s)
    union all select 'audios', exists (select from mindia.audios where tenant_id = %(tenant_id)s)
    union all select 'documents', exists (select from mindia.documents where tenant_id = %(tenant_id)s)
    union all select 'derivatives', exists (select from mindia.derivatives where tenant_id = %(tenant_id)s)
    union all select 'presets', exists (select from mindia.presets where tenant_id = %(tenant_id)s)
    union all select 'shared_objects', exists (select from mindia.shared_objects where tenant_id = %(tenant_id)s)
    union all select 'deleted_objects', exists (select from mindia.deleted_objects where tenant_id = %(tenant_id)s)
    union all select 'staged_objects', exists (select from mindia.staged_objects where tenant_id = %(tenant_id)s)
    union all select 'uploads', exists (select from mindia.uploads where tenant_id = %(tenant_id)s)
    union all select 'request_logs', exists (select from mindia.request_logs where tenant_id = %(tenant_id)s)
    union all select 'api_keys', exists (select from mindia.api_keys where tenant_id = %(tenant_id)s)
    union all select 'login_failures', exists (select from mindia.login_failures where tenant_id = %(tenant_id)s)
    union all select 'users', exists (select from mindia.users where tenant_id = %(tenant_id)s)
    union all select 'quotas', exists (select from mindia.quotas where tenant_id = %(tenant_id)s)
) as looked_through where has_rows
"""

_UPLOADS_LEFT = """
select count(*), max(since) + %(older_than)s::interval from (
    select leased_at as since from mindia.staged_objects where tenant_id = %(tenant_id)s
    union all select expires_at from mindia.uploads where tenant_id = %(tenant_id)s
) as keys
"""

_INDEXES = """
select indexname::text from pg_catalog.pg_indexes
where schemaname = 'mindia' and strpos(indexdef, %s::uuid::text) > 0 order by indexname
"""

_FORGET = "delete from mindia.tenants where id = %s"


@attrs.frozen
class DeletedTenant:
    """A tenant that is marked as deleted."""

    id: UUID
    s3_bucket: str


@attrs.frozen
class UploadsLeft:
    """Keys that bytes may still be put under, and when the last of them is old enough."""

    count: int
    until: datetime | None


class Turn(Enum):
    """Whether a transaction may go on removing a tenant."""

    OURS = auto()
    HELD = auto()
    """Another one is at it."""
    GONE = auto()
    """There is nothing left to remove."""


def mark(session: Session, tenant_id: UUID) -> bool:
    """Mark a tenant as deleted, for good; False where there is none."""
    return session.one(_MARK, {"tenant_id": tenant_id}, row=bool) is not None


def marked(session: Session) -> list[DeletedTenant]:
    """Read which tenants are marked, the first to be marked first."""
    return session.all(_MARKED, row=DeletedTenant)


def take_turn(session: Session, tenant_id: UUID, *, wait: bool) -> Turn:
    """Hold up all others that would remove the tenant until the transaction ends; its bucket stays its own so long."""
    key = (tenant_id,)
    if session.one(_LOCK, key, row=bool) if wait else session.one(_LOCK_UNLESS_HELD, key, row=bool):
        return Turn.OURS
    return Turn.HELD if session.one(_IS_THERE, (tenant_id,), row=bool) else Turn.GONE


def keep_all_out(session: Session, tenant_id: UUID) -> bool:
    """Hold up everybody who would write a row that refers to the tenant; False where an open transaction has one."""
    return session.one(_LOCK_ALONE, (tenant_id,), row=bool) is not None


def remove_rows(session: Session, tenant_id: UUID, table: str, *, limit: int, staged_older_than: timedelta) -> int:
    """Remove up to `limit` rows from one of `TABLES`, and return how many that were."""
    parameters = {"tenant_id": tenant_id, "limit": limit, "older_than": staged_older_than}
    return session.execute(_REMOVE[table], parameters)


def tables_left(session: Session, tenant_id: UUID) -> list[str]:
    """Read which tables have rows of the tenant."""
    return session.all(_TABLES_LEFT, {"tenant_id": tenant_id}, row=str)


def uploads_left(session: Session, tenant_id: UUID, *, staged_older_than: timedelta) -> UploadsLeft:
    """Read how many keys are on record."""
    parameters = {"tenant_id": tenant_id, "older_than": staged_older_than}
    found = session.one(_UPLOADS_LEFT, parameters, row=UploadsLeft)
    assert found is not None
    return found


def indexes(session: Session, tenant_id: UUID) -> list[str]:
    """Read the names of the indexes whose definition names the tenant."""
    return session.all(_INDEXES, (tenant_id,), row=str)


def forget(session: Session, tenant_id: UUID) -> None:
    """Remove the tenant itself, of which nothing else is left."""
    session.execute(_FORGET, (tenant_id,))
