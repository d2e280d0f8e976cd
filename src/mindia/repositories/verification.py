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
"""

# One statement, and so one moment: a key that is listed was on record before, and moves from one record to another in
# one transaction. The lookup by id is kept in its place by `offset 0`, whatever the plan.
_RECORDED = """
with pending as materialized (
    select d.id, unnest(d.s3_keys || null::text) as s3_key from mindia.deleted_objects d
    where d.tenant_id = %(tenant_id)s
)
select k.s3_key from unnest(%(s3_keys)s::text[], %(ids)s::uuid[]) as k (s3_key, id)
where exists (
    select from mindia.all_media m
    where m.tenant_id = %(tenant_id)s and m.id = k.id
      and (m.s3_key = k.s3_key or not starts_with(k.s3_key, 'originals/'))
    offset 0
) or exists (
    select from mindia.staged_objects s where s.tenant_id = %(tenant_id)s and s.id = k.id offset 0
) or exists (
    select from mindia.shared_objects o where o.tenant_id = %(tenant_id)s and o.s3_key = k.s3_key offset 0
) or exists (
    select from mindia.uploads u where u.tenant_id = %(tenant_id)s and u.id = k.id offset 0
) or k.id in (select id from pending) or k.s3_key in (select s3_key from pending where s3_key is not null)
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
    """What is on record of the bytes of items."""

    s3_key: str
    content_type: str
    sha256: str


@attrs.frozen
class NamedKey:
    """The key of an object, and the id in it."""

    key: str
    id: UUID


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


def bytes_of_items(session: Session, tenant_id: UUID, media_ids: Sequence[UUID]) -> list[ItemBytes]:
    """Read what is on record of the bytes of items."""
    return session.all(_BYTES, {"tenant_id": tenant_id, "ids": list(media_ids)}, row=ItemBytes)


def twins(session: Session, tenant_id: UUID, *, sha256: str, s3_key: str) -> list[str]:
    """Read where else the tenant has the same bytes."""
    return session.all(_TWINS, (tenant_id, sha256, s3_key), row=str)


def recorded(session: Session, tenant_id: UUID, keys: Sequence[NamedKey]) -> set[str]:
    """Read which objects are on any record: of an item, staged, shared, uploaded or to be removed.

    Args:
        session: Where.
        tenant_id: Whose.
        keys: Those that are asked about.
    """
    parameters = {"tenant_id": tenant_id, "s3_keys": [each.key for each in keys], "ids": [each.id for each in keys]}
    return set(session.all(_RECORDED, parameters, row=str))
