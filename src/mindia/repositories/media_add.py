"""New media rows, with all that is written in one statement with them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import attrs
from psycopg.types.json import Jsonb

from mindia.db.session import Session, Statement
from mindia.domain.events import MediaEvent
from mindia.domain.media import Media, MediaKind, Metadata, ProcessingStatus, Staged, Video
from mindia.repositories._details import columns_of, details_of
from mindia.repositories._text import indexable
from mindia.repositories.events import fan_out, payload, type_parameters
from mindia.repositories.media import media_of

MAX_INDEXED_DESCRIPTION = 200_000
_MAX_INDEXED_BODY = 700_000
"""Together with title and metadata at most 1,048,575 bytes: the limit of a tsvector."""

_NEW: LiteralString = """
with new as materialized (
    select * from jsonb_to_recordset(%(items)s::jsonb) as n (
        id uuid, filename text, original_filename text, s3_key text, content_type text, file_size bigint, sha256 bytea,
        metadata jsonb, description text, details jsonb, expires_at timestamptz, width int, height int, duration float8,
        bitrate int, sample_rate int, channels int, page_count int,
        language text, title text, words text, indexed_description text, body text, indexed_body text,
        task_id uuid, transcode_id uuid, transcode_key text, initiated_by uuid, trace_context text,
        event_id uuid, event text, event_url text
    )
)
"""
"""What is written, as an array: with a parameter for each value of each item it takes twice as long."""

_STAGED: LiteralString = f"""
{_NEW}, staged as materialized (
    select t.tenant_id, t.s3_bucket, n.*
    from new n cross join lateral mindia.take_staged(%(tenant_id)s::uuid, n.id, %(binds)s) t
), quota as materialized (
    select mindia.use_quota(tenant_id, count(*), sum(file_size)::bigint) from staged group by tenant_id
), media as (
"""
_COMMON: LiteralString = """
id, tenant_id, filename, original_filename, s3_key, content_type, file_size, sha256, metadata, description, details,
expires_at
"""
_INSERT: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: f"""
        {_STAGED} insert into mindia.images ({_COMMON}, s3_url, width, height)
        select {_COMMON}, 's3://' || s3_bucket || '/' || s3_key, width, height from staged, quota
    """,
    MediaKind.VIDEO: f"""
        {_STAGED} insert into mindia.videos ({_COMMON}, duration, width, height)
        select {_COMMON}, duration, width, height from staged, quota
    """,
    MediaKind.AUDIO: f"""
        {_STAGED} insert into mindia.audios ({_COMMON}, duration, bitrate, sample_rate, channels)
        select {_COMMON}, duration, bitrate, sample_rate, channels from staged, quota
    """,
    MediaKind.DOCUMENT: f"""
        {_STAGED} insert into mindia.documents ({_COMMON}, page_count)
        select {_COMMON}, page_count from staged, quota
    """,
}
_ADDED: LiteralString = """
    returning id, uploaded_at, updated_at
), added as materialized (
    select n.*, media.uploaded_at, media.updated_at from new n join media using (id)
)
"""
_DOCUMENT: LiteralString = """
, document as (
    insert into mindia.search_documents (tenant_id, entity_id, entity_type, language, title, body, metadata, tsv)
    select %(tenant_id)s::uuid, id, %(kind)s::mindia.entity_type, language, title, body, metadata,
           setweight(to_tsvector(language::regconfig, title), 'A')
           || setweight(to_tsvector(language::regconfig, indexed_description), 'B')
           || setweight(to_tsvector(language::regconfig, words), 'C')
           || setweight(to_tsvector(language::regconfig, indexed_body), 'D')
    from added
)
"""
_TRANSCODE: LiteralString = """
, transcode as (
    insert into mindia.tasks (id, tenant_id, task_type, kind, payload, initiated_by, trace_context, dedup_key)
    select transcode_id, %(tenant_id)s::uuid, 'video_transcode', 'video_transcode', jsonb_build_object('video_id', id),
           initiated_by, trace_context::jsonb, transcode_key
    from added where transcode_id is not null
    on conflict (tenant_id, dedup_key) where dedup_key is not null and status in ('pending', 'running') do nothing
)
"""
_TASK_AND_EVENT: LiteralString = f"""
, task as (
    insert into mindia.tasks (id, tenant_id, task_type, kind, payload, initiated_by, trace_context)
    select task_id, %(tenant_id)s::uuid, 'generate_embedding', 'generate_embedding',
           jsonb_build_object('entity_id', id, 'entity_type', %(kind)s::text), initiated_by, trace_context::jsonb
    from added
), events as ({fan_out("added", url="e.event_url")})
select id, uploaded_at, updated_at from added
"""
_FOLLOW_UP: dict[MediaKind, LiteralString] = {
    kind: _TRANSCODE + _TASK_AND_EVENT if kind is MediaKind.VIDEO else _TASK_AND_EVENT for kind in MediaKind
}

# The update locks the row, so that the original cannot be deleted meanwhile, and makes a delete that waits for the lock
# see that it shares its bytes.
_SHARE: LiteralString = """
set is_shared = true
where tenant_id = %(tenant_id)s and id = %(original_id)s and (expires_at is null or expires_at > now())
returning *
"""
_LINKED: LiteralString = """
id, tenant_id, filename, original_filename, s3_key, content_type, file_size, sha256, metadata, description, details,
is_shared, expires_at
"""
_LINKED_VALUES: LiteralString = """
n.id, o.tenant_id, n.filename, n.original_filename, o.s3_key, o.content_type, o.file_size, o.sha256, n.metadata,
n.description, o.details, true, n.expires_at
"""
_FROM_ORIGINAL: LiteralString = "from new n, original o, mindia.use_quota(o.tenant_id, 1, o.file_size)"

_LINK: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: f"""
        {_NEW}, original as (update mindia.images {_SHARE}), media as (
            insert into mindia.images ({_LINKED}, s3_url, width, height)
            select {_LINKED_VALUES}, o.s3_url, o.width, o.height {_FROM_ORIGINAL}
    """,
    MediaKind.VIDEO: f"""
        {_NEW}, original as (update mindia.videos {_SHARE}), media as (
            insert into mindia.videos ({_LINKED}, duration, width, height, processing_status, hls_master_key)
            select {_LINKED_VALUES}, o.duration, o.width, o.height,
                   case when o.hls_master_key is null then 'pending' else 'completed' end::mindia.processing_status,
                   o.hls_master_key
            {_FROM_ORIGINAL}
    """,
    MediaKind.AUDIO: f"""
        {_NEW}, original as (update mindia.audios {_SHARE}), media as (
            insert into mindia.audios ({_LINKED}, duration, bitrate, sample_rate, channels)
            select {_LINKED_VALUES}, o.duration, o.bitrate, o.sample_rate, o.channels {_FROM_ORIGINAL}
    """,
    MediaKind.DOCUMENT: f"""
        {_NEW}, original as (update mindia.documents {_SHARE}), media as (
            insert into mindia.documents ({_LINKED}, page_count)
            select {_LINKED_VALUES}, o.page_count {_FROM_ORIGINAL}
    """,
}
_LINK_DOCUMENT: LiteralString = """
, shared as (
    insert into mindia.shared_objects as o (tenant_id, s3_key, item_count)
    select tenant_id, s3_key, 2 from original
    on conflict on constraint shared_objects_pkey do update set item_count = o.item_count + 1
), document as (
    insert into mindia.search_documents
        (tenant_id, entity_id, entity_type, language, title, body, metadata, generated, generated_by, tsv)
    select d.tenant_id, a.id, d.entity_type, d.language, a.title, d.body, a.metadata, d.generated, d.generated_by,
           setweight(to_tsvector(d.language::regconfig, a.title), 'A')
           || setweight(to_tsvector(d.language::regconfig, a.indexed_description), 'B')
           || setweight(to_tsvector(d.language::regconfig, a.words), 'C')
           || ts_filter(d.tsv, '{d}')
    from added a, mindia.search_documents d
    where d.tenant_id = %(tenant_id)s and d.entity_id = %(original_id)s
), passages as (
    insert into mindia.passages (tenant_id, entity_id, passage, source, page, start_s, end_s, text)
    select p.tenant_id, a.id, p.passage, p.source, p.page, p.start_s, p.end_s, p.text
    from added a, mindia.passages p
    where p.tenant_id = %(tenant_id)s and p.entity_id = %(original_id)s
)
"""


@attrs.frozen(kw_only=True)
class Texts:
    """What is said about an item, and searched.

    Attributes:
        metadata: The host's own values.
        description: What a person said about it.
        title: Words of its filename and of what its file calls itself.
        words: Words of its metadata.
    """

    metadata: Metadata
    description: str
    title: str
    words: str

    def parameters(self) -> dict[str, object]:
        """Return them as a statement takes them."""
        return {
            "metadata": Jsonb(self.metadata),
            "description": self.description,
            "title": self.title,
            "indexed_description": indexable(self.description, max_bytes=MAX_INDEXED_DESCRIPTION),
            "words": self.words,
        }


@attrs.frozen(kw_only=True)
class NewTranscode:
    """The task that encodes a video.

    Attributes:
        id: Of the task.
        dedup_key: By which there is one for the same bytes.
    """

    id: UUID
    dedup_key: str


@attrs.frozen(kw_only=True)
class NewMedia:
    """What is written for a new item.

    Attributes:
        staged: Its bytes.
        s3_key: Where they are.
        texts: What is said about it.
        expires_at: From when on it is not found any more.
        language: Text search configuration.
        task_id: Of the task that embeds it.
        event: What webhooks are told.
        transcode: The task that encodes it, or None.
        trace_context: In which trace the tasks are enqueued, as JSON, or None.
    """

    staged: Staged
    s3_key: str
    texts: Texts
    expires_at: datetime | None
    language: str
    task_id: UUID
    event: MediaEvent
    transcode: NewTranscode | None = None
    trace_context: str | None = None


@attrs.frozen(kw_only=True)
class NewLink:
    """What is written for an item that shares the bytes of another one.

    Attributes:
        id: Of the new item.
        original: Whose bytes they are.
        filename: Cleaned.
        original_filename: As it was handed in.
        texts: What is said about it.
        expires_at: From when on it is not found any more.
        task_id: Of the task that embeds it.
        event: What webhooks are told.
        transcode: The task that encodes it, or None.
        trace_context: In which trace the tasks are enqueued, as JSON, or None.
    """

    id: UUID
    original: Media
    filename: str
    original_filename: str
    texts: Texts
    expires_at: datetime | None
    task_id: UUID
    event: MediaEvent
    transcode: NewTranscode | None = None
    trace_context: str | None = None


def add(session: Session, new: NewMedia) -> Media | None:
    """Write an item of staged bytes; None where the staged row is gone."""
    return add_all(session, [new])[0]


def add_all(session: Session, news: Sequence[NewMedia]) -> list[Media | None]:
    """Write items of staged bytes, all at once; None for each whose staged row is gone."""
    of_kind: dict[MediaKind, list[NewMedia]] = {}
    for new in news:
        of_kind.setdefault(new.staged.facts.kind, []).append(new)
    binds = len(of_kind) == 1 and session.hand_over_binding()
    written = session.batch([_statement(kind, alike, binds=binds) for kind, alike in of_kind.items()])
    added = {item.id: item for rows in written for item in rows}
    return [added.pop(new.staged.id, None) for new in news]  # the same bytes make one item, once


def _statement(kind: MediaKind, news: Sequence[NewMedia], *, binds: bool) -> Statement[Media]:
    """Return what writes items of one kind."""
    tenant_id = news[0].staged.tenant_id
    by_id = {new.staged.id: new for new in reversed(news)}  # of the same bytes, the first
    own = {media_id: _own_columns(new) for media_id, new in by_id.items()}
    make = media_of(tenant_id)

    def item(media_id: UUID, uploaded_at: datetime, updated_at: datetime) -> Media:
        new = by_id[media_id]
        return make(
            kind=kind,
            id=media_id,
            **own[media_id],
            sha256=bytes.fromhex(new.staged.sha256),
            metadata=new.texts.metadata,
            description=new.texts.description,
            expires_at=new.expires_at,
            uploaded_at=uploaded_at,
            updated_at=updated_at,
        )

    return Statement(
        _INSERT[kind] + _ADDED + _DOCUMENT + _FOLLOW_UP[kind],
        {
            "items": Jsonb([own[media_id] | _row_of_staged(new) for media_id, new in by_id.items()]),
            "tenant_id": tenant_id,
            "kind": kind,
            "binds": binds,
            **type_parameters(news[0].event.type),
        },
        item,
    )


def _own_columns(new: NewMedia) -> dict[str, Any]:
    """Return what is of the bytes alone, and is in the row as it is in the item."""
    staged = new.staged
    return {
        "filename": staged.filename,
        "original_filename": staged.original_filename,
        "content_type": staged.content_type,
        "file_size": staged.file_size,
        "s3_key": new.s3_key,
        "details": details_of(staged.facts),
        **columns_of(staged.facts),
    }


def _row_of_staged(new: NewMedia) -> dict[str, object]:
    """Return what else a new item of staged bytes has, as JSON."""
    staged = new.staged
    body = getattr(staged.facts, "text", "")
    return {
        "sha256": rf"\x{staged.sha256}",
        "language": new.language,
        "body": body,
        "indexed_body": indexable(body, max_bytes=_MAX_INDEXED_BODY),
        **_row(new, staged.id),
    }


def link(session: Session, new: NewLink) -> Media | None:
    """Write an item that shares the bytes of another one of the tenant; None where that is gone."""
    original = new.original
    # What was made of the bytes is shared like the bytes; what is only being made is not there yet.
    fresh: Media = original
    if isinstance(original, Video):
        has_stream = original.hls_master_key is not None
        fresh = attrs.evolve(
            original, processing_status=ProcessingStatus.COMPLETED if has_stream else ProcessingStatus.PENDING
        )
    return session.one(
        _LINK[original.kind] + _ADDED + _LINK_DOCUMENT + _FOLLOW_UP[original.kind],
        {
            "items": Jsonb(
                [{"filename": new.filename, "original_filename": new.original_filename} | _row(new, new.id)]
            ),
            "tenant_id": original.tenant_id,
            "kind": original.kind,
            "original_id": original.id,
            **type_parameters(new.event.type),
        },
        row=lambda id, uploaded_at, updated_at: attrs.evolve(  # noqa: A006 - the column
            fresh,
            id=id,
            filename=new.filename,
            original_filename=new.original_filename,
            metadata=new.texts.metadata,
            description=new.texts.description,
            expires_at=new.expires_at,
            uploaded_at=uploaded_at,
            updated_at=updated_at,
        ),
    )


def _row(new: NewMedia | NewLink, media_id: UUID) -> dict[str, object]:
    """Return what every new item has, as JSON."""
    texts, event = new.texts, new.event
    row: dict[str, object] = {
        "id": str(media_id),
        "metadata": texts.metadata,
        "description": texts.description,
        "title": texts.title,
        "words": texts.words,
        "indexed_description": indexable(texts.description, max_bytes=MAX_INDEXED_DESCRIPTION),
        "task_id": str(new.task_id),
        "trace_context": new.trace_context,
        "event_id": str(event.id),
        "event": payload(event),
        "event_url": event.url,
    }
    if new.expires_at is not None:
        row["expires_at"] = new.expires_at.isoformat()
    if event.initiated_by is not None:
        row["initiated_by"] = str(event.initiated_by)
    if new.transcode is not None:
        row |= {"transcode_id": str(new.transcode.id), "transcode_key": new.transcode.dedup_key}
    return row
