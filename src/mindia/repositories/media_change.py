"""Changing and deleting media rows, with all that hangs on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import LiteralString
from uuid import UUID

import attrs
from psycopg.types.json import Jsonb

from mindia.db.session import Session
from mindia.domain.events import MediaEvent
from mindia.domain.media import Media, MediaKind
from mindia.repositories import derivatives
from mindia.repositories._new_media import Texts
from mindia.repositories.events import event_parameters, fan_out, payload, type_parameters

_LOCK: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: "select true from mindia.images where tenant_id = %s and id = %s for update",
    MediaKind.VIDEO: "select true from mindia.videos where tenant_id = %s and id = %s for update",
    MediaKind.AUDIO: "select true from mindia.audios where tenant_id = %s and id = %s for update",
    MediaKind.DOCUMENT: "select true from mindia.documents where tenant_id = %s and id = %s for update",
}

# A vector of the texts as they were cannot be written from here on, so that a task that waits makes the new one.
_LOCK_DOCUMENT = "select true from mindia.search_documents where tenant_id = %s and entity_id = %s for update"

_SET: LiteralString = """
set filename = %(filename)s, metadata = %(metadata)s::jsonb, description = %(description)s,
    expires_at = %(expires_at)s::timestamptz, updated_at = now()
where tenant_id = %(tenant_id)s and id = %(id)s
returning updated_at
"""
_UPDATE: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: "with media as (update mindia.images " + _SET,
    MediaKind.VIDEO: "with media as (update mindia.videos " + _SET,
    MediaKind.AUDIO: "with media as (update mindia.audios " + _SET,
    MediaKind.DOCUMENT: "with media as (update mindia.documents " + _SET,
}
# The weight D is the document's own text, which stays as it is.
_UPDATE_DOCUMENT: LiteralString = """
), document as (
    update mindia.search_documents d
    set title = %(title)s, metadata = %(metadata)s::jsonb, updated_at = now(),
        tsv = setweight(to_tsvector(d.language::regconfig, %(title)s), 'A')
              || setweight(to_tsvector(d.language::regconfig, %(indexed_description)s), 'B')
              || setweight(to_tsvector(d.language::regconfig, %(words)s), 'C')
              || ts_filter(d.tsv, '{d}')
    from media
    where d.tenant_id = %(tenant_id)s and d.entity_id = %(id)s
), task as (
    insert into mindia.tasks (id, tenant_id, task_type, kind, payload, initiated_by, trace_context)
    select %(task_id)s::uuid, %(tenant_id)s::uuid, 'generate_embedding', 'generate_embedding', %(task)s::jsonb,
           %(initiated_by)s::uuid, %(trace_context)s::jsonb
    from media
    where not exists (
        select from mindia.tasks
        where tenant_id = %(tenant_id)s and kind = 'generate_embedding' and status = 'pending'
          and payload ->> 'entity_id' = %(id)s::text
    )
"""
_UPDATE_EVENT: LiteralString = f"""
), event as (
    select %(event_id)s::uuid as event_id, %(event)s::text as event from media
), events as ({fan_out("event")})
select updated_at from media
"""

_WANTED: LiteralString = """
with wanted as (
    select * from unnest(%(ids)s::uuid[], %(s3_prefixes)s::text[], %(event_ids)s::uuid[], %(events)s::text[])
        as w (id, s3_prefix, event_id, event)
), media as (
"""
_DELETE: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: "delete from mindia.images m using wanted w where m.tenant_id = %(tenant_id)s and m.id = w.id",
    MediaKind.VIDEO: "delete from mindia.videos m using wanted w where m.tenant_id = %(tenant_id)s and m.id = w.id",
    MediaKind.AUDIO: "delete from mindia.audios m using wanted w where m.tenant_id = %(tenant_id)s and m.id = w.id",
    MediaKind.DOCUMENT: (
        "delete from mindia.documents m using wanted w where m.tenant_id = %(tenant_id)s and m.id = w.id"
    ),
}
_DELETE_AFTER: LiteralString = f"""
      and (not %(only_expired)s or m.expires_at <= now())
    returning m.id, m.s3_key, m.is_shared, w.s3_prefix, w.event_id, w.event
), document as (
    delete from mindia.search_documents where tenant_id = %(tenant_id)s and entity_id in (select id from media)
), task as (
    delete from mindia.tasks
    where tenant_id = %(tenant_id)s and kind = 'generate_embedding' and status = 'pending'
      and payload ->> 'entity_id' in (select id::text from media)
), objects as (
    insert into mindia.deleted_objects (tenant_id, id, s3_bucket, s3_keys, s3_prefixes)
    select t.id, media.id, t.s3_bucket, case when media.is_shared then '{{}}' else array[media.s3_key] end,
           case when media.is_shared then '{{}}' else array[media.s3_prefix] end
    from media join mindia.tenants t on t.id = %(tenant_id)s
), events as ({fan_out("media")})
select id, s3_key, s3_prefix, is_shared from media
"""

_LOCK_SHARED = """
select s3_key, item_count from mindia.shared_objects where tenant_id = %s and s3_key = any(%s::text[])
order by s3_key for update
"""
_UNSHARE = "update mindia.shared_objects set item_count = item_count - %s where tenant_id = %s and s3_key = %s"
_FORGET_SHARED = "delete from mindia.shared_objects where tenant_id = %s and s3_key = %s"
_DELETE_SHARED = """
update mindia.deleted_objects set s3_keys = s3_keys || %s::text, s3_prefixes = s3_prefixes || %s::text
where tenant_id = %s and id = %s
"""

_EXPIRED = """
select tenant_id, array_agg(id) from (
    select m.tenant_id, m.id from mindia.all_media m join mindia.tenants t on t.id = m.tenant_id
    where m.expires_at <= now() and t.status = 'active' limit %s
) as expired
group by tenant_id
"""

_COUNT_EXPIRED = """
select count(*) from mindia.all_media m join mindia.tenants t on t.id = m.tenant_id
where m.expires_at <= now() and t.status = 'active'
"""


@attrs.frozen
class Expired:
    """Items of one tenant whose time has come."""

    tenant_id: UUID
    media_ids: list[UUID] = attrs.field(hash=False)


@attrs.frozen
class _Deleted:
    id: UUID
    s3_key: str
    s3_prefix: str
    is_shared: bool


@attrs.frozen
class _Shared:
    s3_key: str
    item_count: int


def lock(session: Session, media: Media) -> bool:
    """Hold up others that change an item until the transaction ends; False where it is gone."""
    key = (media.tenant_id, media.id)
    is_there = session.one(_LOCK[media.kind], key, row=bool) is not None
    session.one(_LOCK_DOCUMENT, key, row=bool)
    return is_there


def update(
    session: Session,
    changed: Media,
    *,
    texts: Texts,
    texts_differ: bool,
    task_id: UUID,
    trace_context: str | None,
    event: MediaEvent,
) -> datetime | None:
    """Write filename, metadata, description and expiry of an item, and return when; None where it is gone.

    Args:
        session: Where.
        changed: The item as it shall be.
        texts: What is said about it then.
        texts_differ: Whether that is something else than before, so that it is indexed and embedded anew.
        task_id: Of the task that embeds it.
        trace_context: In which trace that is enqueued, as JSON, or None.
        event: What webhooks are told.
    """
    parameters = {
        "tenant_id": changed.tenant_id,
        "id": changed.id,
        "filename": changed.filename,
        "expires_at": changed.expires_at,
        "task_id": task_id,
        "trace_context": trace_context,
        "task": Jsonb({"entity_id": str(changed.id), "entity_type": changed.kind}),
        **texts.parameters(),
        **event_parameters(event),
    }
    if texts_differ:
        return session.one(_UPDATE[changed.kind] + _UPDATE_DOCUMENT + _UPDATE_EVENT, parameters, row=_itself)
    return session.one(_UPDATE[changed.kind] + _UPDATE_EVENT, parameters, row=_itself)


def delete(
    session: Session, tenant_id: UUID, kind: MediaKind, media: Sequence[Media], *, s3_prefixes: list[str],
    events: Sequence[MediaEvent], only_expired: bool,
) -> set[UUID]:  # fmt: skip
    """Delete items of one kind with all that hangs on them, and put their bytes on record for removal.

    Bytes that other items share stay.

    Args:
        session: Where.
        tenant_id: Whose they are.
        kind: Of all of them.
        media: The items.
        s3_prefixes: For each, where what was made of it is.
        events: For each, what webhooks are told.
        only_expired: Whether one stays that has been given more time meanwhile.

    Returns:
        The ids of those that were deleted.
    """
    parameters = {
        "tenant_id": tenant_id,
        "ids": [item.id for item in media],
        "s3_prefixes": s3_prefixes,
        "event_ids": [event.id for event in events],
        "events": [payload(event) for event in events],
        "only_expired": only_expired,
        **type_parameters(events[0].type),
    }
    deleted = session.all(_WANTED + _DELETE[kind] + _DELETE_AFTER, parameters, row=_Deleted)
    gone = [item.s3_key for item in deleted if not item.is_shared]
    gone += _unshare(session, tenant_id, [item for item in deleted if item.is_shared])
    if sources := [source for key in gone if (source := derivatives.source_of(key)) is not None]:
        derivatives.forget(session, tenant_id, sources)
    return {item.id for item in deleted}


def _unshare(session: Session, tenant_id: UUID, deleted: Sequence[_Deleted]) -> list[str]:
    """Count shared bytes down, and put those on record for removal that no item points at any more; return which.

    In statements of their own, which see what others have committed while the rows were waited for.
    """
    if not deleted:
        return []
    last_ones: list[str] = []
    gone = Counter(item.s3_key for item in deleted)
    for shared in session.all(_LOCK_SHARED, (tenant_id, list(gone)), row=_Shared):
        if shared.item_count > gone[shared.s3_key]:
            session.execute(_UNSHARE, (gone[shared.s3_key], tenant_id, shared.s3_key))
            continue
        last = next(item for item in deleted if item.s3_key == shared.s3_key)
        session.execute(_FORGET_SHARED, (tenant_id, shared.s3_key))
        session.execute(_DELETE_SHARED, (shared.s3_key, last.s3_prefix, tenant_id, last.id))
        last_ones.append(shared.s3_key)
    return last_ones


def expired(session: Session, *, limit: int) -> list[Expired]:
    """Read which items of active tenants have expired and are still there."""
    return session.all(_EXPIRED, (limit,), row=Expired)


def _itself(value: datetime) -> datetime:
    return value


def count_expired(session: Session) -> int:
    """Count the items whose time has come, of tenants that are served."""
    return session.one(_COUNT_EXPIRED, row=int) or 0
