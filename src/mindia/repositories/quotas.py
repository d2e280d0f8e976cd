"""Quotas of tenants, and what they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString
from uuid import UUID

from mindia.db.session import Session
from mindia.domain.media import Media, MediaKind
from mindia.domain.tenants import Quota, TypeUsage

_USE = "select mindia.use_quota(%s, %s, %s)"

_GET = "select max_items, max_total_bytes from mindia.quotas where tenant_id = %s"

# Waits for those that are adding or deleting, and holds up those that come: the count misses none.
_LOCK_TENANT = """
select current_setting('transaction_isolation') from mindia.tenants
where id = %s and status <> 'deleted' for update
"""

# Who adds with an older snapshot would not see the quota, and not be counted: a row that has changed makes it collide.
_TOUCH_TENANT = "update mindia.tenants set updated_at = now() where id = %s"

_SET = """
insert into mindia.quotas (tenant_id, max_items, max_total_bytes, item_count, total_bytes)
select %(tenant_id)s::uuid, %(max_items)s::bigint, %(max_total_bytes)s::bigint, count(*),
       coalesce(sum(file_size), 0)::bigint
from mindia.all_media m where m.tenant_id = %(tenant_id)s
on conflict on constraint quotas_pkey do update
set max_items = excluded.max_items, max_total_bytes = excluded.max_total_bytes,
    item_count = excluded.item_count, total_bytes = excluded.total_bytes
"""

_CLEAR = "delete from mindia.quotas where tenant_id = %s"

_USAGE: LiteralString = """
select m.kind::text, m.content_type, count(*), sum(m.file_size)::bigint
from mindia.all_media m where m.tenant_id = %s
group by m.kind, m.content_type order by m.kind, m.content_type
"""


def give_back(session: Session, tenant_id: UUID, deleted: Sequence[Media]) -> None:
    """Take deleted items off what a tenant has, if it has a quota."""
    session.execute(_USE, (tenant_id, -len(deleted), -sum(item.file_size for item in deleted)))


def get(session: Session, tenant_id: UUID) -> Quota | None:
    """Read the quota of a tenant; None where it has none."""
    return session.one(_GET, (tenant_id,), row=lambda items, size: Quota(max_items=items, max_total_bytes=size))


def hold(session: Session, tenant_id: UUID) -> str | None:
    """Hold up additions to a tenant and deletions, and wait for those that are under way.

    Returns:
        The isolation level of the transaction: one that is not `read committed` may not see what it has waited for.
        None where there is no such tenant.
    """
    isolation = session.one(_LOCK_TENANT, (tenant_id,), row=str)
    if isolation is not None:
        session.execute(_TOUCH_TENANT, (tenant_id,))
    return isolation


def put(session: Session, tenant_id: UUID, quota: Quota) -> None:
    """Count what a tenant has, and give it a quota, or none."""
    if quota == Quota():
        session.execute(_CLEAR, (tenant_id,))
    else:
        limits = {"max_items": quota.max_items, "max_total_bytes": quota.max_total_bytes}
        session.execute(_SET, {"tenant_id": tenant_id, **limits})


def usage(session: Session, tenant_id: UUID) -> list[TypeUsage]:
    """Count the items of a tenant, expired ones that are still there among them, and add up their bytes."""
    return session.all(
        _USAGE,
        (tenant_id,),
        row=lambda kind, content_type, items, size: TypeUsage(
            kind=MediaKind(kind), content_type=content_type, item_count=items, total_bytes=size
        ),
    )
