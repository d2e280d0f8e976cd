"""Rows against bytes and bytes against rows: what `verify` reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.media import MediaKind

# In the order of an index that each of the four tables has.
_STORED = """
select m.kind::text, m.id, m.uploaded_at, m.filename, m.content_type, m.s3_key, m.file_size, encode(m.sha256, 'hex')
from mindia.all_media m
where m.tenant_id = %(tenant_id)s and m.uploaded_at >= %(uploaded_at)s::timestamptz
  and (m.uploaded_at, m.id) > (%(uploaded_at)s::timestamptz, %(id)s::uuid)
order by m.uploaded_at, m.id limit %(limit)s
"""

_TWINS = """
select distinct m.s3_key from mindia.all_media m
where m.tenant_id = %s and m.sha256 = decode(%s, 'hex') and m.s3_key <> %s limit 10
"""

_BYTES = """
select m.s3_key, m.content_type, encode(m.sha256, 'hex')
from unnest(%(ids)s::uuid[]) as named (named_id) cross join lateral (
    select * from mindia.all_media i where i.tenant_id = %(tenant_id)s and i.id = named_id offset 0
) m
union all
select d.s3_key, d.content_type, encode(d.sha256, 'hex') from mindia.derivatives d
where d.tenant_id = %(tenant_id)s and d.id = any(%(derivative_ids)s::uuid[])
"""

# One statement, and so one moment: a key that is listed was on record before, and moves from one record to another in
# one transaction. The lookup by id is kept in its place by `offset 0`, whatever the plan.
_RECORDED = """
with pending as materialized (
    select d.id, unnest(d.s3_keys || null::text) as s3_key, unnest(d.s3_prefixes || null::text) as s3_prefix
    from mindia.deleted_objects d
    where d.tenant_id = %(tenant_id)s
)
select k.s3_key
from unnest(%(s3_keys)s::text[], %(ids)s::uuid[], %(derivative_ids)s::uuid[]) as k (s3_key, id, derivative_id)
where exists (
    select from mindia.all_media m
    where m.tenant_id = %(tenant_id)s and m.id = k.id and m.s3_key = k.s3_key offset 0
) or exists (
    select from mindia.derivatives d
    where d.tenant_id = %(tenant_id)s and d.id = k.derivative_id
      and (d.s3_key = k.s3_key or starts_with(k.s3_key, d.s3_prefix))
    offset 0
) or exists (
    select from mindia.staged_objects s
    where s.tenant_id = %(tenant_id)s and s.id = k.id and s.source_id is null offset 0
) or exists (
    select from mindia.staged_objects s
    where s.tenant_id = %(tenant_id)s and s.id = k.derivative_id and s.source_id = k.id offset 0
) or exists (
    select from mindia.shared_objects o where o.tenant_id = %(tenant_id)s and o.s3_key = k.s3_key offset 0
) or exists (
    select from mindia.uploads u where u.tenant_id = %(tenant_id)s and u.id = k.id offset 0
) or k.id in (select id from pending) or k.s3_key in (select s3_key from pending where s3_key is not null)
  or 'derived/' || k.id || '/' in (select s3_prefix from pending where s3_prefix is not null)
  or 'derived/' || k.id || '/' || k.derivative_id || '/' in (select s3_prefix from pending where s3_prefix is not null)
"""


@attrs.frozen
class StoredItem:
    """An item, as far as its bytes are concerned."""

    kind: MediaKind = attrs.field(converter=MediaKind)
    id: UUID
    uploaded_at: datetime
    filename: str
    content_type: str
    s3_key: str
    file_size: int
    sha256: str


@attrs.frozen
class ItemBytes:
    """What is on record of the bytes of an item, or of what was made of it; the hash of a single object alone."""

    s3_key: str
    content_type: str
    sha256: str | None


@attrs.frozen
class NamedKey:
    """The key of an object, and the id in it; of what was made of bytes, its own id, too."""

    key: str
    id: UUID
    derivative_id: UUID | None


def stored_items(session: Session, tenant_id: UUID, *, after: tuple[datetime, UUID], limit: int) -> list[StoredItem]:
    """Read items in the order of their making, expired ones among them.

    Args:
        session: Where.
        tenant_id: Whose.
        after: Time and id of the one before.
        limit: How many.
    """
    uploaded_at, media_id = after
    parameters = {"tenant_id": tenant_id, "uploaded_at": uploaded_at, "id": media_id, "limit": limit}
    return session.all(_STORED, parameters, row=StoredItem)


def bytes_on_record(
    session: Session, tenant_id: UUID, media_ids: Sequence[UUID], derivative_ids: Sequence[UUID]
) -> list[ItemBytes]:
    """Read what is on record of the bytes of items, and of what was made of them."""
    parameters = {"tenant_id": tenant_id, "ids": list(media_ids), "derivative_ids": list(derivative_ids)}
    return session.all(_BYTES, parameters, row=ItemBytes)


def twins(session: Session, tenant_id: UUID, *, sha256: str, s3_key: str) -> list[str]:
    """Read where else the tenant has the same bytes."""
    return session.all(_TWINS, (tenant_id, sha256, s3_key), row=str)


def recorded(session: Session, tenant_id: UUID, keys: Sequence[NamedKey]) -> set[str]:
    """Read which objects are on any record: of an item or what was made of one, staged, uploaded or to be removed.

    Args:
        session: Where.
        tenant_id: Whose.
        keys: Those that are asked about.
    """
    parameters = {
        "tenant_id": tenant_id,
        "s3_keys": [each.key for each in keys],
        "ids": [each.id for each in keys],
        "derivative_ids": [each.derivative_id for each in keys],
    }
    return set(session.all(_RECORDED, parameters, row=str))
