"""Media rows of all four kinds, with what is written in one statement with them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import attrs
from psycopg.types.json import Jsonb

from mindia.db.session import Session
from mindia.domain.events import MediaEvent
from mindia.domain.media import (
    Audio,
    Document,
    Image,
    Media,
    MediaKind,
    Metadata,
    ProcessingStatus,
    Staged,
    Video,
)
from mindia.repositories._text import indexable
from mindia.repositories.events import event_parameters, fan_out

_MAX_INDEXED_DESCRIPTION = 200_000
_MAX_INDEXED_BODY = 700_000
"""Together with title and metadata at most 1,048,575 bytes: the limit of a tsvector."""

COLUMNS: LiteralString = """
m.kind::text, m.id, m.tenant_id, m.filename, m.original_filename, m.content_type, m.file_size, m.sha256, m.s3_key,
m.metadata, m.uploaded_at, m.updated_at, m.expires_at, m.width, m.height, m.duration, m.bitrate, m.sample_rate,
m.channels, m.page_count, m.processing_status::text, m.hls_master_key
"""
"""Of the view `mindia.media m`, in the order that `media_of` takes them."""

_COMMON: LiteralString = """
id, tenant_id, filename, original_filename, s3_key, content_type, file_size, sha256, metadata, expires_at
"""
_COMMON_VALUES: LiteralString = """
%(id)s::uuid, %(tenant_id)s::uuid, %(filename)s, %(original_filename)s, %(s3_key)s, %(content_type)s,
%(file_size)s::bigint, %(sha256)s::bytea, %(metadata)s::jsonb, %(expires_at)s::timestamptz
"""

_INSERT: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: f"""
        insert into mindia.images ({_COMMON}, s3_url, width, height)
        select {_COMMON_VALUES}, 's3://' || s3_bucket || '/' || %(s3_key)s, %(width)s::int, %(height)s::int from staged
    """,
    MediaKind.VIDEO: f"""
        insert into mindia.videos ({_COMMON}, duration, width, height)
        select {_COMMON_VALUES}, %(duration)s::float8, %(width)s::int, %(height)s::int from staged
    """,
    MediaKind.AUDIO: f"""
        insert into mindia.audios ({_COMMON}, duration, bitrate, sample_rate, channels)
        select {_COMMON_VALUES}, %(duration)s::float8, %(bitrate)s::int, %(sample_rate)s::int, %(channels)s::int
        from staged
    """,
    MediaKind.DOCUMENT: f"""
        insert into mindia.documents ({_COMMON}, page_count)
        select {_COMMON_VALUES}, %(page_count)s::int from staged
    """,
}

_ADD_BEFORE: LiteralString = """
with staged as (
    delete from mindia.staged_objects where tenant_id = %(tenant_id)s and id = %(id)s returning s3_bucket
), media as (
"""
_ADD_AFTER: LiteralString = f"""
    returning uploaded_at, updated_at
), document as (
    insert into mindia.search_documents
        (tenant_id, entity_id, entity_type, language, title, description, body, metadata, tsv)
    select %(tenant_id)s::uuid, %(id)s::uuid, %(kind)s::mindia.entity_type, %(language)s, %(title)s, %(description)s,
           %(body)s, %(metadata)s::jsonb,
           setweight(to_tsvector(%(language)s::regconfig, %(title)s), 'A')
           || setweight(to_tsvector(%(language)s::regconfig, %(indexed_description)s), 'B')
           || setweight(to_tsvector(%(language)s::regconfig, %(words)s), 'C')
           || setweight(to_tsvector(%(language)s::regconfig, %(indexed_body)s), 'D')
    from media
), task as (
    insert into mindia.tasks (id, tenant_id, task_type, kind, payload, dedup_key)
    select %(task_id)s::uuid, %(tenant_id)s::uuid, 'generate_embedding', 'generate_embedding', %(task)s::jsonb,
           'generate_embedding:' || %(id)s::text
    from media
), events as ({fan_out("media")})
select uploaded_at, updated_at from media
"""

_DELETE: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: "delete from mindia.images where tenant_id = %(tenant_id)s and id = %(id)s",
    MediaKind.VIDEO: "delete from mindia.videos where tenant_id = %(tenant_id)s and id = %(id)s",
    MediaKind.AUDIO: "delete from mindia.audios where tenant_id = %(tenant_id)s and id = %(id)s",
    MediaKind.DOCUMENT: "delete from mindia.documents where tenant_id = %(tenant_id)s and id = %(id)s",
}

_DELETE_AFTER: LiteralString = f"""
returning id), document as (
    delete from mindia.search_documents where tenant_id = %(tenant_id)s and entity_id in (select id from media)
), task as (
    delete from mindia.tasks
    where tenant_id = %(tenant_id)s and dedup_key = 'generate_embedding:' || %(id)s::text and status = 'pending'
      and exists (select from media)
), objects as (
    insert into mindia.deleted_objects (tenant_id, id, s3_bucket, s3_keys, s3_prefixes)
    select t.id, media.id, t.s3_bucket, %(s3_keys)s::text[], %(s3_prefixes)s::text[]
    from media join mindia.tenants t on t.id = %(tenant_id)s
), events as ({fan_out("media")})
select id from media
"""

_GET = f"select {COLUMNS} from mindia.media m where m.tenant_id = %s and m.id = %s"

_IS_STORED: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: "select true from mindia.images where tenant_id = %s and id = %s",
    MediaKind.VIDEO: "select true from mindia.videos where tenant_id = %s and id = %s",
    MediaKind.AUDIO: "select true from mindia.audios where tenant_id = %s and id = %s",
    MediaKind.DOCUMENT: "select true from mindia.documents where tenant_id = %s and id = %s",
}

_FIND: LiteralString = f"""
select {COLUMNS} from mindia.media m
where m.tenant_id = %(tenant_id)s
  and (%(kind)s::mindia.entity_type is null or m.kind = %(kind)s::mindia.entity_type)
"""
_AFTER: LiteralString = "and (m.uploaded_at, m.id) < (%(uploaded_at)s, %(id)s)"
_ORDER: LiteralString = "order by m.uploaded_at desc, m.id desc limit %(limit)s"


@attrs.frozen(kw_only=True)
class NewMedia:
    """What is written for a new item.

    Attributes:
        staged: Its bytes.
        s3_key: Where they are.
        metadata: The host's own values.
        expires_at: From when on it is not found any more.
        language: Text search configuration.
        title: Words of its filename.
        description: What a person said about it.
        words: Words of its metadata.
        task_id: Of the task that embeds it.
        event: What webhooks are told.
    """

    staged: Staged
    s3_key: str
    metadata: Metadata
    expires_at: datetime | None
    language: str
    title: str
    description: str
    words: str
    task_id: UUID
    event: MediaEvent


def add(session: Session, new: NewMedia) -> Media | None:
    """Write media row, search text, task and webhook events in one statement; None where the staged row is gone."""
    staged = new.staged
    facts: dict[str, Any] = attrs.asdict(staged.facts)
    body = facts.pop("text", "")
    common: dict[str, Any] = {
        "id": staged.id,
        "tenant_id": staged.tenant_id,
        "kind": staged.facts.kind,
        "filename": staged.filename,
        "original_filename": staged.original_filename,
        "s3_key": new.s3_key,
        "content_type": staged.content_type,
        "file_size": staged.file_size,
        "sha256": bytes.fromhex(staged.sha256),
        "expires_at": new.expires_at,
    }
    parameters = {
        "metadata": Jsonb(new.metadata),
        "language": new.language,
        "title": new.title,
        "description": new.description,
        "indexed_description": indexable(new.description, max_bytes=_MAX_INDEXED_DESCRIPTION),
        "words": new.words,
        "body": body,
        "indexed_body": indexable(body, max_bytes=_MAX_INDEXED_BODY),
        "task_id": new.task_id,
        "task": Jsonb({"entity_id": str(staged.id), "entity_type": staged.facts.kind}),
        **event_parameters(new.event),
    }
    return session.one(
        _ADD_BEFORE + _INSERT[staged.facts.kind] + _ADD_AFTER,
        common | facts | parameters,
        row=lambda uploaded_at, updated_at: media_of(
            **common, **facts, metadata=new.metadata, uploaded_at=uploaded_at, updated_at=updated_at
        ),
    )


def delete(session: Session, media: Media, *, s3_keys: list[str], s3_prefixes: list[str], event: MediaEvent) -> bool:
    """Delete an item with all that hangs on it, and put its bytes on record for removal; False where it is gone."""
    parameters = {
        "tenant_id": media.tenant_id,
        "id": media.id,
        "s3_keys": s3_keys,
        "s3_prefixes": s3_prefixes,
        **event_parameters(event),
    }
    query = "with media as (" + _DELETE[media.kind] + _DELETE_AFTER
    return session.one(query, parameters, row=bool) is not None


def get(session: Session, tenant_id: UUID, media_id: UUID) -> Media | None:
    """Read an item of any kind."""
    return session.one(_GET, (tenant_id, media_id), row=media_of)


def is_stored(session: Session, staged: Staged) -> bool:
    """Tell whether there is a row of what was staged, expired or not."""
    return session.one(_IS_STORED[staged.kind], (staged.tenant_id, staged.id), row=bool) is not None


def page(
    session: Session, tenant_id: UUID, *, kind: MediaKind | None, after: tuple[datetime, UUID] | None, limit: int
) -> list[Media]:
    """Read items, newest first, from behind a place on."""
    parameters = {"tenant_id": tenant_id, "kind": kind, "limit": limit}
    if after is None:
        return session.all(_FIND + _ORDER, parameters, row=media_of)
    uploaded_at, media_id = after
    return session.all(_FIND + _AFTER + _ORDER, parameters | {"uploaded_at": uploaded_at, "id": media_id}, row=media_of)


def media_of(
    kind: str,
    id: UUID,  # noqa: A002 - the column
    tenant_id: UUID,
    filename: str,
    original_filename: str,
    content_type: str,
    file_size: int,
    sha256: bytes,
    s3_key: str,
    metadata: Metadata,
    uploaded_at: datetime,
    updated_at: datetime,
    expires_at: datetime | None,
    width: int = 0,
    height: int = 0,
    duration: float = 0.0,
    bitrate: int = 0,
    sample_rate: int = 0,
    channels: int = 0,
    page_count: int = 0,
    processing_status: str = ProcessingStatus.PENDING,
    hls_master_key: str | None = None,
) -> Media:
    """Make an item of a row of the view."""
    common: dict[str, Any] = {
        "id": id,
        "tenant_id": tenant_id,
        "filename": filename,
        "original_filename": original_filename,
        "content_type": content_type,
        "file_size": file_size,
        "sha256": sha256.hex(),
        "s3_key": s3_key,
        "metadata": metadata,
        "uploaded_at": uploaded_at,
        "updated_at": updated_at,
        "expires_at": expires_at,
    }
    match MediaKind(kind):
        case MediaKind.IMAGE:
            return Image(**common, width=width, height=height)
        case MediaKind.VIDEO:
            return Video(
                **common,
                width=width,
                height=height,
                duration=duration,
                processing_status=ProcessingStatus(processing_status),
                hls_master_key=hls_master_key,
            )
        case MediaKind.AUDIO:
            return Audio(**common, duration=duration, bitrate=bitrate, sample_rate=sample_rate, channels=channels)
        case MediaKind.DOCUMENT:
            return Document(**common, page_count=page_count)
