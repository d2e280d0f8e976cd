"""New media rows that share the bytes of another item, with all that is written in one statement with them."""

from __future__ import annotations

from typing import LiteralString
from uuid import UUID

import attrs
from psycopg.types.json import Jsonb

from mindia.db.session import Session
from mindia.domain.media import Media, MediaKind, ProcessingStatus, Video
from mindia.repositories._new_media import ADDED, FOLLOW_UP, MEDIA, NEW, NewItem
from mindia.repositories.events import type_parameters

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
        {NEW}, original as (update mindia.images {_SHARE}){MEDIA}
            insert into mindia.images ({_LINKED}, s3_url, width, height)
            select {_LINKED_VALUES}, o.s3_url, o.width, o.height {_FROM_ORIGINAL}
    """,
    MediaKind.VIDEO: f"""
        {NEW}, original as (update mindia.videos {_SHARE}){MEDIA}
            insert into mindia.videos ({_LINKED}, duration, width, height, processing_status, hls_master_key)
            select {_LINKED_VALUES}, o.duration, o.width, o.height,
                   case when o.hls_master_key is null then 'pending' else 'completed' end::mindia.processing_status,
                   o.hls_master_key
            {_FROM_ORIGINAL}
    """,
    MediaKind.AUDIO: f"""
        {NEW}, original as (update mindia.audios {_SHARE}){MEDIA}
            insert into mindia.audios ({_LINKED}, duration, bitrate, sample_rate, channels)
            select {_LINKED_VALUES}, o.duration, o.bitrate, o.sample_rate, o.channels {_FROM_ORIGINAL}
    """,
    MediaKind.DOCUMENT: f"""
        {NEW}, original as (update mindia.documents {_SHARE}){MEDIA}
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
class NewLink(NewItem):
    """What is written for an item that shares the bytes of another one.

    Attributes:
        id: Of the new item.
        original: Whose bytes they are.
        filename: Cleaned.
        original_filename: As it was handed in.
    """

    id: UUID
    original: Media
    filename: str
    original_filename: str


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
        _LINK[original.kind] + ADDED + _LINK_DOCUMENT + FOLLOW_UP[original.kind],
        {
            "items": Jsonb([{"filename": new.filename, "original_filename": new.original_filename} | new.row(new.id)]),
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
