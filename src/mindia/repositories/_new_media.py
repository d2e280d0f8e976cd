"""What the statements that write a new media item have in common."""

from __future__ import annotations

from datetime import datetime
from typing import LiteralString
from uuid import UUID

import attrs
from psycopg.types.json import Jsonb

from mindia.domain.events import MediaEvent
from mindia.domain.media import MediaKind, Metadata
from mindia.repositories._text import indexable
from mindia.repositories.events import fan_out, payload

_MAX_INDEXED_DESCRIPTION = 200_000

NEW: LiteralString = """
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

MEDIA: LiteralString = """
, media as (
"""
"""Stands before the insert of the items, and `ADDED` behind it."""

ADDED: LiteralString = """
    returning id, uploaded_at, updated_at
), added as materialized (
    select n.*, media.uploaded_at, media.updated_at from new n join media using (id)
)
"""
"""What follows is written for the items that were inserted."""

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
FOLLOW_UP: dict[MediaKind, LiteralString] = {
    kind: _TRANSCODE + _TASK_AND_EVENT if kind is MediaKind.VIDEO else _TASK_AND_EVENT for kind in MediaKind
}
"""What embeds and encodes it, and tells of it."""


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

    def values(self) -> dict[str, object]:
        """Return them as JSON."""
        return {
            "metadata": self.metadata,
            "description": self.description,
            "title": self.title,
            "indexed_description": indexable(self.description, max_bytes=_MAX_INDEXED_DESCRIPTION),
            "words": self.words,
        }

    def parameters(self) -> dict[str, object]:
        """Return them as a statement takes them."""
        return self.values() | {"metadata": Jsonb(self.metadata)}


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
class NewItem:
    """What is written for every new item.

    Attributes:
        texts: What is said about it.
        expires_at: From when on it is not found any more.
        task_id: Of the task that embeds it.
        event: What webhooks are told.
        transcode: The task that encodes it, or None.
        trace_context: In which trace the tasks are enqueued, as JSON, or None.
    """

    texts: Texts
    expires_at: datetime | None
    task_id: UUID
    event: MediaEvent
    transcode: NewTranscode | None = None
    trace_context: str | None = None

    def row(self, media_id: UUID) -> dict[str, object]:
        """Return it as an object of the array that `NEW` reads."""
        event = self.event
        row: dict[str, object] = {
            **self.texts.values(),
            "id": str(media_id),
            "task_id": str(self.task_id),
            "trace_context": self.trace_context,
            "event_id": str(event.id),
            "event": payload(event),
            "event_url": event.url,
        }
        if self.expires_at is not None:
            row["expires_at"] = self.expires_at.isoformat()
        if event.initiated_by is not None:
            row["initiated_by"] = str(event.initiated_by)
        if self.transcode is not None:
            row |= {"transcode_id": str(self.transcode.id), "transcode_key": self.transcode.dedup_key}
        return row
