"""New media rows, with all that is written in one statement with them."""

from __future__ import annotations

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
from mindia.repositories.events import event_parameters, fan_out
from mindia.repositories.media import media_of

MAX_INDEXED_DESCRIPTION = 200_000
_MAX_INDEXED_BODY = 700_000
"""Together with title and metadata at most 1,048,575 bytes: the limit of a tsvector."""

_COMMON: LiteralString = """
id, tenant_id, filename, original_filename, s3_key, content_type, file_size, sha256, metadata, description, details,
expires_at
"""
_COMMON_VALUES: LiteralString = """
%(id)s::uuid, %(tenant_id)s::uuid, %(filename)s, %(original_filename)s, %(s3_key)s, %(content_type)s,
%(file_size)s::bigint, %(sha256)s::bytea, %(metadata)s::jsonb, %(description)s, %(details)s::jsonb,
%(expires_at)s::timestamptz
"""

_FROM_STAGED: LiteralString = """
from staged, mindia.use_quota(staged.tenant_id, 1, %(file_size)s::bigint)
"""

_INSERT: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: f"""
        insert into mindia.images ({_COMMON}, s3_url, width, height)
        select {_COMMON_VALUES}, 's3://' || s3_bucket || '/' || %(s3_key)s, %(width)s::int, %(height)s::int
        {_FROM_STAGED}
    """,
    MediaKind.VIDEO: f"""
        insert into mindia.videos ({_COMMON}, duration, width, height)
        select {_COMMON_VALUES}, %(duration)s::float8, %(width)s::int, %(height)s::int
        {_FROM_STAGED}
    """,
    MediaKind.AUDIO: f"""
        insert into mindia.audios ({_COMMON}, duration, bitrate, sample_rate, channels)
        select {_COMMON_VALUES}, %(duration)s::float8, %(bitrate)s::int, %(sample_rate)s::int, %(channels)s::int
        {_FROM_STAGED}
    """,
    MediaKind.DOCUMENT: f"""
        insert into mindia.documents ({_COMMON}, page_count)
        select {_COMMON_VALUES}, %(page_count)s::int {_FROM_STAGED}
    """,
}

_STAGED: LiteralString = """
with staged as materialized (
    select s.tenant_id, s.s3_bucket from mindia.take_staged(%(tenant_id)s::uuid, %(id)s::uuid, %(binds)s) s
), media as (
"""
_DOCUMENT: LiteralString = """
    returning uploaded_at, updated_at
), document as (
    insert into mindia.search_documents (tenant_id, entity_id, entity_type, language, title, body, metadata, tsv)
    select %(tenant_id)s::uuid, %(id)s::uuid, %(kind)s::mindia.entity_type, %(language)s, %(title)s, %(body)s,
           %(metadata)s::jsonb,
           setweight(to_tsvector(%(language)s::regconfig, %(title)s), 'A')
           || setweight(to_tsvector(%(language)s::regconfig, %(indexed_description)s), 'B')
           || setweight(to_tsvector(%(language)s::regconfig, %(words)s), 'C')
           || setweight(to_tsvector(%(language)s::regconfig, %(indexed_body)s), 'D')
    from media
"""
_TRANSCODE: LiteralString = """
), transcode as (
    insert into mindia.tasks (id, tenant_id, task_type, kind, payload, initiated_by, trace_context, dedup_key)
    select %(transcode_id)s::uuid, %(tenant_id)s::uuid, 'video_transcode', 'video_transcode', %(transcode)s::jsonb,
           %(initiated_by)s::uuid, %(trace_context)s::jsonb, %(transcode_key)s
    from media
    on conflict (tenant_id, dedup_key) where dedup_key is not null and status in ('pending', 'running') do nothing
"""
_AND_TRANSCODE: dict[bool, LiteralString] = {True: _TRANSCODE, False: ""}
_FOLLOW_UP: LiteralString = f"""
), task as (
    insert into mindia.tasks (id, tenant_id, task_type, kind, payload, initiated_by, trace_context)
    select %(task_id)s::uuid, %(tenant_id)s::uuid, 'generate_embedding', 'generate_embedding', %(task)s::jsonb,
           %(initiated_by)s::uuid, %(trace_context)s::jsonb
    from media
), event as (
    select %(event_id)s::uuid as event_id, %(event)s::text as event from media
), events as ({fan_out("event")})
select uploaded_at, updated_at from media
"""

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
%(id)s::uuid, tenant_id, %(filename)s, %(original_filename)s, s3_key, content_type, file_size, sha256,
%(metadata)s::jsonb, %(description)s, details, true, %(expires_at)s::timestamptz
"""
_FROM_ORIGINAL: LiteralString = "from original, mindia.use_quota(original.tenant_id, 1, original.file_size)"

_LINK: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: f"""
        with original as (update mindia.images {_SHARE}), media as (
            insert into mindia.images ({_LINKED}, s3_url, width, height)
            select {_LINKED_VALUES}, s3_url, width, height {_FROM_ORIGINAL}
    """,
    MediaKind.VIDEO: f"""
        with original as (update mindia.videos {_SHARE}), media as (
            insert into mindia.videos ({_LINKED}, duration, width, height, processing_status, hls_master_key)
            select {_LINKED_VALUES}, duration, width, height,
                   case when hls_master_key is null then 'pending' else 'completed' end::mindia.processing_status,
                   hls_master_key
            {_FROM_ORIGINAL}
    """,
    MediaKind.AUDIO: f"""
        with original as (update mindia.audios {_SHARE}), media as (
            insert into mindia.audios ({_LINKED}, duration, bitrate, sample_rate, channels)
            select {_LINKED_VALUES}, duration, bitrate, sample_rate, channels {_FROM_ORIGINAL}
    """,
    MediaKind.DOCUMENT: f"""
        with original as (update mindia.documents {_SHARE}), media as (
            insert into mindia.documents ({_LINKED}, page_count)
            select {_LINKED_VALUES}, page_count {_FROM_ORIGINAL}
    """,
}
_LINK_DOCUMENT: LiteralString = """
    returning uploaded_at, updated_at
), shared as (
    insert into mindia.shared_objects as o (tenant_id, s3_key, item_count)
    select tenant_id, s3_key, 2 from original
    on conflict on constraint shared_objects_pkey do update set item_count = o.item_count + 1
), document as (
    insert into mindia.search_documents
        (tenant_id, entity_id, entity_type, language, title, body, metadata, generated, generated_by, tsv)
    select d.tenant_id, %(id)s::uuid, d.entity_type, d.language, %(title)s, d.body, %(metadata)s::jsonb,
           d.generated, d.generated_by,
           setweight(to_tsvector(d.language::regconfig, %(title)s), 'A')
           || setweight(to_tsvector(d.language::regconfig, %(indexed_description)s), 'B')
           || setweight(to_tsvector(d.language::regconfig, %(words)s), 'C')
           || ts_filter(d.tsv, '{d}')
    from mindia.search_documents d, media
    where d.tenant_id = %(tenant_id)s and d.entity_id = %(original_id)s
), passages as (
    insert into mindia.passages (tenant_id, entity_id, passage, source, page, start_s, end_s, text)
    select p.tenant_id, %(id)s::uuid, p.passage, p.source, p.page, p.start_s, p.end_s, p.text
    from mindia.passages p, media
    where p.tenant_id = %(tenant_id)s and p.entity_id = %(original_id)s
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


def add_all(session: Session, news: list[NewMedia]) -> list[Media | None]:
    """Write items of staged bytes, all at once; None for each whose staged row is gone."""
    binds = len(news) == 1 and session.hand_over_binding()
    return [rows[0] if rows else None for rows in session.batch([_statement(new, binds=binds) for new in news])]


def _statement(new: NewMedia, *, binds: bool) -> Statement[Media]:
    staged = new.staged
    body = getattr(staged.facts, "text", "")
    columns = columns_of(staged.facts)
    details = details_of(staged.facts)
    common: dict[str, Any] = {
        "id": staged.id,
        "kind": staged.facts.kind,
        "filename": staged.filename,
        "original_filename": staged.original_filename,
        "content_type": staged.content_type,
        "file_size": staged.file_size,
        "sha256": bytes.fromhex(staged.sha256),
        "s3_key": new.s3_key,
        "expires_at": new.expires_at,
    }
    parameters = {
        "tenant_id": staged.tenant_id,
        "binds": binds,
        "details": Jsonb(details),
        "language": new.language,
        "body": body,
        "indexed_body": indexable(body, max_bytes=_MAX_INDEXED_BODY),
        **_follow_up(staged.id, staged.facts.kind, new),
    }
    make = media_of(staged.tenant_id)
    return Statement(
        _STAGED + _INSERT[staged.facts.kind] + _DOCUMENT + _AND_TRANSCODE[new.transcode is not None] + _FOLLOW_UP,
        common | columns | parameters | new.texts.parameters(),
        lambda uploaded_at, updated_at: make(
            **common,
            **columns,
            details=details,
            metadata=new.texts.metadata,
            description=new.texts.description,
            uploaded_at=uploaded_at,
            updated_at=updated_at,
        ),
    )


def link(session: Session, new: NewLink) -> Media | None:
    """Write an item that shares the bytes of another one of the tenant; None where that is gone."""
    original = new.original
    parameters = {
        "tenant_id": original.tenant_id,
        "original_id": original.id,
        "id": new.id,
        "filename": new.filename,
        "original_filename": new.original_filename,
        "expires_at": new.expires_at,
        **new.texts.parameters(),
        **_follow_up(new.id, original.kind, new),
    }
    # What was made of the bytes is shared like the bytes; what is only being made is not there yet.
    fresh: Media = original
    if isinstance(original, Video):
        has_stream = original.hls_master_key is not None
        fresh = attrs.evolve(
            original, processing_status=ProcessingStatus.COMPLETED if has_stream else ProcessingStatus.PENDING
        )
    return session.one(
        _LINK[original.kind] + _LINK_DOCUMENT + _AND_TRANSCODE[new.transcode is not None] + _FOLLOW_UP,
        parameters,
        row=lambda uploaded_at, updated_at: attrs.evolve(
            fresh,
            id=new.id,
            filename=new.filename,
            original_filename=new.original_filename,
            metadata=new.texts.metadata,
            description=new.texts.description,
            expires_at=new.expires_at,
            uploaded_at=uploaded_at,
            updated_at=updated_at,
        ),
    )


def _follow_up(media_id: UUID, kind: MediaKind, new: NewMedia | NewLink) -> dict[str, object]:
    parameters = {
        "task_id": new.task_id,
        "task": Jsonb({"entity_id": str(media_id), "entity_type": kind}),
        "trace_context": new.trace_context,
        **event_parameters(new.event),
    }
    if new.transcode is not None:
        parameters |= {
            "transcode_id": new.transcode.id,
            "transcode": Jsonb({"video_id": str(media_id)}),
            "transcode_key": new.transcode.dedup_key,
        }
    return parameters
